"""A feature folder whose audio and vision have one row for each text row, as MMSA's aligned files have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from triptych.extractors.base import Features
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import WORDS, Streams
from triptych.pipeline.trainer.data.aligned import aligned, pooled_rows, words_of_tokens


@dataclass(frozen=True)
class TokenAligned:
    """A feature folder that gives the audio and vision rows of each token's word.

    The text is not changed, so that its input ids fit. Tokens of no word, such as [CLS] and punctuation, have audio and
    vision rows of zeros that are not valid.
    """

    store: FeatureStore
    streams: Streams

    @classmethod
    def of(cls, store: FeatureStore, streams: Streams) -> TokenAligned:
        """Check that every clip has rows of the stage ``words``.

        Raises
        ------
        InputError
            Clips have none.
        """
        aligned(store, streams)
        return cls(store, streams)

    @property
    def folder(self) -> Path:
        """The feature folder."""
        return self.store.folder

    @property
    def manifest(self) -> Manifest:
        """The folder's clips."""
        return self.store.manifest

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The folder's settings."""
        return self.store.recipe

    def ids(self, stage: str) -> Collection[str]:
        """Return the ids of the clips with features of a stage."""
        return self.store.ids(stage)

    def read(self, stage: str, clip_id: str) -> Features:
        """Read one clip's text, or a row of audio or vision for each row of its text."""
        features = self.store.read(stage, clip_id)
        if stage == self.streams.text:
            return features
        words = self.store.read(WORDS, clip_id)
        owners = words_of_tokens(words, self.store.read(self.streams.text, clip_id))
        pooled = pooled_rows(features, words, len(words))
        spoken = owners >= 0
        return replace(
            pooled,
            values=np.where(spoken[:, None], pooled.values[owners], np.float32(0)),
            times=np.where(spoken, pooled.times[owners], np.nan),
            valid=pooled.valid[owners] & spoken,
            extras={name: array[owners] for name, array in pooled.extras.items()},
        )
