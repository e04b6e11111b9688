"""Clips padded as the reference (MMSA) pads them, so that both can be compared: ``--compat mmsa``.

Every clip has zeros up to the longest length, and these are rows like any other: the text's LSTM is read
behind them, means are over all of them, and attention sees them. Nothing is standardised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.pipeline.trainer.data.clips import Rows, SentimentData
from triptych.pipeline.trainer.data.standardising import Batch, Normaliser, Ragged
from triptych.pipeline.trainer.settings import SystemSettings, View


@dataclass(frozen=True)
class PaddedNormaliser(Normaliser):
    """The three lengths, learnt as ever; means of 0 and deviations of 1."""

    @classmethod
    def fit(cls, data: SentimentData, rows: Rows) -> Self:
        """Learn the lengths from some clips."""
        learnt = super().fit(data, rows)
        audio, vision = np.zeros_like(learnt.audio_mean), np.zeros_like(learnt.vision_mean)
        return replace(
            learnt,
            audio_mean=audio,
            audio_deviation=audio + 1,
            vision_mean=vision,
            vision_deviation=vision + 1,
        )

    def apply(self, data: SentimentData, rows: Rows, view: View = "mean") -> Batch:
        """Turn clips into one batch, each of the full lengths; see `Normaliser.apply`."""
        texts = np.zeros((len(rows), self.text_length, data.widths.text), np.float32)
        for place, row in enumerate(rows):
            text = self.cut(data.text[row], data.widths.text)
            texts[place, : len(text)] = text.numpy()
        audio, vision = (self._padded(modality, data, rows) for modality in ("audio", "vision"))
        return Batch(
            text=_full(texts),
            audio=self._viewed(audio, view),
            vision=self._viewed(vision, view),
            labels=torch.from_numpy(data.labels[rows]),
        )

    def _padded(self, modality: str, data: SentimentData, rows: Rows) -> NDArray[np.float32]:
        """Rows of a modality, shape (len(rows), L, D); zeros where nothing is usable."""
        if modality not in data.sequences:
            raise ValueError(f"padding of {modality} rows needs data loaded with sequences=True")
        length = getattr(self, f"{modality}_length")
        values = np.zeros((len(rows), length, len(getattr(self, f"{modality}_mean"))), np.float32)
        for place, row in enumerate(rows):
            features = data.sequences[modality][row]
            if features is not None:
                kept = np.where(features.valid[:length, None], features.values[:length], 0)
                values[place, : len(kept)] = kept
        return values

    def _viewed(self, values: NDArray[np.float32], view: View) -> Tensor | Ragged:
        if view == "mean":
            return torch.from_numpy(values.mean(axis=1))
        return _full(pool_evenly(values, self.text_length) if view == "words" else values)


def pool_evenly(values: NDArray[np.float32], words: int) -> NDArray[np.float32]:
    """Average rows, shape (N, L, D), by ceil(L / words), the last row repeated as often as that lacks rows."""
    share = -(-values.shape[1] // words)
    lacking = share * words - values.shape[1]
    whole = np.pad(values, ((0, 0), (0, lacking), (0, 0)), mode="edge")
    pooled: NDArray[np.float32] = whole.reshape(len(values), words, share, -1).mean(axis=2)
    return pooled


def _full(values: NDArray[np.float32]) -> Ragged:
    valid = torch.ones(values.shape[1], dtype=torch.bool)
    return Ragged.of([(torch.from_numpy(rows), valid) for rows in values])


def normaliser_of(settings: SystemSettings) -> type[Normaliser]:
    """Which one a system's padding asks for."""
    return PaddedNormaliser if settings.padding == "counted" else Normaliser
