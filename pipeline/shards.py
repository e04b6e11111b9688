"""Write, read and verify one HDF5 shard: the features of one stage for a group of clips.

Clips of different lengths lie end to end, without padding: clip k has the rows ``offsets[k]`` to
``offsets[k + 1]`` of every per-row dataset. A 512-byte HDF5 user block in front holds the SHA-256 of all
that follows, since HDF5's own fletcher32 covers neither strings nor headers. Plain h5py opens the file.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from extractors.base import Features
from pipeline.atomic import replacing
from pipeline.schema import (
    CLIP_STRINGS,
    COLUMN_STRINGS,
    HEADER,
    SCHEMA,
    USER_BLOCK,
    ShardError,
    ShardHeader,
    ShardItem,
    check_datasets,
    check_features,
    check_header,
    check_items,
    row_arrays,
    row_types,
    shard_name,
)

__all__ = [
    "Shard",
    "ShardError",
    "ShardHeader",
    "ShardItem",
    "VouchedShard",
    "check_features",
    "checksum_problem",
    "shard_files",
    "shard_name",
    "verify_shard",
    "write_shard",
]

CHUNK_BYTES = 128 * 1024
_STRING = h5py.string_dtype("utf-8")

Names = tuple[tuple[str, ...], tuple[str, ...]]  # columns, units


def shard_files(folder: Path) -> list[Path]:
    """List the shards of a stage's folder, by name; none where there is no such folder."""
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


# -- writing --------------------------------------------------------------------------------------------


def write_shard(folder: Path, header: ShardHeader, items: Sequence[ShardItem]) -> Path:
    """Write a group of clips as one closed file, which appears whole or not at all.

    Clips are laid in order of their ids, so that the same group makes the same bytes, `created` apart. A
    whole shard of that name is left as it is; a damaged one is replaced.

    Parameters
    ----------
    folder
        The stage's folder, made where it is missing.
    header
        What the clips share.
    items
        The clips, at least one, each with at least one row. The file is built in memory, so it has to hold
        them twice.

    Returns
    -------
    Path
        The shard.

    Raises
    ------
    ValueError
        The features are not what the schema says; every mistake, by clip.
    OSError
        The folder cannot be written, or the disk is full.
    """
    items = sorted(items, key=lambda item: item.clip_id)
    if mistakes := check_header(header) or check_items(header.stage, items):
        raise ValueError("\n".join(mistakes))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / shard_name(header.fingerprint, ((item.clip_id, item.digest) for item in items))
    if path.exists() and not verify_shard(path):
        return path
    with replacing(path) as temporary:
        temporary.write_bytes(_image(header, items))
    return path


def _image(header: ShardHeader, items: Sequence[ShardItem]) -> memoryview:
    """Build the whole file in memory: HDF5 (2.0.0) crashes the process when a disk fills under it."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
        _write_header(file, header)
        _write_clips(file, header.stage, items)
    view = image.getbuffer()
    view[:USER_BLOCK] = _user_block(hashlib.sha256(view[USER_BLOCK:]).hexdigest())
    return view


def _write_header(file: h5py.File, header: ShardHeader) -> None:
    file.attrs["schema"] = SCHEMA
    file.attrs["stage"] = header.stage
    file.attrs["fingerprint"] = header.fingerprint
    file.attrs["recipe"] = header.recipe
    file.attrs["software"] = json.dumps(dict(header.software), ensure_ascii=False, sort_keys=True)
    file.attrs["frame_rate"] = float(header.frame_rate)
    file.attrs["created"] = datetime.now(UTC).isoformat(timespec="microseconds")
    for name, value in sorted(header.attributes.items()):
        file.attrs[name] = value


def _write_clips(file: h5py.File, stage: str, items: Sequence[ShardItem]) -> None:
    first = items[0].features
    offsets = np.cumsum([0, *(len(item.features) for item in items)], dtype=np.int64)
    rows, width = int(offsets[-1]), len(first.columns)
    file.create_dataset("offsets", data=offsets, chunks=offsets.shape, fletcher32=True)
    file.create_dataset("clip_id", data=[item.clip_id for item in items], dtype=_STRING)
    file.create_dataset("source_digest", data=[item.digest for item in items], dtype=_STRING)
    file.create_dataset("columns", data=first.columns, dtype=_STRING)
    file.create_dataset("units", data=first.units, dtype=_STRING)
    # Uncompressed: gzip with shuffle halves OpenFace's columns, at four times the writing and 1.6 times the
    # reading, which a disk's price does not pay for.
    tile = (min(rows, max(1, CHUNK_BYTES // (4 * width))), width)
    values = file.create_dataset("values", (rows, width), "float32", chunks=tile, fletcher32=True)
    datasets = {"values": values}
    for name, kind in row_types(stage).items():
        dtype = _STRING if kind == "str" else np.dtype(kind)
        chunks = (min(rows, CHUNK_BYTES // dtype.itemsize),)
        # HDF5 has no filters for strings of any length.
        datasets[name] = file.create_dataset(name, (rows,), dtype, chunks=chunks, fletcher32=kind != "str")
    for item, start, stop in zip(items, offsets[:-1], offsets[1:], strict=True):
        for name, array in row_arrays(item.features).items():
            datasets[name][start:stop] = array.astype(object) if array.dtype.kind == "U" else array
    file["columns"].make_scale("columns")
    values.dims[1].attach_scale(file["columns"])


def _user_block(digest: str) -> bytes:
    return f"{SCHEMA} sha256:{digest}\n".encode().ljust(USER_BLOCK, b"\0")


# -- reading --------------------------------------------------------------------------------------------


class _Rows:
    """An HDF5 file and the places of its clips' rows."""

    offsets: NDArray[np.int64]
    columns: tuple[str, ...]
    units: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        with _blaming(path, "cannot be opened"):
            # Closed files never change, so no lock is needed, nor had everywhere. Each chunk is read once a clip:
            # a cache of chunks would only hold memory.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0, rdcc_nslots=1)

    def _read_layout(self, stage: str, names: Names | None = None) -> None:
        self.offsets = self._dataset("offsets")[...]
        self.columns, self.units = names or tuple(_strings(self._file[name]) for name in COLUMN_STRINGS)
        kinds = {"values": "float32", **row_types(stage)}
        self._arrays = {
            name: self._dataset(name).asstr() if kind == "str" else self._dataset(name)
            for name, kind in kinds.items()
        }

    def _dataset(self, name: str) -> h5py.Dataset:
        """The same as ``self._file[name]``, in half the time, of which opening many shards has much."""
        return h5py.Dataset(h5py.h5d.open(self._file.id, name.encode()), readonly=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def read_place(self, place: int) -> Features:
        """Read the rows of the clip at a place in the order of the shard's ids, and no others.

        Raises
        ------
        ShardError
            The rows are damaged.
        """
        rows = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        with _blaming(self.path, f"clip at place {place}, rows {rows.start} to {rows.stop}"):
            arrays = {name: array[rows] for name, array in self._arrays.items()}
            values, times, valid = (arrays.pop(name) for name in ("values", "times", "valid"))
            return Features(values, self.columns, self.units, times, valid, arrays)


class VouchedShard(_Rows):
    """A shard that the index vouches for, opened for its rows alone, in a fifth of the time.

    Parameters
    ----------
    path
        The file; its checksum and layout were found right, and it has not changed since.
    stage
        What it holds.
    names
        Its columns and units, where another shard of the same fingerprint has told them.

    Raises
    ------
    ShardError
        The file cannot be opened.
    """

    def __init__(self, path: Path, stage: str, names: Names | None = None) -> None:
        super().__init__(path)
        try:
            with _blaming(path, "datasets"):
                self._read_layout(stage, names)
        except ShardError:
            self.close()
            raise

    @property
    def frame_rate(self) -> float:
        """Rows a second, NaN for text."""
        return float(self._file.attrs["frame_rate"])


class Shard(_Rows):
    """A shard open for reading; a context manager.

    Opening reads the header, the ids and the offsets. `read` then reads the rows of one clip. The checksum
    of the whole file is not computed here but by `checksum_problem`, which the index calls once a file.

    Attributes
    ----------
    path
        The file.
    header
        What all clips share.
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
            with _blaming(path, "root attributes"):
                self.header, self.created = _read_header(self._file)
            with _blaming(path, "datasets"):
                if problems := check_datasets(self._file, self.header.stage):
                    raise ValueError("; ".join(problems))
                self._read_layout(self.header.stage)
                self.ids, self.digests = (_strings(self._file[name]) for name in CLIP_STRINGS)
        except ShardError:
            self.close()
            raise
        self._places = {clip_id: place for place, clip_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, clip: int | str) -> Features:
        """Read the rows of one clip, and no others.

        Parameters
        ----------
        clip
            Its id, or its place in `ids`.

        Returns
        -------
        Features
            Equal to what was written, but for the notes, which are the ledger's.

        Raises
        ------
        KeyError
            The shard has no such clip.
        ShardError
            The rows are damaged.
        """
        try:
            place = self._places[clip] if isinstance(clip, str) else range(len(self.ids))[clip]
        except (KeyError, IndexError):
            raise KeyError(f"{self.path}: has no clip {clip!r}") from None
        return self.read_place(place)


@contextmanager
def _blaming(path: Path, place: str) -> Iterator[None]:
    """Turn whatever HDF5 raises on a damaged file, of which there are many kinds, into a `ShardError`."""
    try:
        yield
    except Exception as error:
        raise ShardError(path, f"{place}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _strings(dataset: h5py.Dataset) -> tuple[str, ...]:
    return tuple(dataset.asstr()[...])


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
        raise ValueError(f"schema is {schema!r} where {SCHEMA!r} belongs")
    header = ShardHeader(stage, fingerprint, recipe, json.loads(software), frame_rate, attributes)
    if problems := check_header(header):
        raise ValueError("; ".join(problems))
    return header, created


# -- verifying ------------------------------------------------------------------------------------------


def checksum_problem(path: Path) -> str | None:
    """Compare a shard with the SHA-256 in its user block, without asking HDF5.

    This comes before any opening of a file of unknown health: one flipped bit in HDF5's heap of strings can
    make the library (2.0.0) loop for ever.

    Returns
    -------
    str or None
        What is wrong; None when every byte is as written.
    """
    try:
        with path.open("rb") as file:
            block = file.read(USER_BLOCK)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if block == _user_block(digest):
        return None
    if len(block) < USER_BLOCK:
        return f"user block: {len(block)} bytes where {USER_BLOCK} belong"
    if not block.startswith(f"{SCHEMA} sha256:".encode()):
        return f"user block: does not begin as that of a {SCHEMA} shard"
    return "user block: it is not the SHA-256 of the bytes behind it"


def verify_shard(path: Path, stage: str | None = None) -> list[str]:
    """Find every problem of a shard: checksum, schema, shapes, numbers.

    Where the checksum is wrong nothing more is looked at, since no other statement could be trusted.

    Parameters
    ----------
    path
        The shard.
    stage
        The stage whose folder it lies in, if it must be of that one.

    Returns
    -------
    list of str
        One sentence each, with file and place; empty when the shard is whole.
    """
    if problem := checksum_problem(path):
        return [str(ShardError(path, problem))]
    try:
        with Shard(path) as shard:
            problems = _check_content(shard)
            if stage not in (None, shard.header.stage):
                problems.insert(0, f"it holds {shard.header.stage}, and lies in the folder of {stage}")
            return [str(ShardError(path, problem)) for problem in problems]
    except ShardError as error:
        return [str(error)]


def _check_content(shard: Shard) -> list[str]:
    problems = []
    name = shard_name(shard.header.fingerprint, zip(shard.ids, shard.digests, strict=True))
    if shard.path.name != name:
        problems.append(f"file name: {name} is the name that its content gives")
    for place, clip_id in enumerate(shard.ids):
        if clip_id in shard.ids[:place]:
            problems.append(f"clip_id: {clip_id} is there twice")
        try:
            problems += [
                f"clip {clip_id}: {text}" for text in check_features(shard.header.stage, shard.read(place))
            ]
        except ShardError as error:
            problems.append(error.problem)
    return problems
