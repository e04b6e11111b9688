"""A feature folder as computational sequences, the HDF5 files (.csd) of CMU-MultimodalSDK."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline import __version__
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams

Entry = tuple[str, NDArray[np.float64], NDArray[np.float32]]  # clip id, intervals (T, 2), features (T, D)


@dataclass(frozen=True)
class _Sequence:
    """One computational sequence: its columns, what its intervals are, and an entry a clip."""

    columns: tuple[str, ...]
    description: str
    entries: Iterator[Entry]


def export_csd(store: FeatureStore, folder: Path, streams: Streams | None = None) -> dict[str, int]:
    """Write a ``.csd`` file for each stage, and ``labels.csd``; the number of clips in each, by its name.

    A file holds one group, named after the stage, with two more in it: ``data``, for each clip a group of
    ``features``, shape (T, D), and ``intervals``, shape (T, 2), in seconds; and ``metadata``, a JSON text
    a key. A row lasts until the next row's time, but no longer than one frame. Rows without times, such as
    tokens, share the clip's length equally, and the description says so. Labels are one row a clip: M, T, A
    and V, NaN where missing.

    Parameters
    ----------
    store
        The feature folder.
    folder
        Where the files are written; created if it is missing.
    streams
        The stages to write; by default text, audio and vision.

    Raises
    ------
    InputError
        A stage is unknown; the features were imported, so they have no times; or the SDK cannot hold an id.
    """
    if "imported" in store.recipe["recipe"]:
        raise InputError(
            f"{store.folder}: these features were imported and have no times, which --to csd needs; "
            "extract them from the clips"
        )
    streams = streams or Streams()
    if problems := streams.problems(store.folder, store.recipe["fingerprints"]):
        raise InputError(problems)
    stages = streams.reads
    ids = sorted(set().union(*(store.ids(stage) for stage in stages)))
    if invalid := [clip_id for clip_id in ids if "[" in clip_id or clip_id == "."]:
        raise InputError(
            [
                f"id {clip_id!r}: the SDK reads '[' as the start of a segment's number; rename the clip"
                for clip_id in invalid
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    return {
        name: _write(folder / f"{name}.csd", name, sequence.entries, _metadata(store, name, sequence))
        for name, sequence in _sequences(store, stages, _lengths(store, stages, ids)).items()
    }


def _sequences(store: FeatureStore, stages: Iterable[str], lengths: dict[str, float]) -> dict[str, _Sequence]:
    sequences = {}
    for stage in stages:
        if ids := store.ids(stage):
            first = store.read(stage, ids[0])
            about = "seconds of the clip" if _has_times(first) else "tokens share the clip's length equally"
            sequences[stage] = _Sequence(
                first.columns, f"triptych {stage}; intervals: {about}", _rows(store, stage, lengths)
            )
    about = "sentiment of the clip: whole, text, audio, vision"
    return {**sequences, "labels": _Sequence(LABELS, about, _labels(store, lengths))}


def _has_times(features: Features) -> bool:
    return len(features) > 0 and bool(np.isfinite(features.times).all())


def _rows(store: FeatureStore, stage: str, lengths: dict[str, float]) -> Iterator[Entry]:
    for clip_id in store.ids(stage):
        features = store.read(stage, clip_id)
        if _has_times(features):
            intervals = _intervals(features.times, store.frame_rate(stage, clip_id))
        else:
            edges = np.linspace(0, lengths[clip_id], len(features) + 1)
            intervals = np.stack([edges[:-1], edges[1:]], axis=1)
        yield clip_id, intervals, features.values


def _labels(store: FeatureStore, lengths: dict[str, float]) -> Iterator[Entry]:
    for clip in store.manifest.clips:
        if clip.id in lengths:
            labels = np.array([[getattr(clip, name) for name in LABELS]], np.float32)
            yield clip.id, np.array([[0.0, lengths[clip.id]]]), labels


def _intervals(times: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    ends = np.minimum(times + 1 / rate, np.append(times[1:], np.inf))
    return np.stack([times, ends], axis=1)


def _lengths(store: FeatureStore, stages: Iterable[str], ids: list[str]) -> dict[str, float]:
    """Seconds to the end of each clip's last row that has a time; one second where no row has one."""
    lengths = dict.fromkeys(ids, 0.0)
    for stage in stages:
        for clip_id in store.ids(stage):
            features = store.read(stage, clip_id)
            if _has_times(features):
                end = features.times[-1] + 1 / store.frame_rate(stage, clip_id)
                lengths[clip_id] = max(lengths[clip_id], float(end))
    return {clip_id: length or 1.0 for clip_id, length in lengths.items()}


def _metadata(store: FeatureStore, name: str, sequence: _Sequence) -> dict[str, Any]:
    prints = json.dumps(store.recipe["fingerprints"], sort_keys=True)
    return {
        "root name": name,
        "computational sequence description": sequence.description,
        "dimension names": list(sequence.columns),
        "computational sequence version": __version__,
        # A comma is missing in the SDK's list of keys, so that it asks for these two as one.
        "dimension namescomputational sequence version": __version__,
        "alignment compatible": False,
        "dataset name": store.folder.resolve().name,
        "dataset version": prints,
        "creator": "triptych",
        "contact": "",
        "featureset bib citation": "",
        "dataset bib citation": "",
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {prints}")),
        "md5": None,
    }


def _write(file: Path, name: str, entries: Iterator[Entry], metadata: dict[str, Any]) -> int:
    count = 0
    with replacing(file) as temporary, h5py.File(temporary, "w") as opened:
        data = opened.create_group(f"{name}/data")
        for clip_id, intervals, features in entries:
            group = data.create_group(clip_id)
            group["features"], group["intervals"] = features, intervals
            count += 1
        for key, value in metadata.items():
            text = json.dumps(value, ensure_ascii=False)
            opened[name].create_dataset(f"metadata/{key}", data=[text], dtype=h5py.string_dtype())
    return count
