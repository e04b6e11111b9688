"""Tables written block by block as CSV or Parquet; a table is never in memory as a whole.

A missing value is an empty cell in CSV and null in Parquet: pandas reads both as NaN, polars as null.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 32 * 2**20  # bytes of numbers in a row group of Parquet, which is built in memory
CSV_CELLS = 2**15  # numbers that are written as text at once
_POWERS = np.array([float(f"1e{power}") for power in range(23)])  # those of ten that float64 has exactly


@dataclass(frozen=True)
class TableLayout:
    """The columns of a table: some of any type, then numbers, then some of any type.

    Attributes
    ----------
    leading, trailing
        Types by name: ``str``, or one of numpy.
    numbers
        Names of the float32 columns between them.
    about
        Texts about the table, by name; only Parquet has a place for them.
    units
        Units of the numbers, as long as `numbers`, or empty.
    """

    leading: Mapping[str, str]
    numbers: tuple[str, ...]
    trailing: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    units: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all columns, in order."""
        return (*self.leading, *self.numbers, *self.trailing)


@dataclass(frozen=True)
class Block:
    """Some rows of a table.

    Attributes
    ----------
    leading, trailing
        Arrays of R values, or for a column with one value in all R rows that value; None and NaN are missing.
    numbers
        float32, shape (R, D); NaN is missing.
    """

    leading: Sequence[Any]
    numbers: NDArray[np.float32]
    trailing: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.numbers)


class TableWriter(Protocol):
    """An open table."""

    def write(self, block: Block) -> None:
        """Add rows."""


def table_format(name: str) -> Callable[[Path, TableLayout], AbstractContextManager[TableWriter]]:
    """Return the function that opens a table for writing: ``csv`` or ``parquet``.

    The file appears complete or not at all. Its folder exists.

    Raises
    ------
    InputError
        pyarrow is missing, which Parquet needs.
    """
    if name == "csv":
        return open_csv
    require_pyarrow("--to parquet", "--to csv needs no package")
    return open_parquet


def require_pyarrow(what: str, otherwise: str = "") -> None:
    """Raise `InputError` if pyarrow cannot be imported."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        remedy = f", or use another format: {otherwise}" if otherwise else ""
        raise InputError(
            f"{what}: needs the package pyarrow: `pip install 'triptych[tables]'`{remedy}"
        ) from error


# -- CSV ------------------------------------------------------------------------------------------------


@contextmanager
def open_csv(file: Path, layout: TableLayout) -> Iterator[TableWriter]:
    """Open a CSV: UTF-8, a header, commas, ``true`` and ``false``, numbers with a point or an exponent."""
    with replacing(file) as temporary, temporary.open("wb") as opened:
        opened.write((_line(layout.names) + "\n").encode())
        yield _CsvWriter(opened)


class _CsvWriter:
    def __init__(self, opened: io.BufferedWriter) -> None:
        self._opened = opened

    def write(self, block: Block) -> None:
        leading, trailing = (_cells(values, len(block)) for values in (block.leading, block.trailing))
        step = max(1, CSV_CELLS // max(1, block.numbers.shape[1]))
        for start in range(0, len(block), step):
            rows = slice(start, start + step)
            numbers = _numbers_as_text(block.numbers[rows])
            lines = zip(leading[rows], numbers, trailing[rows], strict=True)
            self._opened.writelines(b",".join(filter(None, line)) + b"\n" for line in lines)


def _numbers_as_text(numbers: NDArray[np.float32]) -> list[bytes]:
    """Write each row of numbers; whole ones get ``.0``, so that no reader takes a column for integers."""
    short = _shortened(numbers)
    form = ",".join(["%.9g"] * numbers.shape[1])
    is_whole = (short == np.rint(short)) & (np.abs(short) < 1e9)  # beyond, `form` writes an exponent
    is_missing = np.isnan(short)
    lines = []
    for row, special in zip(short, is_whole | is_missing, strict=True):
        line = form % tuple(row.tolist())
        if special.any():
            cells = line.split(",")
            for column in np.flatnonzero(special).tolist():
                cells[column] = "" if cells[column] == "nan" else f"{cells[column]}.0"
            line = ",".join(cells)
        lines.append(line.encode())
    return lines


def _shortened(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the decimal of the fewest digits that is the same float32, as the nearest float64.

    Nine digits always suffice, so `%.9g` writes it. Where the power of ten is not exact, the number itself is returned.
    """
    exact = numbers.astype(np.float64)
    short = exact.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.nan_to_num(np.floor(np.log10(np.abs(exact))), nan=0, posinf=0, neginf=0).astype(np.intp)
        for digits in (8, 7, 6):  # `%g` writes no zeros at the end, so six digits cover fewer
            power = digits - 1 - place
            scale = _POWERS[np.clip(power, 0, len(_POWERS) - 1)]
            candidate = np.rint(exact * scale) / scale
            same = (candidate.astype(np.float32) == numbers) & (power >= 0) & (power < len(_POWERS))
            np.copyto(short, candidate, where=same)
    return short


def _cells(columns: Sequence[Any], count: int) -> list[bytes]:
    """The columns of each of `count` rows as one piece of CSV, empty without columns."""
    if not columns:
        return [b""] * count
    if not any(isinstance(column, np.ndarray) for column in columns):
        return [_line([_cell(value) for value in columns]).encode()] * count
    spread = [
        [_cell(value) for value in column.tolist()]
        if isinstance(column, np.ndarray)
        else [_cell(column)] * count
        for column in columns
    ]
    return [_line(row).encode() for row in zip(*spread, strict=True)]


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN is not equal to itself
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


# -- Parquet --------------------------------------------------------------------------------------------


@contextmanager
def open_parquet(file: Path, layout: TableLayout) -> Iterator[TableWriter]:
    """Open a Parquet file; rows are written in groups of about 32 MiB."""
    import pyarrow.parquet as pq

    schema = _schema(layout)
    texts = [name for name, kind in {**layout.leading, **layout.trailing}.items() if kind == "str"]
    # Numbers are seldom equal, so a dictionary of them costs time and saves nothing.
    with (
        replacing(file) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=texts) as opened,
    ):
        writer = _ParquetWriter(opened, schema)
        yield writer
        writer.flush()


def arrow_type(kind: str) -> pa.DataType:
    """Return the type of Arrow of a column."""
    import pyarrow as pa

    return pa.string() if kind == "str" else pa.from_numpy_dtype(np.dtype(kind))


def _schema(layout: TableLayout) -> pa.Schema:
    import pyarrow as pa

    units = dict(zip(layout.numbers, layout.units, strict=True)) if layout.units else {}
    fields = [pa.field(name, arrow_type(kind)) for name, kind in layout.leading.items()]
    fields += [
        pa.field(name, pa.float32(), metadata={"unit": units[name]} if units.get(name) else None)
        for name in layout.numbers
    ]
    fields += [pa.field(name, arrow_type(kind)) for name, kind in layout.trailing.items()]
    return pa.schema(fields, metadata=dict(layout.about))


class _ParquetWriter:
    """Collects blocks until they fill a row group."""

    def __init__(self, opened: Any, schema: pa.Schema) -> None:
        self._opened = opened
        self._schema = schema
        self._blocks: list[Block] = []
        self._bytes = 0

    def write(self, block: Block) -> None:
        self._blocks.append(block)
        self._bytes += block.numbers.nbytes
        if self._bytes >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the collected blocks as a row group."""
        import pyarrow as pa

        if not self._blocks:
            return
        blocks, self._blocks, self._bytes = self._blocks, [], 0
        ends = np.cumsum([len(block) for block in blocks])
        numbers = np.empty((blocks[0].numbers.shape[1], ends[-1]), np.float32)
        for block, end in zip(blocks, ends, strict=True):
            numbers[:, end - len(block) : end] = block.numbers.T
        columns = [
            *_joined([block.leading for block in blocks], blocks),
            *numbers,
            *_joined([block.trailing for block in blocks], blocks),
        ]
        arrays = [
            pa.array(column, field.type, from_pandas=True)  # NaN becomes null
            for column, field in zip(columns, self._schema, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._opened.write_table(table, row_group_size=len(table))


def _joined(parts: Sequence[Sequence[Any]], blocks: Sequence[Block]) -> list[list[Any] | NDArray[Any]]:
    joined: list[list[Any] | NDArray[Any]] = []
    for column in zip(*parts, strict=True):
        if all(isinstance(values, np.ndarray) for values in column):
            joined.append(np.concatenate(column))
        else:
            spread = (
                part.tolist() if isinstance(part, np.ndarray) else [part] * len(block)
                for part, block in zip(column, blocks, strict=True)
            )
            joined.append([value for values in spread for value in values])
    return joined
