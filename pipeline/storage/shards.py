"""Write and verify one HDF5 shard: the features of one stage for a group of clips.

Clips of different lengths follow one another without padding: clip k has the rows ``offsets[k]`` to
``offsets[k + 1]`` of every per-row dataset. A 512-byte HDF5 user block in front holds the SHA-256 of all
that follows, since HDF5's own fletcher32 covers neither strings nor headers. h5py opens the file as usual.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.atomic import replacing
from triptych.pipeline.storage.schema import (
    SCHEMA,
    USER_BLOCK,
    NewerSchemaError,
    ShardError,
    ShardHeader,
    ShardItem,
    check_features,
    check_header,
    check_items,
    row_arrays,
    row_types,
    shard_name,
)
from triptych.pipeline.storage.shard_reader import Names, Shard

CHUNK_BYTES = 128 * 1024
_USER_BLOCK = re.compile(rb"(triptych/(\d{1,9})) sha256:([0-9a-f]{64})\n")  # of every schema
_STRING = h5py.string_dtype("utf-8")


def shard_files(folder: Path) -> list[Path]:
    """List the shards of a stage's folder, by name; none if the folder does not exist."""
    return [folder / name for name in shard_names(folder)]


def shard_names(folder: Path) -> list[str]:
    """List the names of the shards in a stage's folder, sorted."""
    with suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208 - Path objects are far slower
        return sorted(name for name in names if name.endswith(".h5") and not name.startswith("."))
    return []


# -- writing --------------------------------------------------------------------------------------------


def write_shard(folder: Path, header: ShardHeader, items: Sequence[ShardItem]) -> Path:
    """Write a group of clips as one closed file, which appears complete or not at all.

    Clips are written in order of their ids, so that the same group gives the same bytes, except `created`. An
    intact shard of that name is left as it is; a damaged one is replaced.

    Parameters
    ----------
    folder
        The stage's folder; it is made if it is missing.
    header
        The attributes that all clips share.
    items
        The clips, at least one, each with at least one row. The file is built in memory, which must hold
        them twice.

    Returns
    -------
    Path
        The shard.

    Raises
    ------
    ValueError
        The features do not follow the schema; every problem, by clip.
    OSError
        The folder cannot be written, or the disk is full.
    NewerSchemaError
        A newer version has written this shard.
    """
    items = sorted(items, key=lambda item: item.clip_id)
    if problems := check_header(header) or check_items(header.stage, items):
        raise ValueError("\n".join(problems))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / shard_name(header.fingerprint, ((item.clip_id, item.digest) for item in items))
    if path.exists():
        found = shard_problems(path)
        if not found:
            return path
        if isinstance(found[0], NewerSchemaError):
            raise found[0]
    with replacing(path) as temporary:
        temporary.write_bytes(_image(header, items))
    return path


def _image(header: ShardHeader, items: Sequence[ShardItem]) -> memoryview:
    """Build the whole file in memory: HDF5 (2.0.0) crashes the process when a disk fills under it."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
        write_header(file, header)
        _write_clips(file, header.stage, items)
    view = image.getbuffer()
    view[:USER_BLOCK] = user_block(hashlib.sha256(view[USER_BLOCK:]).hexdigest())
    return view


def write_header(file: h5py.File, header: ShardHeader, created: str | None = None) -> None:
    """Write the root attributes; without `created`, the time of writing is now."""
    file.attrs["schema"] = SCHEMA
    file.attrs["stage"] = header.stage
    file.attrs["fingerprint"] = header.fingerprint
    file.attrs["recipe"] = header.recipe
    file.attrs["software"] = json.dumps(dict(header.software), ensure_ascii=False, sort_keys=True)
    file.attrs["frame_rate"] = float(header.frame_rate)
    file.attrs["created"] = created or datetime.now(UTC).isoformat(timespec="microseconds")
    for name, value in sorted(header.attributes.items()):
        file.attrs[name] = value


def _write_clips(file: h5py.File, stage: str, items: Sequence[ShardItem]) -> None:
    first = items[0].features
    clips = [(item.clip_id, item.digest) for item in items]
    offsets = np.cumsum([0, *(len(item.features) for item in items)], dtype=np.int64)
    datasets = create_datasets(file, stage, clips, offsets, (first.columns, first.units))
    for item, start, stop in zip(items, offsets[:-1], offsets[1:], strict=True):
        for name, array in row_arrays(item.features).items():
            datasets[name][start:stop] = array.astype(object) if array.dtype.kind == "U" else array


def create_datasets(
    file: h5py.File,
    stage: str,
    clips: Sequence[tuple[str, str]],
    offsets: NDArray[np.int64],
    names: Names,
) -> dict[str, h5py.Dataset]:
    """Write all that is known before the first row, and create the datasets of rows.

    Parameters
    ----------
    file
        A new file with its root attributes.
    stage
        The stage.
    clips
        Id and digest of each of the N clips.
    offsets
        int64, shape (N + 1,).
    names
        Columns and units.

    Returns
    -------
    dict of str to h5py.Dataset
        The datasets with one entry a row, still without values.
    """
    rows, width = int(offsets[-1]), len(names[0])
    file.create_dataset("offsets", data=offsets, chunks=offsets.shape, fletcher32=True)
    file.create_dataset("clip_id", data=[clip_id for clip_id, _ in clips], dtype=_STRING)
    file.create_dataset("source_digest", data=[digest for _, digest in clips], dtype=_STRING)
    file.create_dataset("columns", data=names[0], dtype=_STRING)
    file.create_dataset("units", data=names[1], dtype=_STRING)
    # Uncompressed: gzip with shuffle halves OpenFace's columns, but takes 4 times as long to write and 1.6 times as
    # long to read.
    tile = (min(rows, max(1, CHUNK_BYTES // (4 * width))), width)
    values = file.create_dataset("values", (rows, width), "float32", chunks=tile, fletcher32=True)
    datasets = {"values": values}
    for name, kind in row_types(stage).items():
        dtype = _STRING if kind == "str" else np.dtype(kind)
        chunks = (min(rows, CHUNK_BYTES // dtype.itemsize),)
        # HDF5 has no filters for strings of any length.
        datasets[name] = file.create_dataset(name, (rows,), dtype, chunks=chunks, fletcher32=kind != "str")
    file["columns"].make_scale("columns")
    values.dims[1].attach_scale(file["columns"])
    return datasets


def user_block(digest: str) -> bytes:
    """Return the user block of a file whose other bytes have this SHA-256."""
    return f"{SCHEMA} sha256:{digest}\n".encode().ljust(USER_BLOCK, b"\0")


# -- verifying ------------------------------------------------------------------------------------------


def checksum_problem(path: Path) -> str | None:
    """Compare a shard with the SHA-256 in its user block, without asking HDF5.

    This check comes before HDF5 opens a file that may be damaged: one flipped bit in the heap of strings can make
    the library (2.0.0) loop forever.

    Returns
    -------
    str or None
        The problem; None if all bytes are as written.
    """
    try:
        with path.open("rb") as file:
            block = file.read(USER_BLOCK)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if block == user_block(digest):
        return None
    if len(block) < USER_BLOCK:
        return f"user block: {len(block)} bytes instead of {USER_BLOCK}"
    if not block.startswith(f"{SCHEMA} sha256:".encode()):
        return f"user block: does not start as that of a {SCHEMA} shard"
    return "user block: it is not the SHA-256 of the bytes that follow"


def verify_shard(path: Path, stage: str | None = None) -> list[str]:
    """Find every problem of a shard: checksum, schema, shapes, numbers.

    If the checksum is wrong, nothing else is checked, since no other result would be reliable.

    Parameters
    ----------
    path
        The shard.
    stage
        The stage that the shard must belong to; None for any.

    Returns
    -------
    list of str
        One sentence each, with file and position; empty when the shard is intact.
    """
    return [str(problem) for problem in shard_problems(path, stage)]


def shard_problems(path: Path, stage: str | None = None) -> list[ShardError]:
    """Find every problem of a shard, as `verify_shard` does."""
    if problem := checksum_problem(path):
        return [newer_schema(path) or ShardError(path, problem)]
    try:
        with Shard(path) as shard:
            problems = _check_content(shard)
            if stage not in (None, shard.header.stage):
                problems.insert(0, f"it is a shard of {shard.header.stage} in the folder of {stage}")
            return [ShardError(path, problem) for problem in problems]
    except ShardError as error:
        return [error]


def newer_schema(path: Path) -> NewerSchemaError | None:
    """Return the error of an intact shard of a newer schema; None for any other file.

    Every schema starts its user block alike. A changed bit in this block makes no newer schema: the file's root
    attribute must name it too.
    """
    try:
        with path.open("rb") as file:
            start = _USER_BLOCK.match(file.read(USER_BLOCK))
            if start is None or int(start[2]) <= int(SCHEMA.rpartition("/")[2]):
                return None
            if hashlib.file_digest(file, "sha256").hexdigest() != start[3].decode():
                return None
        with h5py.File(path, "r", locking=False) as content:
            named = content.attrs["schema"]
    except (OSError, KeyError, RuntimeError):
        return None
    schema = start[1].decode()
    return NewerSchemaError(path, f"written in the newer schema {schema}") if named == schema else None


def _check_content(shard: Shard) -> list[str]:
    problems = []
    name = shard_name(shard.header.fingerprint, zip(shard.ids, shard.digests, strict=True))
    if shard.path.name != name:
        problems.append(f"file name: {name} is the name that follows from its content")
    twice = [clip_id for clip_id, count in Counter(shard.ids).items() if count > 1]
    problems += [f"clip_id: {clip_id} occurs twice" for clip_id in twice]
    if list(shard.ids) != sorted(shard.ids):
        problems.append("clip_id: not sorted")
    for index, clip_id in enumerate(shard.ids):
        try:
            problems += [
                f"clip {clip_id}: {text}" for text in check_features(shard.header.stage, shard.read(index))
            ]
        except ShardError as error:
            problems.append(error.problem)
    return problems
