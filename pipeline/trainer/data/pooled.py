"""One modality's clips reduced to the statistics of their rows, so that the rows need not be in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.base import Features
from triptych.pipeline.trainer.data.usable import usable_cells

Rows = NDArray[np.intp]  # positions of clips in a SentimentData


@dataclass(frozen=True)
class Pooled:
    """One modality of N clips, reduced to count, mean and sum of squared deviations by column.

    They are taken over the usable rows. The mean of standardised rows and the statistics of any set of clips can be
    computed from them, so rows are read only once for any number of folds.

    Attributes
    ----------
    count, mean, sum_of_squares
        float64, shape (N, D): usable rows, their mean (0 without rows), sum of squared deviations from it.
    lengths
        int64, shape (N,): rows of each clip, usable or not; 0 without features.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    sum_of_squares: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def empty(cls, clips: int, width: int) -> Pooled:
        """Make room for clips, which have no rows until they are set."""
        shape = (clips, width)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(clips, dtype=np.int64))

    def set(self, row: int, features: Features) -> None:
        """Reduce one clip's rows."""
        usable = usable_cells(features)
        values = features.values.astype(np.float64)
        unusable = None if usable.all() else ~usable
        if unusable is not None:
            values[unusable] = 0
        count = usable.sum(axis=0)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        values -= mean
        np.square(values, out=values)
        if unusable is not None:
            values[unusable] = 0
        self.count[row], self.mean[row], self.lengths[row] = count, mean, len(features)
        self.sum_of_squares[row] = values.sum(axis=0)

    def first(self, clips: int) -> Pooled:
        """Return the first clips."""
        return Pooled(
            self.count[:clips], self.mean[:clips], self.sum_of_squares[:clips], self.lengths[:clips]
        )

    def statistics(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each column over all usable rows of some clips, shape (D,) each.

        A column that is constant, up to the rounding of float32, gets a standard deviation of 1.
        """
        count, means = self.count[rows], self.mean[rows]
        total = np.maximum(count.sum(axis=0), 1)
        mean = (count * means).sum(axis=0) / total
        squares = self.sum_of_squares[rows].sum(axis=0) + (count * (means - mean) ** 2).sum(axis=0)
        std = np.sqrt(squares / total)
        return mean, np.where(std > 1e-6 * np.abs(mean), std, 1.0)

    def standardised(self, rows: Rows, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Tensor:
        """Mean of the standardised rows, float32, shape (len(rows), D); 0 without usable rows."""
        values = np.where(self.count[rows] > 0, (self.mean[rows] - mean) / std, 0.0)
        return torch.from_numpy(values.astype(np.float32))
