"""Arrays of a long clip, which do not stay in memory: a temporary file, mapped while it is read."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from triptych.extractors.base import ExtractionError, Reason

IN_MEMORY = 16 * 2**20  # bytes of an array that needs no file: 3 minutes of sound at 22,050 Hz
AT_A_TIME = 4 * 2**20  # bytes of a part


class Scratch:
    """An array while it is written, from its start to its end or anywhere; what is left out is 0.

    Parameters
    ----------
    dtype
        Of the array.
    row
        Shape of one row.
    """

    def __init__(self, dtype: DTypeLike, row: tuple[int, ...] = ()) -> None:
        self.rows = 0
        self._dtype = np.dtype(dtype)
        self._row = row
        self._row_bytes = self._dtype.itemsize * math.prod(row)
        self._pieces: list[tuple[int, NDArray[Any]]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def write(self, rows: NDArray[Any], at: int | None = None) -> None:
        """Write rows, from number `at` on or after the last.

        Raises
        ------
        ExtractionError
            ``no_scratch_space``.
        """
        at = self.rows if at is None else at
        rows = np.ascontiguousarray(rows, self._dtype)
        self.rows = max(self.rows, at + len(rows))
        self._bytes += rows.nbytes
        self._pieces.append((at, rows))
        if self._file or self._bytes > IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="triptych-")  # noqa: SIM115 - closed by `array`
            for at, rows in self._pieces:
                self._file.seek(at * self._row_bytes)
                self._file.write(rows.data)
            self._file.flush()
        except OSError as error:
            raise ExtractionError(
                Reason.NO_SCRATCH_SPACE, f"{tempfile.gettempdir()}: {error.strerror or error}"
            ) from error
        self._pieces.clear()

    def array(self) -> NDArray[Any]:
        """Return what was written; its first dimension is the rows. Nothing may be written afterwards."""
        if self._file:
            self._file.truncate(self.rows * self._row_bytes)  # where the end was left out
            # Not read-only: numba would compile the kernels once more for that.
            mapped = mmap.mmap(self._file.fileno(), 0)
            self._file.close()
            return np.frombuffer(mapped, self._dtype).reshape(-1, *self._row)
        if len(self._pieces) == 1 and self._pieces[0][0] == 0:
            return self._pieces[0][1]
        array = np.zeros((self.rows, *self._row), self._dtype)
        for at, rows in self._pieces:
            array[at : at + len(rows)] = rows
        return array


def release(array: NDArray[Any]) -> None:
    """Let the pages of a mapped array go out of memory; they are read again when they are needed."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def parts(array: NDArray[Any], rows: int = 0) -> Iterator[NDArray[Any]]:
    """Yield an array in parts of `rows` rows, by default of `AT_A_TIME` bytes; a mapped one is released after each."""
    rows = rows or max(AT_A_TIME // (array.strides[0] or 1), 1)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        release(array)


def all_finite(array: NDArray[Any]) -> bool:
    """Return whether an array has neither NaN nor infinity."""
    return all(bool(np.isfinite(part).all()) for part in parts(array))
