"""Inputs of the systems: the columns of each modality, and ragged rows padded into one tensor."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class InputWidths(NamedTuple):
    """Columns of each modality."""

    text: int
    audio: int
    vision: int


class Padded(NamedTuple):
    """The rows of B clips, padded to the longest of them.

    Attributes
    ----------
    values
        Shape (B, L, D); values where ``mask`` is false are never read.
    mask
        bool, shape (B, L): the row counts. It is false after a clip's end, and for an invalid row within it
        (a frame without a face). Every clip has a row that counts.
    lengths
        int64 on the CPU, shape (B,), 1 to L: rows of each clip, whether they count or not.
    """

    values: Tensor
    mask: Tensor
    lengths: Tensor

    @property
    def cleared(self) -> Tensor:
        """The values, with zeros where no row counts."""
        return self.values.masked_fill(~self.mask[..., None], 0)
