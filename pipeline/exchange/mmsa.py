"""A feature folder as the pickle that MMSA's data loader opens."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.token_aligned import TokenAligned
from triptych.pipeline.manifest.clips import SPLITS, Clip
from triptych.pipeline.manifest.splits import HOW_TO_SPLIT
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.lengths import longest

UNKNOWN_TOKEN = -1  # input id of a token where the imported file has no `text_bert`
CLASSES = ("Negative", "Neutral", "Positive")  # by the sign of the label, in the order of the class numbers


@dataclass(frozen=True)
class Exported:
    """What was written: clips by split, padded lengths by modality, and notes for the user."""

    clips: dict[str, int]
    lengths: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Stream:
    """One modality of the pickle: the stage it is filled from, and the shape of its arrays."""

    modality: str
    stage: str
    ids: frozenset[str]
    length: int
    width: int
    extras: frozenset[str]
    keep_last: bool
    aligned: bool = False


def export_mmsa(store: FeatureStore, file: Path, streams: Streams | None = None) -> Exported:
    """Write the clips that have a split and a label M.

    The pickle is a dict of ``train``, ``valid`` and ``test``, each a dict of

    - ``text``, ``audio``, ``vision``: float32 arrays, shape (N, L, D), zeros after a clip's end; L is the
      train split's mean length plus three standard deviations. Rows beyond L are cut off, but a text of
      tokens keeps its last one, [SEP]. Rows that are not valid, such as frames without a face, are zeros;
    - ``audio_lengths``, ``vision_lengths``: lists of whole numbers, 1 at least;
    - ``text_bert``: int64 array, shape (N, 3, L): input ids, mask, segments. Only where the text stream has
      input ids;
    - ``regression_labels`` (M), ``regression_labels_T``, ``_A``, ``_V``: float32 arrays, shape (N,), NaN where
      missing; ``classification_labels`` (0, 1, 2) and ``annotations`` (their names) by the sign of M;
    - ``id`` and ``raw_text``: lists of text.

    With ``streams.align``, the three have the text's L, and audio and vision row k are those of the word of token k:
    zeros for tokens of no word. There are no ``audio_lengths`` and ``vision_lengths`` then, as in MMSA's aligned files.

    It holds only arrays, lists and text, under names that every numpy since 1.7 knows.

    Parameters
    ----------
    store
        The feature folder.
    file
        The pickle; its folder is created if it is missing.
    streams
        The stage that fills each modality, by default the stage of the same name, and the alignment.

    Raises
    ------
    InputError
        A stage is unknown or has no features, a split has no clip to write, or clips to align have no words.
    """
    streams = streams or Streams()
    if problems := streams.problems(store.folder, store.recipe["fingerprints"]):
        raise InputError(problems)
    ids = {modality: frozenset(store.ids(stage)) for modality, stage in streams.stages.items()}
    clips = {name: _labelled(store, name, frozenset().union(*ids.values())) for name in SPLITS}
    problems = [
        f"{store.folder}: no clip of split {name} has features and a label, and MMSA needs all three splits. "
        f"With F for this folder, {HOW_TO_SPLIT}"
        for name, found in clips.items()
        if not found
    ]
    problems += [
        f"{store.folder}: no {stage} features; extract them first"
        for modality, stage in streams.stages.items()
        if not ids[modality]
    ]
    if problems:
        raise InputError(problems)
    source = store if streams.align == "none" else TokenAligned.of(store, streams)
    measured = [_measure(source, *pair, ids[pair[0]], clips["train"]) for pair in streams.stages.items()]
    if isinstance(source, TokenAligned):
        text = measured[0]
        measured = [
            replace(one, length=text.length, keep_last=text.keep_last, aligned=True) for one in measured
        ]
    data = {name: _split(source, found, measured) for name, found in clips.items()}
    notes = _notes(store, clips, measured) + _drop_unknown_tokens(data, streams.text)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("wb") as opened:
        _Pickler(opened, protocol=4).dump(data)
    return Exported(
        {name: len(found) for name, found in clips.items()},
        {stream.modality: stream.length for stream in measured},
        tuple(notes),
    )


def _labelled(store: FeatureStore, split: str, ids: frozenset[str]) -> list[Clip]:
    """The clips of a split that have features and a label M, sorted by id."""
    clips = [clip for clip in store.manifest.clips if clip.split == split and clip.id in ids]
    return sorted((clip for clip in clips if clip.label == clip.label), key=lambda clip: clip.id)


def _measure(
    store: FeatureStore | TokenAligned, modality: str, stage: str, ids: frozenset[str], train: Sequence[Clip]
) -> _Stream:
    length = longest([len(store.read(stage, clip.id)) for clip in train if clip.id in ids])
    first = store.read(stage, min(ids))
    keep_last = modality == "text" and "input_ids" in first.extras
    return _Stream(modality, stage, ids, length, len(first.columns), frozenset(first.extras), keep_last)


def _split(
    store: FeatureStore | TokenAligned, clips: Sequence[Clip], streams: Sequence[_Stream]
) -> dict[str, Any]:
    part = _labels(clips)
    for stream in streams:
        features = [store.read(stream.stage, clip.id) if clip.id in stream.ids else None for clip in clips]
        part |= _padded(stream, features)
    return part


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
        "annotations": [CLASSES[number] for number in classes],
    }


def _padded(stream: _Stream, clips: Sequence[Features | None]) -> dict[str, Any]:
    """One modality of a split: its array, and the lengths or masks that mark the padding."""
    values = np.zeros((len(clips), stream.length, stream.width), np.float32)
    tokens = np.zeros((len(clips), 3, stream.length), np.int64)
    has_tokens = stream.modality == "text" and "input_ids" in stream.extras
    lengths = []
    for index, features in enumerate(clips):
        rows = _rows(0 if features is None else len(features), stream.length, keep_last=stream.keep_last)
        lengths.append(max(1, len(rows)))
        if features is None:
            continue
        values[index, : len(rows)] = np.where(features.valid[rows, None], features.values[rows], 0)
        if has_tokens:
            tokens[index, 0, : len(rows)] = features.extras["input_ids"][rows]
            tokens[index, 1, : len(rows)] = 1
    if stream.modality != "text" and stream.aligned:
        return {stream.modality: values}
    if stream.modality != "text":
        return {stream.modality: values, f"{stream.modality}_lengths": lengths}
    return {"text": values, "text_bert": tokens} if has_tokens else {"text": values}


def _rows(count: int, length: int, *, keep_last: bool) -> NDArray[np.intp]:
    """The rows that fit into `length`; with `keep_last` the final row replaces the last that fits."""
    rows = np.arange(count)
    if keep_last and count > length:
        return np.append(rows[: length - 1], rows[-1])
    return rows[:length]


def _drop_unknown_tokens(data: Mapping[str, dict[str, Any]], stage: str) -> list[str]:
    """Remove `text_bert` where an imported file had none; the note on a pickle without `text_bert`."""
    if any((part["text_bert"][:, 0] == UNKNOWN_TOKEN).any() for part in data.values() if "text_bert" in part):
        for part in data.values():
            del part["text_bert"]
        return ["no text_bert: these features were imported without their tokens"]
    if any("text_bert" not in part for part in data.values()):
        return [f"no text_bert: the stage {stage} has no input ids"]
    return []


def _notes(store: FeatureStore, clips: Mapping[str, list[Clip]], streams: Sequence[_Stream]) -> list[str]:
    written = [clip for found in clips.values() for clip in found]
    left_out = len(store.manifest.clips) - len(written)
    notes = [f"{left_out} clips left out: no split, no label, or no features"] if left_out else []
    if any("voiced" in stream.extras for stream in streams):
        notes.append(
            "the format cannot mark unvoiced audio rows: a reader takes their log F0 of 0 for a measured value"
        )
    for stream in streams:
        if missing := sum(clip.id not in stream.ids for clip in written):
            notes.append(f"{missing} clips without {stream.stage} features: one row of zeros each")
    for name in ("label_T", "label_A", "label_V"):
        if missing := sum(getattr(clip, name) != getattr(clip, name) for clip in written):
            notes.append(f"{missing} clips without {name}: NaN, which MMSA's multi-task systems do not mask")
    return notes


class _Pickler(pickle._Pickler):
    """Python's pickler without its memo, which would hold a copy of every array until the end.

    numpy 2 calls its module numpy._core, which numpy 1 does not know; both know numpy.core.
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
