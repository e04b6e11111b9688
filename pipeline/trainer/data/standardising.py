"""From clips to the batches that models take: cut, standardised by what the training part says, padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.pipeline.trainer.data.clips import Pooled, Rows, SentimentData, usable_cells
from triptych.pipeline.trainer.data.lengths import longest
from triptych.pipeline.trainer.models.inputs import Padded
from triptych.pipeline.trainer.settings import View


@dataclass(frozen=True)
class Ragged:
    """Rows of N clips, one clip's behind another's.

    Attributes
    ----------
    values
        float32, shape (sum of lengths + 1, D); the last row is zeros: it is what padding is taken from.
    valid
        bool, shape (sum of lengths + 1,): the row counts.
    lengths
        int64, shape (N,), each 1 at least.
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

    def take(self, rows: Tensor) -> Padded:
        """Pick clips, padded with zeros to the longest of them."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        steps = torch.arange(int(lengths.max()))
        outside = steps >= lengths[:, None]
        places = (starts[:, None] + steps).masked_fill(outside, len(self.values) - 1)
        values = self.values.index_select(0, places.flatten()).view(*places.shape, -1)
        return Padded(values, self.valid[places], lengths)


@dataclass(frozen=True)
class Batch:
    """Clips as the models take them.

    Attributes
    ----------
    text
        Columns (768).
    audio, vision
        Columns (33) and (709): each clip's mean, float32, shape (B, D), or its rows.
    labels
        float32, shape (B, 4), NaN where missing.
    """

    text: Ragged
    audio: Tensor | Ragged
    vision: Tensor | Ragged
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, rows: Tensor) -> tuple[Padded, Tensor | Padded, Tensor | Padded]:
        """What a model's ``forward`` takes of some clips."""
        audio, vision = (
            part.take(rows) if isinstance(part, Ragged) else part[rows] for part in (self.audio, self.vision)
        )
        return self.text.take(rows), audio, vision


@dataclass(frozen=True)
class Normaliser:
    """What is learnt of the training part's features before a model is.

    Audio and vision rows are standardised by column. Text is fed as the language model gives it, as in the
    paper: its embeddings are layer-normalised already. A clip without a modality gets that modality's mean
    for audio and vision, and a single row of zeros for text.

    Attributes
    ----------
    text_length
        Longest text: the training texts' mean plus three standard deviations of their tokens, rounded down
        (39 on CH-SIMS).
    audio_length, vision_length
        The same of audio and vision rows, for systems that read them. Means are over all usable rows.
    audio_mean, audio_deviation, vision_mean, vision_deviation
        float64, shape (33,) and (709,).
    """

    text_length: int
    audio_length: int
    vision_length: int
    audio_mean: NDArray[np.float64]
    audio_deviation: NDArray[np.float64]
    vision_mean: NDArray[np.float64]
    vision_deviation: NDArray[np.float64]

    @classmethod
    def fit(cls, data: SentimentData, rows: Rows) -> Self:
        """Learn it from some clips."""
        texts = (data.text[row] for row in rows)
        return cls(
            longest([len(text) for text in texts if text is not None]),
            longest([length for length in data.audio.lengths[rows] if length]),
            longest([length for length in data.vision.lengths[rows] if length]),
            *data.audio.statistics(rows),
            *data.vision.statistics(rows),
        )

    def apply(self, data: SentimentData, rows: Rows, view: View = "mean") -> Batch:
        """Turn clips into one batch, audio and vision as a system views them.

        A text cut short keeps its last token, [SEP]; audio and vision rows are cut at the end.

        Raises
        ------
        ValueError
            The view needs rows, and the data were loaded without them.
        """
        texts = [self.cut(data.text[row], data.widths.text) for row in rows]
        words = [len(text) for text in texts]
        return Batch(
            text=Ragged.of([(text, torch.ones(len(text), dtype=torch.bool)) for text in texts]),
            audio=self._view("audio", data, rows, view, words),
            vision=self._view("vision", data, rows, view, words),
            labels=torch.from_numpy(data.labels[rows]),
        )

    def cut(self, text: Tensor | None, width: int) -> Tensor:
        """Give a text's rows, as many as are taken; a row of zeros where there is none."""
        if text is None:
            return torch.zeros(1, width)
        if len(text) <= self.text_length:
            return text
        return torch.cat([text[: self.text_length - 1], text[-1:]])

    def _view(
        self, modality: str, data: SentimentData, rows: Rows, view: View, words: Sequence[int]
    ) -> Tensor | Ragged:
        pooled: Pooled = getattr(data, modality)
        mean, deviation = getattr(self, f"{modality}_mean"), getattr(self, f"{modality}_deviation")
        if view == "mean":
            return pooled.normalised(rows, mean, deviation)
        if modality not in data.sequences:
            raise ValueError(f"a system that reads {modality} rows needs data loaded with sequences=True")
        clips = []
        for row, count in zip(rows, words, strict=True):
            features = data.sequences[modality][row]
            values, usable = np.zeros((1, len(mean))), np.ones((1, len(mean)), dtype=bool)
            length = getattr(self, f"{modality}_length")
            if features is not None and features.valid[:length].any():
                usable = usable_cells(features)[:length]
                values = np.where(usable, (features.values[:length] - mean) / deviation, 0)
            if view == "words":
                values, valid = pool_to_words(values, usable, count), np.ones(count, dtype=bool)
            else:
                valid = usable.any(axis=1)
            clips.append((torch.from_numpy(values.astype(np.float32)), torch.from_numpy(valid)))
        return Ragged.of(clips)


def pool_to_words(values: NDArray[np.float64], usable: NDArray[np.bool_], words: int) -> NDArray[np.float64]:
    """Average rows over as many equal shares of a clip as it has words.

    A row that a share's border cuts belongs to both sides, so that no share is empty.

    Parameters
    ----------
    values, usable
        Shape (T, D) each; what is not usable is 0 in ``values``.
    words
        Shares, at least 1.

    Returns
    -------
    Shape (words, D); 0 where a share has nothing usable.
    """
    shares = np.arange(words + 1) * len(values)
    first, last = shares[:-1] // words, -(-shares[1:] // words)
    sums, counts = (
        np.concatenate([np.zeros((1, values.shape[1])), part.cumsum(axis=0)]) for part in (values, usable)
    )
    means: NDArray[np.float64] = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return means
