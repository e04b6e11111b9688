"""The content of a shard of schema ``triptych/1``, and the checks of features and files against it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.registry import stages
from triptych.extractors.stage import unnamed_columns
from triptych.pipeline.escaped import quoted

SCHEMA = "triptych/1"
USER_BLOCK = 512
HEADER = ("schema", "stage", "fingerprint", "recipe", "software", "frame_rate", "created")
CLIP_STRINGS = ("clip_id", "source_digest")
COLUMN_STRINGS = ("columns", "units")
IMPORTED = "imported"  # the backend of features that came from another program's file


class ShardError(Exception):
    """A shard cannot be read.

    Parameters
    ----------
    path
        The file.
    problem
        What is wrong, and where in the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. The next `triptych extract` makes its features again"


class RemovedShardError(ShardError):
    """A shard that the index lists does not exist any more, such as after `triptych compact` in another process."""

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.problem}. It was removed since the folder was opened, as `triptych compact` and "
            "`triptych prune` do: open the folder again"
        )


class NewerSchemaError(ShardError):
    """An intact shard of a schema that a newer version of triptych has written."""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; this version reads {SCHEMA}. Update triptych, or move the file elsewhere"


@dataclass(frozen=True)
class ShardHeader:
    """The attributes that all clips of a shard share.

    Attributes
    ----------
    stage
        Name of a registered stage.
    fingerprint
        64 hexadecimal digits that identify everything that the numbers depend on, except the clip.
    recipe
        The settings, as JSON.
    software
        Versions, model revisions and program hashes, by name.
    frame_rate
        Rows per second [Hz]; NaN where rows have no times (text, imported features).
    attributes
        Further root attributes, such as vision's backend.
    """

    stage: str
    fingerprint: str
    recipe: str
    software: Mapping[str, str]
    frame_rate: float
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardItem:
    """One clip of a shard: its id, the digest of its source, its rows."""

    clip_id: str
    digest: str
    features: Features


def shard_content(fingerprint: str, clips: Iterable[tuple[str, str]]) -> str:
    """Return what a shard holds as one text: its fingerprint, and id and digest of every clip, sorted.

    Parameters
    ----------
    fingerprint
        The stage's fingerprint, 64 hexadecimal digits.
    clips
        Id and digest of every clip, in any order.
    """
    return json.dumps([fingerprint, sorted(clips)])


def content_name(content: str) -> str:
    """Return the file name of the shard with a content that `shard_content` gives: its hash."""
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{content[2:10]}-{digest[:16]}.h5"


def shard_name(fingerprint: str, clips: Iterable[tuple[str, str]]) -> str:
    """Compute the name of the shard of these clips, in any order."""
    return content_name(shard_content(fingerprint, clips))


def row_types(stage: str) -> dict[str, str]:
    """Return the HDF5 types of the datasets with one entry a row, except `values`; ``str`` is UTF-8."""
    return {"times": "float64", "valid": "bool", **stages()[stage].extras}


def row_arrays(features: Features) -> dict[str, NDArray[Any]]:
    """Return all arrays of T rows by the names of their datasets."""
    return {"values": features.values, "times": features.times, "valid": features.valid, **features.extras}


# -- before writing -------------------------------------------------------------------------------------


def check_header(header: ShardHeader) -> list[str]:
    """List every problem of a header."""
    if header.stage not in stages():
        return [
            f"stage {quoted(header.stage)}: not installed; there are {', '.join(stages())}. Install the package that "
            "declares it"
        ]
    problems = []
    if len(header.fingerprint) != 64 or set(header.fingerprint) - set("0123456789abcdef"):
        problems.append(f"fingerprint {quoted(header.fingerprint)}: it must be 64 hexadecimal digits")
    timeless = stages()[header.stage].row_rate is None or header.attributes.get("backend") == IMPORTED
    if not (math.isnan(header.frame_rate) if timeless else 0 < header.frame_rate < math.inf):
        problems.append(
            f"frame_rate {header.frame_rate}: it must be rows per second, or NaN where rows have no times or no rate"
        )
    if taken := sorted(set(header.attributes) & set(HEADER)):
        problems.append(f"attributes {', '.join(taken)}: these names are reserved by the schema")
    try:
        json.loads(header.recipe)
    except ValueError as error:
        problems.append(f"recipe: not JSON ({error})")
    return problems


def check_items(stage: str, items: Sequence[ShardItem]) -> list[str]:
    """List the problems of these clips, sorted by id, as one shard of the stage."""
    if not items:
        return ["a shard holds at least one clip"]
    problems = []
    first = items[0].features
    for index, item in enumerate(items):
        found = check_features(stage, item.features)
        if (item.features.columns, item.features.units) != (first.columns, first.units):
            found.append(f"columns: not those of clip {items[0].clip_id}")
        if index > 0 and items[index - 1].clip_id == item.clip_id:
            found.append("clip_id: occurs twice")
        problems += [f"clip {item.clip_id}: {problem}" for problem in found]
    return problems


def check_features(stage: str, features: Features) -> list[str]:
    """List the problems that prevent a clip's features from being written; normally none."""
    problems = []
    names = tuple(zip(features.columns, features.units, strict=True))
    imported = names == unnamed_columns(stage, len(names))
    if not names or not (imported or names in stages()[stage].columns(len(names))):
        problems.append(f"columns: {len(names)} names and units that are not those of {stage}")
    if set(features.extras) != set(stages()[stage].extras):
        expected = sorted(stages()[stage].extras)
        problems.append(f"extras: {sorted(features.extras)} where {stage} has {expected}")
    if len(features) == 0:
        problems.append("values: no rows; a clip without rows is a failure with a reason, not features")
    kinds = {"values": "float32", **row_types(stage)}
    for name, array in row_arrays(features).items():
        if name in kinds:
            problems += _check_array(name, array, kinds[name])
    timeless = (stages()[stage].row_rate is None and not stages()[stage].uneven) or imported
    return problems + _check_times(features.times, timeless)


def _check_array(name: str, array: NDArray[Any], kind: str) -> list[str]:
    if array.ndim != (2 if name == "values" else 1):
        return [f"{name}: {array.ndim} dimensions"]
    if kind == "str":
        wrong = [row for row, text in enumerate(array) if not isinstance(text, str)]
        return [f"{name}: no text at row {wrong[0]}"] if wrong else []
    if array.dtype != np.dtype(kind):
        return [f"{name}: {array.dtype} instead of {kind}"]
    if name != "times" and array.dtype.kind == "f" and not np.isfinite(array).all():
        return [f"{name}: not finite at row {int(np.argwhere(~np.isfinite(array))[0][0])}"]
    return []


def _check_times(times: NDArray[np.float64], timeless: bool) -> list[str]:
    if timeless:
        return [] if np.isnan(times).all() else ["times: numbers, but rows of this stage have none (NaN)"]
    if not np.isfinite(times).all():
        return [f"times: not finite at row {int(np.argmin(np.isfinite(times)))}"]
    backwards = np.diff(times) <= 0
    return (
        [f"times: not later at row {int(np.argmax(backwards)) + 1} than before it"] if backwards.any() else []
    )


# -- in a file ------------------------------------------------------------------------------------------


def check_datasets(file: h5py.File, stage: str) -> list[str]:
    """Check the names, types and lengths of a file's datasets, and the offsets against the rows."""
    kinds = dict.fromkeys((*CLIP_STRINGS, *COLUMN_STRINGS), "str")
    kinds |= {"values": "float32", "offsets": "int64", **row_types(stage)}
    problems = [f"{name}: not in the schema of {stage}" for name in sorted(set(file) - set(kinds))]
    problems += [f"{name}: missing" for name in sorted(set(kinds) - set(file))]
    if problems:
        return problems
    for name, kind in kinds.items():
        dataset = file[name]
        text = h5py.check_string_dtype(dataset.dtype) == ("utf-8", None)
        if not (text if kind == "str" else dataset.dtype == np.dtype(kind)):
            problems.append(f"{name}: {dataset.dtype} instead of {kind}")
        if dataset.ndim != (2 if name == "values" else 1):
            problems.append(f"{name}: {dataset.ndim} dimensions")
    return problems or _check_shapes(file, stage)


def _check_shapes(file: h5py.File, stage: str) -> list[str]:
    values, offsets = file["values"], file["offsets"][...]
    rows, width = values.shape
    clips = len(file["clip_id"])
    lengths = {"offsets": clips + 1, "source_digest": clips, **dict.fromkeys(COLUMN_STRINGS, width)}
    lengths |= dict.fromkeys(row_types(stage), rows)
    problems = [
        f"{name}: {len(file[name])} entries instead of {length}"
        for name, length in lengths.items()
        if len(file[name]) != length
    ]
    if clips == 0:
        problems.append("clip_id: no clips")
    elif len(offsets) and (offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) <= 0).any()):
        problems.append(f"offsets: not rising from 0 to the {rows} rows of values by at least one a clip")
    if values.chunks is None or values.chunks[1] != width or not values.fletcher32:
        problems.append("values: not chunked in whole rows with fletcher32")
    if "columns" not in values.dims[1]:
        problems.append("columns: not attached to values as a dimension scale")
    return problems
