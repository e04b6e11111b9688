"""The clips of a feature folder: texts, pooled audio and vision, labels, splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.aligned import aligned
from triptych.pipeline.trainer.data.gathering import Gathered
from triptych.pipeline.trainer.data.pooled import Pooled, Rows
from triptych.pipeline.trainer.data.source import LabelledClip, Store, StoredRows, StoredTexts
from triptych.pipeline.trainer.metrics import to_unit
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, TASKS, Task

IN_MEMORY = 1 << 30  # bytes of rows; CH-SIMS has less. Larger data sets are read by batch, however often


@dataclass(frozen=True)
class SentimentData:
    """N clips, not yet standardised.

    Attributes
    ----------
    ids, splits
        N each; a split is ``""`` where the manifest has none.
    text
        float32, shape (T_i, D) each, as the language model gave them; None without a transcript. Each access reads
        the text from the feature folder if the texts of all clips are too large for memory.
    text_lengths
        int64, shape (N,): rows of each text; 0 without a transcript.
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
        Every clip's audio and vision rows, by modality, N each, None without any; empty unless asked for. Also read
        by access if they are too large for memory.
    text_width
        Columns of the texts.
    label_range
        The range of the manifest's labels; `labels` are scaled to [-1, 1].
    cache
        The folder for standardised rows of data that are not in memory; None without one.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    text: Sequence[Tensor | None]
    text_lengths: NDArray[np.int64]
    audio: Pooled
    vision: Pooled
    labels: NDArray[np.float32]
    absent: dict[str, int]
    left_out: tuple[str, ...]
    sequences: Mapping[str, Sequence[Features | None]] = field(default_factory=dict)
    text_width: int = 0
    label_range: LabelRange = DEFAULT
    cache: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> InputWidths:
        """Columns of each modality."""
        return InputWidths(self.text_width, self.audio.mean.shape[1], self.vision.mean.shape[1])

    def in_memory(self, rows: bool) -> bool:
        """Return whether texts, and audio and vision rows if asked for, are in memory."""
        used = [self.text, *(self.sequences.values() if rows else ())]
        return not any(isinstance(one, StoredTexts | StoredRows) for one in used)

    def split(self, name: str) -> Rows:
        """Positions of the clips of one split."""
        return np.flatnonzero(np.array(self.splits) == name)


def load(
    store: Store,
    sequences: bool = False,
    widths: InputWidths | None = None,
    only: Collection[str] | None = None,
    streams: Streams = Streams(),  # noqa: B008 - immutable
    memory: int = IN_MEMORY,
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
        The stage that each modality is read from, and whether rows are pooled to words.
    memory
        Bytes of rows to hold in memory. Rows beyond are read from the feature folder again whenever they are needed.
        No number depends on it.

    Raises
    ------
    InputError
        A stage is unknown, has no features at all, or its clips differ in their columns. Or rows are to be pooled to
        words, and clips have none.
    """
    store = aligned(store, streams, only)
    available = _available(store, streams.stages, widths)
    columns: dict[str, tuple[str, ...]] = {}
    usable: list[LabelledClip] = []
    left_out = []
    clips = [clip for clip in store.manifest.clips if only is None or clip.id in only]
    gathered = Gathered(len(clips), sequences, memory)
    for clip in sorted(clips, key=lambda clip: clip.id):
        features = {
            modality: _read(store, modality, stage, clip.id, columns)
            if clip.id in available[modality]
            else None
            for modality, stage in streams.stages.items()
        }
        if any(value is not None for value in features.values()):
            usable.append(clip)
            gathered.add(features)
        else:
            left_out.append(clip.id)
    measured = _widths(columns, widths, streams.stages)
    return _assemble(store, streams.stages, usable, gathered, measured, tuple(left_out))


def _available(
    store: Store, stages: Mapping[str, str], widths: InputWidths | None
) -> dict[str, frozenset[str]]:
    """Return the ids of the clips that have features, by modality."""
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
    return available


def _widths(
    columns: Mapping[str, tuple[str, ...]], widths: InputWidths | None, stages: Mapping[str, str]
) -> InputWidths:
    if not widths and (empty := [modality for modality in MODALITIES if modality not in columns]):
        raise InputError(
            [
                f"no clip of the manifest has usable {stages[modality]} features; `triptych status` lists why"
                for modality in empty
            ]
        )
    measured = {modality: len(names) for modality, names in columns.items()}
    return InputWidths(**{**(widths._asdict() if widths else {}), **measured})


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
    store: Store,
    stages: Mapping[str, str],
    clips: Sequence[LabelledClip],
    gathered: Gathered,
    widths: InputWidths,
    left_out: tuple[str, ...],
) -> SentimentData:
    ids, label_range = tuple(clip.id for clip in clips), store.manifest.label_range
    stated = np.array([(clip.label, clip.label_T, clip.label_A, clip.label_V) for clip in clips])
    labels = to_unit(stated, label_range).astype(np.float32).reshape(-1, len(TASKS))
    absent = {modality: gathered.absent(modality) for modality in MODALITIES}
    for modality, task in TASK_OF_MODALITY.items():
        labels[absent[modality], TASKS.index(task)] = np.nan
    return SentimentData(
        ids=ids,
        splits=tuple(clip.split or "" for clip in clips),
        text=gathered.texts(store, stages["text"], ids),
        text_lengths=gathered.text_lengths,
        audio=gathered.pooled("audio", widths.audio),
        vision=gathered.pooled("vision", widths.vision),
        labels=labels,
        absent={modality: int(missing.sum()) for modality, missing in absent.items()},
        left_out=left_out,
        sequences=gathered.sequences(store, stages, ids),
        text_width=widths.text,
        label_range=label_range,
    )


def with_target(data: SentimentData, target: Task) -> SentimentData:
    """Replace label M by another task's label."""
    labels = data.labels.copy()
    labels[:, 0] = labels[:, TASKS.index(target)]
    return replace(data, labels=labels)
