"""Read one HDF5 shard. A shard that may be damaged is first checked by `shards.checksum_problem`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.escaped import quoted
from triptych.pipeline.storage.confined import confined_problems, read_strings
from triptych.pipeline.storage.schema import (
    CLIP_STRINGS,
    COLUMN_STRINGS,
    HEADER,
    SCHEMA,
    RemovedShardError,
    ShardError,
    ShardHeader,
    check_datasets,
    check_header,
    row_types,
)

Names = tuple[tuple[str, ...], tuple[str, ...]]  # columns, units


class _Rows:
    """An HDF5 file and the offsets of its clips' rows."""

    offsets: NDArray[np.int64]
    columns: tuple[str, ...]
    units: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        with _as_shard_error(path, "cannot be opened"):
            # Complete shards never change, so no lock is needed; some file systems have none. Each chunk is read once
            # for each clip: a cache of chunks would only use memory.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0, rdcc_nslots=1)

    def _read_layout(self, stage: str, names: Names | None = None) -> None:
        self.offsets = self._dataset("offsets")[...]
        self.columns, self.units = names or tuple(self._strings(name) for name in COLUMN_STRINGS)
        kinds = {"values": "float32", **row_types(stage)}
        self._arrays = {name: self._dataset(name) for name in kinds}
        if self._arrays["values"].nbytes > self.path.stat().st_size:
            raise ValueError(f"values: claims {self._arrays['values'].nbytes} bytes, more than the file has")
        self._texts = {name for name, kind in kinds.items() if kind == "str"}

    def _dataset(self, name: str) -> h5py.Dataset:
        """Return ``self._file[name]`` in half the time, which matters when many shards are opened."""
        return h5py.Dataset(h5py.h5d.open(self._file.id, name.encode()), readonly=True)

    def _strings(self, name: str) -> tuple[str, ...]:
        return tuple(read_strings(self._dataset(name), self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def read_at(self, index: int) -> Features:
        """Read the rows of one clip, given its index in the order of the shard's ids.

        Raises
        ------
        ShardError
            The rows are damaged.
        """
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        with _as_shard_error(self.path, f"clip {index}, rows {rows.start} to {rows.stop}"):
            arrays: dict[str, NDArray[Any]] = {
                name: read_strings(array, self.path, rows) if name in self._texts else array[rows]
                for name, array in self._arrays.items()
            }
            values, times, valid = (arrays.pop(name) for name in ("values", "times", "valid"))
            return Features(values, self.columns, self.units, times, valid, arrays)


class CheckedShard(_Rows):
    """A shard that the index has checked; only its rows are read, so opening takes a fifth of the time.

    Parameters
    ----------
    path
        The file; its checksum and layout were checked, and it has not changed since.
    stage
        The shard's stage.
    names
        Its columns and units, if another shard of the same fingerprint has given them.

    Raises
    ------
    ShardError
        The file cannot be opened.
    """

    def __init__(self, path: Path, stage: str, names: Names | None = None) -> None:
        super().__init__(path)
        try:
            with _as_shard_error(path, "datasets"):
                self._read_layout(stage, names)
        except ShardError:
            self.close()
            raise

    @property
    def frame_rate(self) -> float:
        """Rows per second, NaN for text."""
        return float(self._file.attrs["frame_rate"])

    def read_header(self) -> ShardHeader:
        """Read the attributes that all clips share."""
        with _as_shard_error(self.path, "root attributes"):
            return _read_header(self._file)[0]

    def read_clips(self) -> tuple[tuple[str, str], ...]:
        """Read id and digest of each clip."""
        with _as_shard_error(self.path, "datasets"):
            return tuple(zip(*map(self._strings, CLIP_STRINGS), strict=True))


class Shard(_Rows):
    """A shard open for reading; a context manager.

    Opening reads the header, the ids and the offsets. `read` then reads the rows of one clip. The checksum
    of the whole file is not computed here but by `checksum_problem`, which the index calls once for each file.

    Attributes
    ----------
    path
        The file.
    header
        The attributes that all clips share.
    created
        When it was written, ISO 8601, UTC.
    ids, digests
        One for each of the N clips, in the order of their rows.
    columns, units
        D names and D units.
    offsets
        int64, shape (N + 1,): clip k has the rows ``offsets[k]:offsets[k + 1]``.

    Raises
    ------
    ShardError
        The file cannot be opened as a shard.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with _as_shard_error(path, "content"):
                if problems := confined_problems(self._file, path):
                    raise ValueError("; ".join(problems))
            with _as_shard_error(path, "root attributes"):
                self.header, self.created = _read_header(self._file)
            with _as_shard_error(path, "datasets"):
                if problems := check_datasets(self._file, self.header.stage):
                    raise ValueError("; ".join(problems))
                self._read_layout(self.header.stage)
                self.ids, self.digests = (self._strings(name) for name in CLIP_STRINGS)
        except ShardError:
            self.close()
            raise
        self._index = {clip_id: index for index, clip_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, clip: int | str) -> Features:
        """Read the rows of one clip, and no others.

        Parameters
        ----------
        clip
            Its id, or its index in `ids`.

        Returns
        -------
        Features
            Equal to those that were written, but without the notes, which are in the ledger.

        Raises
        ------
        KeyError
            The clip is not in the shard.
        ShardError
            The rows are damaged.
        """
        try:
            index = self._index[clip] if isinstance(clip, str) else range(len(self.ids))[clip]
        except (KeyError, IndexError):
            raise KeyError(f"{self.path}: has no clip {clip!r}") from None
        return self.read_at(index)


@contextmanager
def _as_shard_error(path: Path, part: str) -> Iterator[None]:
    """Turn the many kinds of errors that HDF5 raises on a damaged file into a `ShardError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise RemovedShardError(path, f"{part}: {error.strerror or 'not found'}") from error
    except Exception as error:
        raise ShardError(path, f"{part}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _read_header(file: h5py.File) -> tuple[ShardHeader, str]:
    attributes = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()
    }
    if missing := [name for name in HEADER if name not in attributes]:
        raise ValueError(f"no attribute {', '.join(missing)}")
    schema, stage, fingerprint, recipe, software, frame_rate, created = (
        attributes.pop(name) for name in HEADER
    )
    if schema != SCHEMA:
        raise ValueError(f"schema is {quoted(schema)} instead of {SCHEMA!r}")
    header = ShardHeader(stage, fingerprint, recipe, json.loads(software), frame_rate, attributes)
    if problems := check_header(header):
        raise ValueError("; ".join(problems))
    return header, created
