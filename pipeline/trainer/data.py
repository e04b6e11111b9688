"""From a feature folder to tensors: rows read once, normalised by what the training part says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.base import Features
from pipeline.errors import InputError
from pipeline.trainer.lengths import longest
from pipeline.trainer.models.inputs import InputWidths, Padded
from pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, TASKS, View

Rows = NDArray[np.intp]  # places of clips in a SentimentData


class LabelledClip(Protocol):
    """What is read of a manifest's clip; a missing label is NaN."""

    @property
    def id(self) -> str: ...
    @property
    def split(self) -> str | None: ...
    @property
    def label(self) -> float: ...
    @property
    def label_T(self) -> float: ...  # noqa: N802
    @property
    def label_A(self) -> float: ...  # noqa: N802
    @property
    def label_V(self) -> float: ...  # noqa: N802


class ClipList(Protocol):
    """What is read of a manifest."""

    @property
    def clips(self) -> Sequence[LabelledClip]: ...


class Store(Protocol):
    """What is read of a feature folder; `pipeline.store.FeatureStore` is one."""

    @property
    def manifest(self) -> ClipList: ...
    @property
    def recipe(self) -> Mapping[str, Any]: ...
    def ids(self, stage: str) -> Collection[str]: ...
    def read(self, stage: str, clip_id: str) -> Features: ...


@dataclass(frozen=True)
class Pooled:
    """One modality of N clips, reduced to each column's count, mean and spread over the usable rows.

    These suffice for the mean of normalised rows and for the statistics of any set of clips, so that
    rows are read once however many folds are made.

    Attributes
    ----------
    count, mean, squares
        float64, shape (N, D): usable rows, their mean (0 without rows), sum of squared deviations from it.
    lengths
        int64, shape (N,): rows of each clip, usable or not; 0 where there are none.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, clips: Sequence[Features | None], width: int) -> Pooled:
        """Reduce clips, of which None has no rows."""
        shape = (len(clips), width)
        lengths = np.array([0 if features is None else len(features) for features in clips], dtype=np.int64)
        pooled = cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), lengths)
        for place, features in enumerate(clips):
            if features is None:
                continue
            usable = _usable(features)
            values = features.values.astype(np.float64)
            count = usable.sum(axis=0)
            mean = np.where(usable, values, 0).sum(axis=0) / np.maximum(count, 1)
            pooled.count[place], pooled.mean[place] = count, mean
            pooled.squares[place] = np.where(usable, (values - mean) ** 2, 0).sum(axis=0)
        return pooled

    def statistics(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each column over all usable rows of some clips, shape (D,) each.

        A column that is constant there, but for the rounding of float32, has a deviation of 1.
        """
        count, means = self.count[rows], self.mean[rows]
        total = np.maximum(count.sum(axis=0), 1)
        mean = (count * means).sum(axis=0) / total
        squares = self.squares[rows].sum(axis=0) + (count * (means - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(squares / total)
        return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0)

    def normalised(self, rows: Rows, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Tensor:
        """Mean of the normalised rows, float32, shape (len(rows), D); 0 where there is nothing to average."""
        values = np.where(self.count[rows] > 0, (self.mean[rows] - mean) / deviation, 0.0)
        return torch.from_numpy(values.astype(np.float32))


@dataclass(frozen=True)
class SentimentData:
    """N clips, not yet normalised.

    Attributes
    ----------
    ids, splits
        N each; a split is ``""`` where the manifest gives none.
    text
        float32, shape (T_i, 768) each, as the language model gave them; None without a transcript.
    audio, vision
        N clips each.
    labels
        float32, shape (N, 4), columns M, T, A, V. NaN where the manifest has none, and for T, A or V also
        where the clip lacks that modality: there is nothing to judge it by.
    absent
        Clips kept without a modality, by modality.
    left_out
        Clips of the manifest without any features.
    sequences
        Every clip's audio and vision rows, by modality, N each, None without any; empty unless asked for.
    text_width
        Columns of the texts.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    text: tuple[Tensor | None, ...]
    audio: Pooled
    vision: Pooled
    labels: NDArray[np.float32]
    absent: dict[str, int]
    left_out: tuple[str, ...]
    sequences: Mapping[str, Sequence[Features | None]] = field(default_factory=dict)
    text_width: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> InputWidths:
        """Columns of each modality."""
        return InputWidths(self.text_width, self.audio.mean.shape[1], self.vision.mean.shape[1])

    def split(self, name: str) -> Rows:
        """Places of the clips of one split."""
        return np.flatnonzero(np.array(self.splits) == name)


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
                usable = _usable(features)[:length]
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


def load(
    store: Store,
    sequences: bool = False,
    widths: InputWidths | None = None,
    only: Collection[str] | None = None,
) -> SentimentData:
    """Read every clip of a feature folder's manifest that has features, whatever its labels and split.

    Clips are sorted by id, so that the manifest's order changes nothing in training.

    Parameters
    ----------
    sequences
        Keep audio and vision rows too, beside their means: a system whose view is not ``mean`` needs them.
    widths
        Columns of a modality that no clip has: with them, its absence is no mistake.
    only
        Ids of the clips to read, where not all are wanted.

    Raises
    ------
    InputError
        A modality has no features at all, or its clips differ in their columns.
    """
    held = {modality: frozenset(store.ids(modality)) for modality in MODALITIES}
    if not widths and (empty := [modality for modality in MODALITIES if not held[modality]]):
        raise InputError(
            [
                f"no {modality} features in this folder; make them with `triptych extract`"
                for modality in empty
            ]
        )
    columns: dict[str, tuple[str, ...]] = {}
    kept: list[tuple[LabelledClip, dict[str, Features | None]]] = []
    left_out = []
    for clip in sorted(store.manifest.clips, key=lambda clip: clip.id):
        if only is not None and clip.id not in only:
            continue
        features = {m: _read(store, m, clip.id, columns) if clip.id in held[m] else None for m in MODALITIES}
        if any(value is not None for value in features.values()):
            kept.append((clip, features))
        else:
            left_out.append(clip.id)
    if not widths and (empty := [modality for modality in MODALITIES if modality not in columns]):
        raise InputError(
            [
                f"no clip of the manifest has usable {modality} features; `triptych status` lists why"
                for modality in empty
            ]
        )
    found = {modality: len(names) for modality, names in columns.items()}
    return _assemble(
        kept, InputWidths(**{**(widths._asdict() if widths else {}), **found}), tuple(left_out), sequences
    )


def _read(store: Store, modality: str, clip_id: str, columns: dict[str, tuple[str, ...]]) -> Features | None:
    features = store.read(modality, clip_id)
    if not features.valid.any():
        return None
    expected = columns.setdefault(modality, features.columns)
    if features.columns != expected:
        raise InputError(
            f"{clip_id}: its {modality} columns differ from other clips' (backends or models mixed?); "
            "extract all clips with one recipe"
        )
    return features


def _assemble(
    kept: Sequence[tuple[LabelledClip, dict[str, Features | None]]],
    widths: InputWidths,
    left_out: tuple[str, ...],
    sequences: bool,
) -> SentimentData:
    labels = np.array(
        [(clip.label, clip.label_T, clip.label_A, clip.label_V) for clip, _ in kept], dtype=np.float32
    ).reshape(-1, len(TASKS))
    of = {modality: [features[modality] for _, features in kept] for modality in MODALITIES}
    for modality, task in TASK_OF_MODALITY.items():
        lacking = np.array([features is None for features in of[modality]], dtype=bool)
        labels[lacking, TASKS.index(task)] = np.nan
    return SentimentData(
        ids=tuple(clip.id for clip, _ in kept),
        splits=tuple(clip.split or "" for clip, _ in kept),
        text=tuple(_tokens(features) for features in of["text"]),
        audio=Pooled.of(of["audio"], widths.audio),
        vision=Pooled.of(of["vision"], widths.vision),
        labels=labels,
        absent={modality: sum(features is None for features in of[modality]) for modality in MODALITIES},
        left_out=left_out,
        sequences={modality: tuple(of[modality]) for modality in ("audio", "vision")} if sequences else {},
        text_width=widths.text,
    )


def _tokens(features: Features | None) -> Tensor | None:
    return None if features is None else torch.from_numpy(features.values[features.valid])


def _usable(features: Features) -> NDArray[np.bool_]:
    """Which cells count, shape (T, D): those of valid rows, but for the log F0 of unvoiced ones."""
    usable = np.repeat(features.valid[:, None], len(features.columns), axis=1)
    if "log_f0" in features.columns:
        usable[:, features.columns.index("log_f0")] &= features.extras["voiced"]
    return usable
