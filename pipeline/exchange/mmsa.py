"""A feature folder as the pickle that MMSA's data loader opens."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS, Clip
from triptych.pipeline.manifest.splits import HOW_TO_SPLIT
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.data.lengths import longest
from triptych.pipeline.trainer.settings import MODALITIES

UNKNOWN_TOKEN = -1  # an input id that an imported file did not tell
CLASSES = ("Negative", "Neutral", "Positive")  # by sign; the place is the class


@dataclass(frozen=True)
class Exported:
    """What was written: clips by split, the padded lengths, and what a user should know of it."""

    clips: dict[str, int]
    lengths: dict[str, int]
    notes: tuple[str, ...]


def export_mmsa(store: FeatureStore, file: Path) -> Exported:
    """Write the clips that have a split and a label M.

    The pickle is a dict of ``train``, ``valid`` and ``test``, each a dict of

    - ``text``, ``audio``, ``vision``: float32 arrays, shape (N, L, D), zeros behind a clip's end; L is the
      train split's mean length plus three standard deviations. A longer text keeps its last token, [SEP];
      longer audio and vision end early. Rows that show no face are zeros;
    - ``audio_lengths``, ``vision_lengths``: lists of whole numbers, 1 at least;
    - ``text_bert``: int64 array, shape (N, 3, L): input ids, mask, segments;
    - ``regression_labels`` (M), ``regression_labels_T``, ``_A``, ``_V``: float32 arrays, shape (N,), NaN where
      missing; ``classification_labels`` (0, 1, 2) and ``annotations`` (their names) by the sign of M;
    - ``id`` and ``raw_text``: lists of text.

    Only arrays, lists and text are in it, under names that every numpy since 1.7 knows.

    Raises
    ------
    InputError
        A split has no clip to write, or a modality no features.
    """
    clips = {name: _labelled(store, name) for name in SPLITS}
    mistakes = [
        f"{store.folder}: no clip in split {name} has features and a label, and MMSA opens all three splits; "
        f"F being this folder, {HOW_TO_SPLIT}"
        for name, found in clips.items()
        if not found
    ]
    held = {modality: frozenset(store.ids(modality)) for modality in MODALITIES}
    mistakes += [f"{store.folder}: no {modality} features" for modality in MODALITIES if not held[modality]]
    if mistakes:
        raise InputError(mistakes)
    lengths, widths = {}, {}
    for modality in MODALITIES:
        trained = [clip.id for clip in clips["train"] if clip.id in held[modality]]
        lengths[modality] = longest([len(store.read(modality, clip_id)) for clip_id in trained])
        widths[modality] = len(store.read(modality, min(held[modality])).columns)
    data = {}
    for name, found in clips.items():
        data[name] = _labels(found)
        for modality in MODALITIES:
            rows = [store.read(modality, clip.id) if clip.id in held[modality] else None for clip in found]
            data[name] |= _padded(modality, rows, lengths[modality], widths[modality])
    notes = _notes(store, clips, held)
    if any((part["text_bert"][:, 0] == UNKNOWN_TOKEN).any() for part in data.values()):
        notes.append("no text_bert: these features were imported without their tokens")
        for part in data.values():
            del part["text_bert"]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("wb") as opened:
        _Pickler(opened, protocol=4).dump(data)
    return Exported({name: len(found) for name, found in clips.items()}, lengths, tuple(notes))


def _labelled(store: FeatureStore, split: str) -> list[Clip]:
    held = set().union(*(store.ids(modality) for modality in MODALITIES))
    clips = [clip for clip in store.manifest.clips if clip.split == split and clip.id in held]
    return sorted((clip for clip in clips if clip.label == clip.label), key=lambda clip: clip.id)


def _labels(clips: Sequence[Clip]) -> dict[str, Any]:
    classes = [int(np.sign(clip.label)) + 1 for clip in clips]
    return {
        "id": [clip.id for clip in clips],
        "raw_text": [clip.text or "" for clip in clips],
        "regression_labels": np.array([clip.label for clip in clips], np.float32),
        "regression_labels_T": np.array([clip.label_T for clip in clips], np.float32),
        "regression_labels_A": np.array([clip.label_A for clip in clips], np.float32),
        "regression_labels_V": np.array([clip.label_V for clip in clips], np.float32),
        "classification_labels": np.array(classes, np.int64),
        "annotations": [CLASSES[place] for place in classes],
    }


def _padded(modality: str, clips: Sequence[Features | None], length: int, width: int) -> dict[str, Any]:
    """One modality of a split: its array, and what tells how much of it is padding."""
    values = np.zeros((len(clips), length, width), np.float32)
    tokens = np.zeros((len(clips), 3, length), np.int64)
    counts = []
    for place, features in enumerate(clips):
        rows = _kept(modality, features, length)
        counts.append(max(1, len(rows)))
        if features is None:
            continue
        values[place, : len(rows)] = np.where(features.valid[rows, None], features.values[rows], 0)
        if modality == "text":
            tokens[place, 0, : len(rows)] = features.extras["input_ids"][rows]
            tokens[place, 1, : len(rows)] = 1
    if modality == "text":
        return {"text": values, "text_bert": tokens}
    return {modality: values, f"{modality}_lengths": counts}


def _kept(modality: str, features: Features | None, length: int) -> NDArray[np.intp]:
    rows = np.arange(0 if features is None else len(features))
    if modality == "text" and len(rows) > length:
        return np.append(rows[: length - 1], rows[-1])
    return rows[:length]


def _notes(store: FeatureStore, clips: dict[str, list[Clip]], held: dict[str, frozenset[str]]) -> list[str]:
    written = [clip for found in clips.values() for clip in found]
    left_out = len(store.manifest.clips) - len(written)
    notes = [f"{left_out} clips left out: no split, no label, or no features"] if left_out else []
    notes.append(
        "which audio rows are voiced has no place in it: whoever reads it takes their log F0 of 0 for a value"
    )
    for modality in MODALITIES:
        if lacking := sum(clip.id not in held[modality] for clip in written):
            notes.append(f"{lacking} clips without {modality}: one row of zeros")
    for name in ("label_T", "label_A", "label_V"):
        if missing := sum(getattr(clip, name) != getattr(clip, name) for clip in written):
            notes.append(f"{missing} clips without {name}: NaN, which MMSA's multi-task systems do not mask")
    return notes


class _Pickler(pickle._Pickler):
    """Python's pickler without its memo, which would keep a copy of every array until the end.

    numpy 2 calls its module numpy._core, which numpy 1 does not know; numpy.core is known to both.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fast = True

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if not obj.__module__.startswith("numpy._core"):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        self.save(obj.__module__.replace("numpy._core", "numpy.core"))  # type: ignore[attr-defined]
        self.save(name or obj.__name__)  # type: ignore[attr-defined]
        self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
