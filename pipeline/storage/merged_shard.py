"""Write one shard from the rows of others, a few megabytes at a time.

The bytes that were read and those that the new file gives back are compared before it gets its name.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.atomic import replacing
from triptych.pipeline.storage.schema import USER_BLOCK, ShardError, ShardHeader, row_arrays, shard_name
from triptych.pipeline.storage.shard_reader import Names, Shard
from triptych.pipeline.storage.shards import create_datasets, user_block, write_header

BATCH_BYTES = 4 * 2**20  # rows in memory


class Part(NamedTuple):
    """One clip of a merged shard.

    Attributes
    ----------
    clip_id, digest
        The clip.
    shard, row
        The name of the shard that its rows are copied from, and its position there.
    length
        How many rows it has.
    """

    clip_id: str
    digest: str
    shard: str
    row: int
    length: int


def write_merged(
    folder: Path,
    header: ShardHeader,
    created: str,
    names: Names,
    parts: Sequence[Part],
    read: Callable[[str, int], Features],
) -> Path:
    """Write a shard with these clips, which appears complete or not at all.

    Parameters
    ----------
    folder
        The stage's folder.
    header, created, names
        The attributes that all clips share, the time of writing, and the columns and units.
    parts
        The clips, at least one, sorted by id.
    read
        Returns the rows of a shard and a position in it.

    Returns
    -------
    Path
        The shard.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full.
    ShardError
        A clip cannot be read, or the new file has other rows than those that were written.
    """
    path = folder / shard_name(header.fingerprint, ((part.clip_id, part.digest) for part in parts))
    with replacing(path) as temporary:
        with temporary.open("w+b", buffering=0) as file:
            sink = _Sink(file)
            with h5py.File(sink, "w", userblock_size=USER_BLOCK) as content:
                write_header(content, header, created)
                written = _copy(content, header.stage, names, parts, read, sink)
            sink.check()
            file.seek(USER_BLOCK)
            block = user_block(hashlib.file_digest(file, "sha256").hexdigest())
            file.seek(0)
            file.write(block)
        with Shard(temporary) as shard:
            found = rows_digest(shard.read_at(index) for index in range(len(shard)))
        if found != written:
            raise ShardError(path, "the merged rows are not those that were read, so it was not saved")
    return path


class _Sink(io.RawIOBase):
    """A file for HDF5 (2.0.0), which crashes the process when a write fails: the error is stored and raised later."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error of a write that failed."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        view = memoryview(data)
        try:
            done = 0
            while self._error is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self._error = error
        return len(view)

    def readinto(self, buffer: Any) -> int:
        found = self._file.readinto(buffer)
        return len(buffer) if self._error is not None else found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0


def _copy(
    content: h5py.File,
    stage: str,
    names: Names,
    parts: Sequence[Part],
    read: Callable[[str, int], Features],
    sink: _Sink,
) -> str:
    """Copy the rows of all clips, and return their digest."""
    offsets = np.cumsum([0, *(part.length for part in parts)], dtype=np.int64)
    datasets = create_datasets(content, stage, [part[:2] for part in parts], offsets, names)
    start, pending, size = 0, {name: list[NDArray[Any]]() for name in datasets}, 0

    def flush() -> None:
        nonlocal start, size
        stop = start + sum(map(len, pending["values"]))
        for name, arrays in pending.items():
            if arrays:
                datasets[name][start:stop] = np.concatenate(arrays)
            arrays.clear()
        start, size = stop, 0
        sink.check()

    def copied() -> Iterable[Features]:
        nonlocal size
        for part in parts:
            features = read(part.shard, part.row)
            for name, array in row_arrays(features).items():
                pending[name].append(array)
                size += array.nbytes
            if size > BATCH_BYTES:
                flush()
            yield features

    digest = rows_digest(copied())
    flush()
    return digest


def rows_digest(clips: Iterable[Features]) -> str:
    """Return the SHA-256 of all arrays of some clips, bit for bit."""
    digest = hashlib.sha256()
    for features in clips:
        for name, array in sorted(row_arrays(features).items()):
            digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
            if array.dtype.kind == "O":
                digest.update(json.dumps(array.tolist()).encode())
            else:
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
