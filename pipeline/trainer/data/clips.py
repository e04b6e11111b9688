"""The clips of a feature folder, read once: texts, pooled audio and vision, labels, splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, TASKS, Task

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
    """What is read of a feature folder; `triptych.pipeline.storage.store.FeatureStore` is one."""

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
            usable = usable_cells(features)
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


def usable_cells(features: Features) -> NDArray[np.bool_]:
    """Which cells count, shape (T, D): those of valid rows, but for the log F0 of unvoiced ones."""
    usable = np.repeat(features.valid[:, None], len(features.columns), axis=1)
    if "log_f0" in features.columns:
        usable[:, features.columns.index("log_f0")] &= features.extras["voiced"]
    return usable


def with_target(data: SentimentData, target: Task) -> SentimentData:
    """Put another label in M's place."""
    labels = data.labels.copy()
    labels[:, 0] = labels[:, TASKS.index(target)]
    return replace(data, labels=labels)
