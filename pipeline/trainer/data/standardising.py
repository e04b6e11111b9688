"""Conversion of clips to tensors: cut, standardised by the training split's statistics, and padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.filed import FiledRows
from triptych.pipeline.trainer.data.lengths import longest
from triptych.pipeline.trainer.data.pooled import Pooled, Rows
from triptych.pipeline.trainer.data.usable import usable_cells
from triptych.pipeline.trainer.models.inputs import Padded
from triptych.pipeline.trainer.settings import View

Inputs = tuple[Padded, Tensor | Padded, Tensor | Padded]  # text, audio, vision of a batch


@dataclass(frozen=True)
class Ragged:
    """Rows of N clips, one clip after the other.

    Attributes
    ----------
    values
        float32, shape (sum of lengths + 1, D); the last row is zeros: padding copies it.
    valid
        bool, shape (sum of lengths + 1,): the row counts.
    lengths
        int64 on the CPU, shape (N,), at least 1 each.
    """

    values: Tensor
    valid: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, clips: Sequence[tuple[Tensor, Tensor]]) -> Ragged:
        """Join the values and validities of clips."""
        values, valid = zip(*clips, strict=True)
        nothing = torch.zeros_like(values[0][:1]), torch.zeros_like(valid[0][:1])
        lengths = torch.tensor([len(part) for part in valid])
        return cls(torch.cat([*values, nothing[0]]), torch.cat([*valid, nothing[1]]), lengths)

    def to(self, device: torch.device) -> Ragged:
        """Copy rows to a device; lengths stay on the CPU."""
        return Ragged(self.values.to(device), self.valid.to(device), self.lengths)

    def take(self, rows: Tensor) -> Padded:
        """Pick clips, padded with zeros to the longest of them."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        steps = torch.arange(int(lengths.max()))
        outside = steps >= lengths[:, None]
        positions = (starts[:, None] + steps).masked_fill(outside, len(self.values) - 1)
        positions = positions.to(self.values.device)
        values = self.values.index_select(0, positions.flatten()).view(*positions.shape, -1)
        return Padded(values, self.valid[positions], lengths)


@dataclass(frozen=True)
class SplitTensors:
    """All clips of a split, N of them, as the systems take them.

    Attributes
    ----------
    ids
        The clips.
    text
        Text rows, columns (768) by default.
    audio, vision
        Columns (33) and (709) by default: each clip's mean, float32, shape (N, D), or its rows.
    labels
        float32, shape (N, 4), NaN where missing.
    """

    ids: tuple[str, ...]
    text: Ragged | FiledRows
    audio: Tensor | Ragged | FiledRows
    vision: Tensor | Ragged | FiledRows
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> SplitTensors:
        """Copy everything but lengths, and rows in files, to a device; on the CPU nothing is copied."""
        text, audio, vision, labels = (
            part.to(device) for part in (self.text, self.audio, self.vision, self.labels)
        )
        return SplitTensors(self.ids, text, audio, vision, labels)  # type: ignore[arg-type]

    def inputs(self, rows: Tensor) -> Inputs:
        """Return the arguments of a system's ``forward`` for some clips, given by their positions on the CPU."""
        audio, vision = (
            part[rows.to(part.device)] if isinstance(part, Tensor) else part.take(rows)
            for part in (self.audio, self.vision)
        )
        return self.text.take(rows), audio, vision


@dataclass(frozen=True)
class Normaliser:
    """Statistics of the training split's features, fitted before a system is trained.

    Audio and vision rows are standardised by column. Text rows are used as they are, as in the paper: the
    language model's embeddings are layer-normalised already. A clip without a modality gets that modality's
    mean for audio and vision, and a single row of zeros for text.

    Attributes
    ----------
    text_length
        Longest text in rows: mean plus three standard deviations of the training texts' lengths, rounded down
        (39 on CH-SIMS).
    audio_length, vision_length
        The same for audio and vision rows, for systems that read them. Means include all usable rows.
    audio_mean, audio_std, vision_mean, vision_std
        float64, shape (33,) and (709,) by default.
    """

    text_length: int
    audio_length: int
    vision_length: int
    audio_mean: NDArray[np.float64]
    audio_std: NDArray[np.float64]
    vision_mean: NDArray[np.float64]
    vision_std: NDArray[np.float64]

    @classmethod
    def fit(cls, data: SentimentData, rows: Rows) -> Self:
        """Fit the statistics on some clips."""
        return cls(
            longest([length for length in data.text_lengths[rows] if length]),
            longest([length for length in data.audio.lengths[rows] if length]),
            longest([length for length in data.vision.lengths[rows] if length]),
            *data.audio.statistics(rows),
            *data.vision.statistics(rows),
        )

    def apply(self, data: SentimentData, rows: Rows, view: View = "mean") -> SplitTensors:
        """Standardise clips, audio and vision as a system views them.

        A text that is cut keeps its last token, [SEP]; audio and vision rows are cut at the end.

        Raises
        ------
        ValueError
            The view needs rows, and the data were loaded without them.
        """
        texts = [self.cut(data.text[row], data.widths.text) for row in rows]
        tokens = [len(text) for text in texts]
        return SplitTensors(
            ids=tuple(data.ids[row] for row in rows),
            text=Ragged.of([(text, torch.ones(len(text), dtype=torch.bool)) for text in texts]),
            audio=self._view("audio", data, rows, view, tokens),
            vision=self._view("vision", data, rows, view, tokens),
            labels=torch.from_numpy(data.labels[rows]),
        )

    @staticmethod
    def reads_rows(view: View) -> bool:
        """Return whether `apply` reads audio and vision rows for a view."""
        return view != "mean"

    def cut(self, text: Tensor | None, width: int) -> Tensor:
        """Return a text's rows up to the longest length; a row of zeros for a missing text."""
        if text is None:
            return torch.zeros(1, width)
        if len(text) <= self.text_length:
            return text
        return torch.cat([text[: self.text_length - 1], text[-1:]])

    def _view(
        self, modality: str, data: SentimentData, rows: Rows, view: View, tokens: Sequence[int]
    ) -> Tensor | Ragged:
        pooled: Pooled = getattr(data, modality)
        mean, std = getattr(self, f"{modality}_mean"), getattr(self, f"{modality}_std")
        if view == "mean":
            return pooled.standardised(rows, mean, std)
        if modality not in data.sequences:
            raise ValueError(f"a system that reads {modality} rows needs data loaded with sequences=True")
        clips = []
        for row, count in zip(rows, tokens, strict=True):
            features = data.sequences[modality][row]
            values, usable = np.zeros((1, len(mean))), np.ones((1, len(mean)), dtype=bool)
            length = getattr(self, f"{modality}_length")
            if features is not None and features.valid[:length].any():
                usable = usable_cells(features)[:length]
                values = features.values[:length] - mean
                values /= std
                if not usable.all():
                    values[~usable] = 0
            if view == "tokens":
                values, valid = pool_to_tokens(values, usable, count), np.ones(count, dtype=bool)
            elif view == "repeated":
                values = np.repeat(pool_to_tokens(values, usable, 1), count, axis=0)
                valid = np.ones(count, dtype=bool)
            else:
                valid = np.asarray(usable.any(axis=1))
            clips.append((torch.from_numpy(values.astype(np.float32)), torch.from_numpy(valid)))
        return Ragged.of(clips)


def pool_to_tokens(
    values: NDArray[np.float64], usable: NDArray[np.bool_], tokens: int
) -> NDArray[np.float64]:
    """Average rows over as many equal shares of a clip as it has tokens.

    A row on the border between two shares belongs to both, so no share is empty.

    Parameters
    ----------
    values, usable
        Shape (T, D) each; unusable cells are 0 in ``values``.
    tokens
        Shares, at least 1.

    Returns
    -------
    Shape (tokens, D); 0 where a share has no usable cell.
    """
    shares = np.arange(tokens + 1) * len(values)
    first, last = shares[:-1] // tokens, -(-shares[1:] // tokens)
    sums, counts = _cumulative(values), _cumulative(usable)
    means: NDArray[np.float64] = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return means


def _cumulative(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Sum the rows before each row, shape (T + 1, D); `numpy.cumsum` adds the same numbers 20 times slower."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]))
    sums[1] = rows[0]
    for index in range(1, len(rows)):
        np.add(sums[index], rows[index], out=sums[index + 1])
    return sums
