"""A feature folder as computational sequences, the HDF5 files (.csd) of CMU-MultimodalSDK."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.pipeline import __version__
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.csv_text import LABELS
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.settings import MODALITIES

Entry = tuple[str, NDArray[np.float64], NDArray[np.float32]]  # clip, intervals (T, 2), features (T, D)


def export_csd(store: FeatureStore, folder: Path) -> dict[str, int]:
    """Write ``text.csd``, ``audio.csd``, ``vision.csd`` and ``labels.csd``; clips in each, by its name.

    A file is a group of the sequence's name with two more in it: ``data``, a group a clip of ``features``,
    shape (T, D), and ``intervals``, shape (T, 2), in seconds; and ``metadata``, a JSON text a key. A row lasts
    until the next one's time, but no longer than one frame. Tokens have no times: they share the clip's length
    equally, and the description says so. Labels are one row a clip, M, T, A and V, NaN where missing.

    Raises
    ------
    InputError
        The features have no times, having been imported, or an id is not one that the SDK can hold.
    """
    if "imported" in store.recipe["recipe"]:
        raise InputError(
            f"{store.folder}: these features were imported, and have no times; a computational sequence needs them"
        )
    ids = sorted(set().union(*(store.ids(modality) for modality in MODALITIES)))
    if wrong := [clip_id for clip_id in ids if "[" in clip_id or clip_id == "."]:
        raise InputError(
            [
                f"id {clip_id!r}: the SDK takes '[' for a segment's number; rename the clip"
                for clip_id in wrong
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    lengths = _lengths(store, ids)
    sources: dict[str, tuple[tuple[str, ...], str, Iterator[Entry]]] = {}
    for modality in MODALITIES:
        if held := store.ids(modality):
            columns = store.read(modality, held[0]).columns
            about = "tokens share the clip's length equally" if modality == "text" else "seconds of the clip"
            sources[modality] = (
                columns,
                f"triptych {modality}; intervals: {about}",
                _rows(store, modality, lengths),
            )
    sources["labels"] = (LABELS, "sentiment of the clip: whole, text, audio, vision", _labels(store, lengths))
    return {
        name: _write(folder / f"{name}.csd", name, entries, _metadata(store, name, columns, about))
        for name, (columns, about, entries) in sources.items()
    }


def _rows(store: FeatureStore, modality: str, lengths: dict[str, float]) -> Iterator[Entry]:
    for clip_id in store.ids(modality):
        features = store.read(modality, clip_id)
        if modality == "text":
            edges = np.linspace(0, lengths[clip_id], len(features) + 1)
            yield clip_id, np.stack([edges[:-1], edges[1:]], axis=1), features.values
        else:
            yield clip_id, _intervals(features.times, store.frame_rate(modality, clip_id)), features.values


def _labels(store: FeatureStore, lengths: dict[str, float]) -> Iterator[Entry]:
    for clip in store.manifest.clips:
        if clip.id in lengths:
            labels = np.array([[getattr(clip, name) for name in LABELS]], np.float32)
            yield clip.id, np.array([[0.0, lengths[clip.id]]]), labels


def _intervals(times: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    ends = np.minimum(times + 1 / rate, np.append(times[1:], np.inf))
    return np.stack([times, ends], axis=1)


def _lengths(store: FeatureStore, ids: list[str]) -> dict[str, float]:
    """Seconds to the end of each clip's last row of sound or picture; one second where it has neither."""
    lengths = dict.fromkeys(ids, 0.0)
    for modality in ("audio", "vision"):
        for clip_id in store.ids(modality):
            end = store.read(modality, clip_id).times[-1] + 1 / store.frame_rate(modality, clip_id)
            lengths[clip_id] = max(lengths[clip_id], float(end))
    return {clip_id: length or 1.0 for clip_id, length in lengths.items()}


def _metadata(store: FeatureStore, name: str, columns: tuple[str, ...], about: str) -> dict[str, Any]:
    prints = json.dumps(store.recipe["fingerprints"], sort_keys=True)
    return {
        "root name": name,
        "computational sequence description": about,
        "dimension names": list(columns),
        "computational sequence version": __version__,
        # The SDK's list of keys lacks a comma, so that it asks for these two in one.
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
