"""One pass over the clips of a feature folder: statistics of all, and the rows themselves as long as they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.base import Features
from triptych.pipeline.processes.memory import return_freed_memory
from triptych.pipeline.trainer.data.pooled import Pooled
from triptych.pipeline.trainer.data.source import Store, StoredRows, StoredTexts, text_rows
from triptych.pipeline.trainer.settings import MODALITIES

POOLED = ("audio", "vision")


class Gathered:
    """What is known of the clips that were added so far.

    Parameters
    ----------
    clips
        The largest number of clips that will be added.
    sequences
        Audio and vision rows are needed too, not only their statistics.
    memory
        Bytes of rows to hold. If the clips have more, audio and vision are released first, then text.
    """

    def __init__(self, clips: int, sequences: bool, memory: int) -> None:
        self._clips, self._memory = clips, memory
        self._count = 0
        self._pooled: dict[str, Pooled] = {}
        self._present: dict[str, list[bool]] = {modality: [] for modality in MODALITIES}
        self._text_lengths: list[int] = []
        self._sequences = sequences
        self._texts: list[Tensor | None] | None = []
        self._rows: dict[str, list[Features | None]] | None = {modality: [] for modality in POOLED}
        self._text_bytes, self._row_bytes = 0, 0

    def add(self, features: Mapping[str, Features | None]) -> None:
        """Add the next clip, given its features by modality."""
        for modality in MODALITIES:
            self._present[modality].append(features[modality] is not None)
        for modality in POOLED:
            if (rows := features[modality]) is not None:
                if modality not in self._pooled:
                    self._pooled[modality] = Pooled.empty(self._clips, len(rows.columns))
                self._pooled[modality].set(self._count, rows)
        self._count += 1
        self._hold(features)

    def _hold(self, features: Mapping[str, Features | None]) -> None:
        text = None if features["text"] is None else text_rows(features["text"])
        self._text_lengths.append(0 if text is None else len(text))
        if self._texts is not None:
            self._texts.append(text)
            self._text_bytes += 0 if text is None else text.nbytes
        if self._sequences and self._rows is not None:
            for modality in POOLED:
                rows = features[modality]
                self._rows[modality].append(rows)
                self._row_bytes += 0 if rows is None else _size(rows)
        if self._rows is not None and self._text_bytes + self._row_bytes > self._memory:
            self._rows, self._row_bytes = None, 0
            return_freed_memory()
        if self._texts is not None and self._text_bytes > self._memory:
            self._texts, self._text_bytes = None, 0
            return_freed_memory()

    def pooled(self, modality: str, width: int) -> Pooled:
        """Return a modality's statistics; of a modality without any rows, they have this many columns."""
        return self._pooled.get(modality, Pooled.empty(self._clips, width)).first(self._count)

    def absent(self, modality: str) -> NDArray[np.bool_]:
        """Return which clips have no usable rows of a modality."""
        return ~self._has(modality)

    @property
    def text_lengths(self) -> NDArray[np.int64]:
        """Rows of each text."""
        return np.array(self._text_lengths, dtype=np.int64)

    def texts(self, store: Store, stage: str, ids: tuple[str, ...]) -> Sequence[Tensor | None]:
        """Return the texts: in memory, or read from the store by access."""
        if self._texts is None:
            return StoredTexts(store, stage, ids, self._has("text"))
        return tuple(self._texts)

    def sequences(
        self, store: Store, stages: Mapping[str, str], ids: tuple[str, ...]
    ) -> dict[str, Sequence[Features | None]]:
        """Return the audio and vision rows, likewise; empty if they are not needed."""
        if not self._sequences:
            return {}
        if self._rows is None:
            return {name: StoredRows(store, stages[name], ids, self._has(name)) for name in POOLED}
        return {name: tuple(rows) for name, rows in self._rows.items()}

    def _has(self, modality: str) -> NDArray[np.bool_]:
        return np.array(self._present[modality], dtype=bool)


def _size(features: Features) -> int:
    arrays: tuple[NDArray[Any], ...] = (
        features.values,
        features.times,
        features.valid,
        *features.extras.values(),
    )
    return sum(int(array.nbytes) for array in arrays)
