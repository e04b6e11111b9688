"""Rows of clips in a file, of which a batch reads its own: they take memory only while the batch exists."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from triptych.pipeline.trainer.models.inputs import Padded

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FiledRows:
    """Rows of N clips, one clip after the other, as `Ragged` has them in memory.

    Attributes
    ----------
    path
        float32, shape (sum of lengths, D), without a header. It is read, not mapped: mapped pages would count as the
        process's memory.
    width
        D.
    valid
        bool on the CPU, shape (sum of lengths,): the row counts.
    lengths
        int64 on the CPU, shape (N,), at least 1 each.
    device
        Where batches are used.
    """

    path: Path
    width: int
    valid: Tensor
    lengths: Tensor
    device: torch.device = CPU

    def to(self, device: torch.device) -> FiledRows:
        """Return the same rows, copied by batch to a device."""
        return replace(self, device=device)

    def take(self, rows: Tensor) -> Padded:
        """Read clips, padded with zeros to the longest of them.

        Raises
        ------
        OSError
            The file cannot be read, or is too short.
        """
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        shape = len(rows), int(lengths.max())
        values, mask = torch.zeros(*shape, self.width), torch.zeros(shape, dtype=torch.bool)
        with self.path.open("rb", buffering=0) as file:
            for clip, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
                content = values[clip, :length].numpy()
                file.seek(start * self.width * content.itemsize)
                if file.readinto(content.data.cast("B")) != content.nbytes:
                    raise OSError(errno.EIO, "the file is shorter than when it was written", str(self.path))
                mask[clip, :length] = self.valid[start : start + length]
        return Padded(values.to(self.device), mask.to(self.device), lengths)
