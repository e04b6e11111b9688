"""A feature folder whose text, audio and vision have one row for each word of the transcript (``--align words``).

Systems that need aligned inputs, as MFN does in its paper, read it like any other folder: it is pooled whenever a clip
is read, so rows in memory, rows read by batch and cached rows are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted
from triptych.pipeline.storage.streams import ALIGNMENTS, WORDS, Streams
from triptych.pipeline.trainer.data.source import ClipList, Store
from triptych.pipeline.trainer.data.usable import usable_cells

HOW_TO_ALIGN = f"`triptych extract SOURCE -o FOLDER --only text,audio,vision,{WORDS}` makes them"
_NAMED = 3  # clips that a message names


@dataclass(frozen=True)
class WordAligned:
    """A feature folder, pooled to words.

    Attributes
    ----------
    store
        The folder; `read` of a stage of `streams` gives a row for each word, of any other stage its own rows.
    streams
        The stage of each modality.
    """

    store: Store
    streams: Streams

    @property
    def manifest(self) -> ClipList:
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
        """Read one clip's rows, pooled to its words.

        Raises
        ------
        InputError
            Text rows have no times, as those of an imported file.
        """
        features = self.store.read(stage, clip_id)
        if stage not in self.streams.stages.values():
            return features
        words = self.store.read(WORDS, clip_id)
        owners = words_of_tokens(words, self.store.read(self.streams.text, clip_id))
        if not (owners >= 0).any():
            raise InputError(
                f"{clip_id}: no row of {self.streams.text} belongs to a word; --align {WORDS} needs a text stream of "
                "tokens of the transcript"
            )
        count = int(owners.max()) + 1
        if stage == self.streams.text:
            return pooled_text(features, owners, words)
        return pooled_rows(features, words, count)


def aligned(store: Store, streams: Streams, only: Collection[str] | None = None) -> Store:
    """Return the folder as `streams` reads it: the same one, or pooled to words.

    Raises
    ------
    InputError
        Clips with text, audio or vision have no rows of the stage ``words``.
    """
    if streams.align not in ALIGNMENTS:
        raise InputError(f"align {quoted(streams.align)} is unknown; choose from {', '.join(ALIGNMENTS)}")
    if streams.align == "none":
        return store
    try:
        with_words = set(store.ids(WORDS))
    except (ValueError, KeyError):
        with_words = set()
    read = set().union(*(store.ids(stage) for stage in streams.stages.values()))
    wanted = {clip.id for clip in store.manifest.clips if only is None or clip.id in only}
    if missing := sorted((read & wanted) - with_words):
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise InputError(
            f"--align {WORDS}: {len(missing)} of {len(read & wanted)} clips have no rows of the stage {WORDS} "
            f"({named}). {HOW_TO_ALIGN}; remove clips that cannot be aligned from the manifest"
        )
    return WordAligned(store, streams)


def words_of_tokens(words: Features, text: Features) -> NDArray[np.int64]:
    """Return the word of each text row, int64, shape (T,); -1 where it belongs to none."""
    timed = np.isfinite(text.times) & text.valid
    owners = np.full(len(text), -1, np.int64)
    owners[timed] = np.searchsorted(words.times, text.times[timed], side="right") - 1
    return owners


def pooled_text(text: Features, owners: NDArray[np.int64], words: Features) -> Features:
    """Average the text rows of each word.

    Special tokens and punctuation belong to no word and are left out. A word without rows of its own has those of the
    last word before it, or of the first one after it. Words after the last one with rows, which the language model cut
    off, are left out.
    """
    count = int(owners.max()) + 1
    sums = np.zeros((count, text.values.shape[1]))
    np.add.at(sums, owners[owners >= 0], text.values[owners >= 0])
    rows = np.bincount(owners[owners >= 0], minlength=count)
    present = np.flatnonzero(rows)
    source = present[np.maximum(np.searchsorted(present, np.arange(count), side="right") - 1, 0)]
    values = (sums[source] / rows[source, None]).astype(np.float32)
    return _rows(text, values, np.ones(count, dtype=bool), words.times[:count])


def pooled_rows(features: Features, words: Features, count: int) -> Features:
    """Average the valid rows of audio or vision in the span of each of the first `count` words.

    A span without any row, shorter than the distance between rows, has the row nearest to its middle. A word of which
    no row is valid has a row of zeros that is not valid. A column without a usable cell, such as log F0 in an unvoiced
    word, is 0 in a valid row and marked as the rows of its stage mark it.
    """
    start, end = words.values[:count, 0].astype(np.float64), words.values[:count, 1].astype(np.float64)
    first = np.searchsorted(features.times, start)
    after = np.searchsorted(features.times, end)
    nearest = _nearest(features.times, (start + end) / 2)
    empty = after <= first
    first, after = np.where(empty, nearest, first), np.where(empty, nearest + 1, after)
    usable = usable_cells(features)
    values = np.zeros((count, features.values.shape[1]), np.float32)
    valid = np.zeros(count, dtype=bool)
    extras = {name: np.zeros(count, array.dtype) for name, array in features.extras.items()}
    for row, (begin, stop) in enumerate(zip(first, after, strict=True)):
        cells = usable[begin:stop]
        seen = cells.any(axis=0)
        sums = np.where(cells, features.values[begin:stop], 0).sum(axis=0, dtype=np.float64)
        values[row, seen] = (sums / np.maximum(cells.sum(axis=0), 1))[seen]
        valid[row] = features.valid[begin:stop].any()
        for name, array in features.extras.items():
            extras[name][row] = array[begin:stop].max()
    return replace(_rows(features, values, valid, words.times[:count]), extras=extras)


def _nearest(times: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.int64]:
    after = np.clip(np.searchsorted(times, at), 1, max(len(times) - 1, 1))
    before = after - 1
    last = len(times) - 1
    closer = np.abs(times[np.minimum(after, last)] - at) < np.abs(times[before] - at)
    chosen: NDArray[np.int64] = np.where(closer, np.minimum(after, last), before)
    return chosen


def _rows(
    features: Features, values: NDArray[np.float32], valid: NDArray[np.bool_], times: NDArray[np.float64]
) -> Features:
    return replace(features, values=values, valid=valid, times=times, extras={})
