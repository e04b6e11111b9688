"""The clips of a split as the training loop reads them: tensors of all, or read and standardised by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from triptych.pipeline.trainer.data.cache import cached
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.pooled import Rows
from triptych.pipeline.trainer.data.standardising import Inputs, Normaliser
from triptych.pipeline.trainer.settings import View


class Batches(Protocol):
    """The clips of a split, N of them.

    Attributes
    ----------
    ids
        The clips.
    labels
        float32, shape (N, 4), NaN where missing; on the model's device.
    """

    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def inputs(self, rows: Tensor) -> Inputs:
        """Return the arguments of a system's ``forward`` for some clips, given by their positions on the CPU."""


@dataclass(frozen=True)
class ReadByBatch:
    """Clips of which only those of one batch are in memory; their values are the same as in `SplitTensors`."""

    normaliser: Normaliser
    data: SentimentData
    rows: Rows
    view: View
    ids: tuple[str, ...]
    labels: Tensor

    @classmethod
    def of(
        cls, normaliser: Normaliser, data: SentimentData, rows: Rows, view: View, device: torch.device
    ) -> ReadByBatch:
        """Select clips for a model on a device."""
        ids = tuple(data.ids[row] for row in rows)
        return cls(normaliser, data, rows, view, ids, torch.from_numpy(data.labels[rows]).to(device))

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, rows: Tensor) -> Inputs:
        """Read, standardise and pad some clips, and copy them to the labels' device."""
        clips = self.normaliser.apply(self.data, self.rows[rows.numpy()], self.view)
        return clips.to(self.labels.device).inputs(torch.arange(len(rows)))


def batches_of(
    normaliser: Normaliser, data: SentimentData, rows: Rows, view: View, device: torch.device
) -> Batches:
    """Prepare clips that are read many times.

    They become tensors if the data are in memory. Otherwise each batch reads its own: from a cache of standardised
    values where there is a folder for one, but from the feature folder if the view has all rows, since a cache would
    be as large as the feature folder.
    """
    if data.in_memory(rows=normaliser.reads_rows(view)):
        return normaliser.apply(data, rows, view).to(device)
    if data.cache is not None and view != "rows":
        return cached(normaliser, data, rows, view, data.cache).to(device)
    return ReadByBatch.of(normaliser, data, rows, view, device)
