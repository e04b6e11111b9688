"""A feature folder as tar shards in the layout of the library webdataset: one sample a clip."""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.atomic import replacing, write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.chosen import by_split, chosen_stages, clips_with
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.store import FeatureStore

SHARD_SIZE = 256 * 2**20  # bytes
COLUMNS = "columns.json"
_SHARD = re.compile(r".*-\d{6,}\.tar")


def export_tar_shards(
    store: FeatureStore, folder: Path, only: Sequence[str] | None = None, size: int = SHARD_SIZE
) -> dict[str, int]:
    """Write ``<split>-000000.tar`` and so on; the number of clips in each, by its name.

    A sample has the entries ``json`` (id, split, text, the labels), and for each stage of the clip ``<stage>.npy``,
    float32, shape (T, D), ``<stage>.valid.npy``, ``<stage>.times.npy`` [s] where rows have times, and an entry for
    each further array, such as ``audio.voiced.npy``. Missing values are null. ``columns.json`` beside the
    shards has the columns of each stage. Clips without a split are in ``unassigned-000000.tar``.

    Parameters
    ----------
    store
        The feature folder.
    folder
        A folder without shards; created if it is missing.
    only
        The stages; by default all that have features.
    size
        A shard ends with the clip that makes it as large as this [bytes].

    Raises
    ------
    InputError
        A stage is unknown or has no features, or the folder has shards already.
    """
    stages = chosen_stages(store, only)
    if folder.is_dir() and any(_SHARD.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: already has tar shards; pass a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    ids = {stage: frozenset(store.ids(stage)) for stage in stages}
    counts: dict[str, int] = {}
    for split, clips in by_split(clips_with(store, stages)).items():
        waiting = iter(clips)
        number, clip = 0, next(waiting, None)
        while clip is not None:
            name = f"{split}-{number:06d}.tar"
            with (
                replacing(folder / name) as temporary,
                tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
            ):
                counts[name] = 0
                while clip is not None and tar.offset < size:
                    for entry, content in _entries(store, clip, ids):
                        _add(tar, f"{sample_key(clip.id)}.{entry}", content)
                    counts[name] += 1
                    clip = next(waiting, None)
            number += 1
    columns = {stage: store.read(stage, store.ids(stage)[0]).columns for stage in stages}
    write_whole(folder / COLUMNS, json.dumps(columns, ensure_ascii=False, indent=1).encode())
    return counts


def sample_key(clip_id: str) -> str:
    """Return an id as a key of webdataset, which must have no dot: other characters than letters, digits, ``_``,
    ``-``, ``~`` and ``$`` become ``%`` and two digits, as in addresses.
    """
    return quote(clip_id, safe="$").replace(".", "%2E")


def number_or_none(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if math.isnan(value) else value


def _entries(
    store: FeatureStore, clip: Clip, ids: Mapping[str, frozenset[str]]
) -> Iterator[tuple[str, bytes]]:
    labels = {name: number_or_none(getattr(clip, name)) for name in LABELS}
    about = {"id": clip.id, "split": clip.split, "text": clip.text, **labels}
    yield "json", json.dumps(about, ensure_ascii=False).encode()
    for stage, known in ids.items():
        if clip.id in known:
            for name, array in _arrays(store.read(stage, clip.id)).items():
                yield f"{stage}{name}.npy", _npy(array)


def _arrays(features: Features) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"": features.values, ".valid": features.valid}
    if not np.isnan(features.times).all():
        arrays[".times"] = features.times
    for name, array in features.extras.items():
        # An array of objects would be pickled, and readers refuse pickles.
        arrays[f".{name}"] = array.astype(np.str_) if array.dtype == object else array
    return arrays


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without time and owner, so that equal features give equal bytes
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
