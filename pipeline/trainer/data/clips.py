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
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.metrics import to_unit
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, TASKS, Task

Rows = NDArray[np.intp]  # positions of clips in a SentimentData


class LabelledClip(Protocol):
    """The attributes of a manifest's clip that training reads; a missing label is NaN."""

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
    """The attribute of a manifest that training reads."""

    @property
    def clips(self) -> Sequence[LabelledClip]: ...
    @property
    def label_range(self) -> LabelRange: ...


class Store(Protocol):
    """The part of a feature folder that training reads; `storage.store.FeatureStore` is one."""

    @property
    def manifest(self) -> ClipList: ...
    @property
    def recipe(self) -> Mapping[str, Any]: ...
    def ids(self, stage: str) -> Collection[str]: ...
    def read(self, stage: str, clip_id: str) -> Features: ...


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
    def of(cls, clips: Sequence[Features | None], width: int) -> Pooled:
        """Reduce clips; None has no rows."""
        shape = (len(clips), width)
        lengths = np.array([0 if features is None else len(features) for features in clips], dtype=np.int64)
        pooled = cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), lengths)
        for row, features in enumerate(clips):
            if features is None:
                continue
            usable = usable_cells(features)
            values = features.values.astype(np.float64)
            count = usable.sum(axis=0)
            mean = np.where(usable, values, 0).sum(axis=0) / np.maximum(count, 1)
            pooled.count[row], pooled.mean[row] = count, mean
            pooled.sum_of_squares[row] = np.where(usable, (values - mean) ** 2, 0).sum(axis=0)
        return pooled

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


@dataclass(frozen=True)
class SentimentData:
    """N clips, not yet standardised.

    Attributes
    ----------
    ids, splits
        N each; a split is ``""`` where the manifest has none.
    text
        float32, shape (T_i, D) each, as the language model gave them; None without a transcript.
    audio, vision
        N clips each.
    labels
        float32, shape (N, 4), columns M, T, A, V. NaN where the manifest has none, and for T, A or V also
        where the clip has no features of that modality.
    absent
        Number of clips without a modality, by modality.
    left_out
        Clips of the manifest without any features.
    sequences
        Every clip's audio and vision rows, by modality, N each, None without any; empty unless asked for.
    text_width
        Columns of the texts.
    label_range
        The range of the manifest's labels; `labels` are scaled to [-1, 1].
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
    label_range: LabelRange = DEFAULT

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> InputWidths:
        """Columns of each modality."""
        return InputWidths(self.text_width, self.audio.mean.shape[1], self.vision.mean.shape[1])

    def split(self, name: str) -> Rows:
        """Positions of the clips of one split."""
        return np.flatnonzero(np.array(self.splits) == name)


def load(
    store: Store,
    sequences: bool = False,
    widths: InputWidths | None = None,
    only: Collection[str] | None = None,
    streams: Streams = Streams(),  # noqa: B008 - immutable
) -> SentimentData:
    """Read every clip of a feature folder's manifest that has features, with or without labels and split.

    Clips are sorted by id, so that the manifest's order changes nothing in training.

    Parameters
    ----------
    sequences
        Load audio and vision rows too, besides their means: a system whose view is not ``mean`` needs them.
    widths
        Expected number of columns of each modality; if given, a modality that no clip has is accepted.
    only
        Ids of the clips to read; by default all.
    streams
        The stage that each modality is read from.

    Raises
    ------
    InputError
        A stage is unknown, has no features at all, or its clips differ in their columns.
    """
    stages = streams.stages
    try:
        available = {modality: frozenset(store.ids(stage)) for modality, stage in stages.items()}
    except ValueError as error:
        raise InputError(f"{error}; name the stages to read with --text, --audio and --vision") from error
    if not widths and (empty := [modality for modality in MODALITIES if not available[modality]]):
        raise InputError(
            [
                f"no {stages[modality]} features in this folder; make them with `triptych extract`"
                for modality in empty
            ]
        )
    columns: dict[str, tuple[str, ...]] = {}
    usable: list[tuple[LabelledClip, dict[str, Features | None]]] = []
    left_out = []
    for clip in sorted(store.manifest.clips, key=lambda clip: clip.id):
        if only is not None and clip.id not in only:
            continue
        features = {
            modality: _read(store, modality, stages[modality], clip.id, columns)
            if clip.id in available[modality]
            else None
            for modality in MODALITIES
        }
        if any(value is not None for value in features.values()):
            usable.append((clip, features))
        else:
            left_out.append(clip.id)
    if not widths and (empty := [modality for modality in MODALITIES if modality not in columns]):
        raise InputError(
            [
                f"no clip of the manifest has usable {stages[modality]} features; `triptych status` lists why"
                for modality in empty
            ]
        )
    measured = {modality: len(names) for modality, names in columns.items()}
    all_widths = InputWidths(**{**(widths._asdict() if widths else {}), **measured})
    return _assemble(usable, all_widths, tuple(left_out), sequences, store.manifest.label_range)


def _read(
    store: Store, modality: str, stage: str, clip_id: str, columns: dict[str, tuple[str, ...]]
) -> Features | None:
    features = store.read(stage, clip_id)
    if not features.valid.any():
        return None
    expected = columns.setdefault(modality, features.columns)
    if features.columns != expected:
        raise InputError(
            f"{clip_id}: its {stage} columns differ from other clips' (backends or models mixed?); "
            "extract all clips with one recipe"
        )
    return features


def _assemble(
    clips: Sequence[tuple[LabelledClip, dict[str, Features | None]]],
    widths: InputWidths,
    left_out: tuple[str, ...],
    sequences: bool,
    label_range: LabelRange,
) -> SentimentData:
    stated = np.array([(clip.label, clip.label_T, clip.label_A, clip.label_V) for clip, _ in clips])
    labels = to_unit(stated, label_range).astype(np.float32).reshape(-1, len(TASKS))
    features = {modality: [by_modality[modality] for _, by_modality in clips] for modality in MODALITIES}
    for modality, task in TASK_OF_MODALITY.items():
        missing = np.array([value is None for value in features[modality]], dtype=bool)
        labels[missing, TASKS.index(task)] = np.nan
    return SentimentData(
        ids=tuple(clip.id for clip, _ in clips),
        splits=tuple(clip.split or "" for clip, _ in clips),
        text=tuple(_text_rows(value) for value in features["text"]),
        audio=Pooled.of(features["audio"], widths.audio),
        vision=Pooled.of(features["vision"], widths.vision),
        labels=labels,
        absent={modality: sum(value is None for value in features[modality]) for modality in MODALITIES},
        left_out=left_out,
        sequences={modality: tuple(features[modality]) for modality in ("audio", "vision")}
        if sequences
        else {},
        text_width=widths.text,
        label_range=label_range,
    )


def _text_rows(features: Features | None) -> Tensor | None:
    return None if features is None else torch.from_numpy(features.values[features.valid])


def usable_cells(features: Features) -> NDArray[np.bool_]:
    """Return which cells count, shape (T, D): those of valid rows, except the log F0 of unvoiced ones."""
    usable = np.repeat(features.valid[:, None], len(features.columns), axis=1)
    if "log_f0" in features.columns and "voiced" in features.extras:
        usable[:, features.columns.index("log_f0")] &= features.extras["voiced"]
    return usable


def with_target(data: SentimentData, target: Task) -> SentimentData:
    """Replace label M by another task's label."""
    labels = data.labels.copy()
    labels[:, 0] = labels[:, TASKS.index(target)]
    return replace(data, labels=labels)
