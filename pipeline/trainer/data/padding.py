"""Clips padded as the reference (MMSA) pads them, so that both can be compared: ``--compat mmsa``.

Every clip is padded with zeros to the longest length, and the padding is treated as rows: the text's LSTM state is
read after it, means include it, and attention reads it. Nothing is standardised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.pooled import Rows
from triptych.pipeline.trainer.data.standardising import Normaliser, Ragged, SplitTensors
from triptych.pipeline.trainer.settings import SystemSettings, View


@dataclass(frozen=True)
class PaddedNormaliser(Normaliser):
    """The three lengths, fitted as usual; means of 0 and standard deviations of 1."""

    @classmethod
    def fit(cls, data: SentimentData, rows: Rows) -> Self:
        """Fit the lengths on some clips."""
        fitted = super().fit(data, rows)
        audio, vision = np.zeros_like(fitted.audio_mean), np.zeros_like(fitted.vision_mean)
        return replace(
            fitted, audio_mean=audio, audio_std=audio + 1, vision_mean=vision, vision_std=vision + 1
        )

    def apply(self, data: SentimentData, rows: Rows, view: View = "mean") -> SplitTensors:
        """Pad clips to the full lengths; see `Normaliser.apply`."""
        texts = np.zeros((len(rows), self.text_length, data.widths.text), np.float32)
        for index, row in enumerate(rows):
            text = self.cut(data.text[row], data.widths.text)
            texts[index, : len(text)] = text.numpy()
        audio, vision = (self._padded(modality, data, rows) for modality in ("audio", "vision"))
        return SplitTensors(
            ids=tuple(data.ids[row] for row in rows),
            text=_full(texts),
            audio=self._viewed(audio, view),
            vision=self._viewed(vision, view),
            labels=torch.from_numpy(data.labels[rows]),
        )

    @staticmethod
    def reads_rows(view: View) -> bool:
        """Return true: means are taken over the padding too."""
        return True

    def _padded(self, modality: str, data: SentimentData, rows: Rows) -> NDArray[np.float32]:
        """Return rows of a modality, shape (len(rows), L, D); zeros where rows are invalid or missing."""
        if modality not in data.sequences:
            raise ValueError(f"padding of {modality} rows needs data loaded with sequences=True")
        length = getattr(self, f"{modality}_length")
        values = np.zeros((len(rows), length, len(getattr(self, f"{modality}_mean"))), np.float32)
        for index, row in enumerate(rows):
            features = data.sequences[modality][row]
            if features is not None:
                cleared = np.where(features.valid[:length, None], features.values[:length], 0)
                values[index, : len(cleared)] = cleared
        return values

    def _viewed(self, values: NDArray[np.float32], view: View) -> Tensor | Ragged:
        if view == "mean":
            return torch.from_numpy(values.mean(axis=1))
        if view == "repeated":
            values = np.repeat(values.mean(axis=1, keepdims=True), self.text_length, axis=1)
        return _full(pool_evenly(values, self.text_length) if view == "tokens" else values)


def pool_evenly(values: NDArray[np.float32], tokens: int) -> NDArray[np.float32]:
    """Average rows, shape (N, L, D), by ceil(L / tokens); the last row is repeated to fill the last shares."""
    share = -(-values.shape[1] // tokens)
    missing = share * tokens - values.shape[1]
    filled = np.pad(values, ((0, 0), (0, missing), (0, 0)), mode="edge")
    pooled: NDArray[np.float32] = filled.reshape(len(values), tokens, share, -1).mean(axis=2)
    return pooled


def _full(values: NDArray[np.float32]) -> Ragged:
    valid = torch.ones(values.shape[1], dtype=torch.bool)
    return Ragged.of([(torch.from_numpy(rows), valid) for rows in values])


def normaliser_of(settings: SystemSettings) -> type[Normaliser]:
    """Return the normaliser that fits a system's padding."""
    return PaddedNormaliser if settings.padding == "counted" else Normaliser
