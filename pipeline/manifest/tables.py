"""Tables of clips: CSV with commas, semicolons or tabs, TSV and Excel's xlsx, as cells with each record's line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from triptych.pipeline.manifest.columns import COLUMNS, LABELS, NUMBERS
from triptych.pipeline.manifest.encoding import decode
from triptych.pipeline.manifest.excel import excel_cells

TABLE_ENDINGS = (".csv", ".tsv", ".xlsx")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


def cells(source: Path, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Read each record of a table with the line that it starts on; blank records are skipped.

    An invalid record adds a problem and is the last one.

    Raises
    ------
    InputError
        The file is in an unknown encoding, or is no Excel file, or openpyxl is missing.
    """
    if source.suffix.lower() == ".xlsx":
        yield from excel_cells(source, problems)
        return
    content = decode(source.read_bytes(), str(source))
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # a transcript may be long
    skipped = 0
    if stated := re.match(r"sep=(.)\r?\n", content):  # Excel's own way to name the delimiter
        content, skipped = content[stated.end() :], 1
    delimiter = stated[1] if stated else _delimiter(source, content)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(
                f"{source}:{line}: a quoted cell is not closed properly ({error}); "
                'put a cell that contains quotes in quotes, and double the inner ones: "a ""b"" c"'
            )
            return
        if any(cell.strip() for cell in record):
            yield line, record


def _delimiter(source: Path, content: str) -> str:
    """Choose the delimiter that divides the first record into the most cells; the comma in a tie."""
    if source.suffix.lower() == ".tsv":
        return "\t"

    def count(delimiter: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(content.lstrip(), newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(",;\t", key=count)


def _typed(column: str, cell: str) -> Any:
    """A cell with the type it has in JSON; an invalid label stays text, for the later check to report."""
    if column in LABELS or column in NUMBERS:
        cell = cell.strip()
        if _DECIMAL_COMMA.fullmatch(cell):  # as tables with semicolons have it
            cell = cell.replace(",", ".")
        return float(cell) if _DECIMAL.fullmatch(cell) else cell or None
    if column in ("split", "label_range", "face", "text_source"):
        return cell.strip() or None
    return cell or None if column in ("text", "root") else cell


def records(
    source: Path, header: Sequence[str], lines: Iterable[tuple[int, list[str]]], problems: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read each record as its origin, ``file:line``, and its values by column; skip one of another length."""
    for line, record in lines:
        origin = f"{source}:{line}"
        if (whole := fitted(record, len(header), origin, problems)) is not None:
            pairs = zip(header, whole, strict=True)
            yield origin, {name: _typed(name, cell) for name, cell in pairs if name in COLUMNS}


def fitted(record: list[str], width: int, origin: str, problems: list[str]) -> list[str] | None:
    """Return a record without empty cells beyond the header's; None, and a problem, where the numbers differ."""
    if len(record) > width and not any(cell.strip() for cell in record[width:]):
        record = record[:width]
    if len(record) == width:
        return record
    problems.append(
        f"{origin}: {len(record)} cells for {width} columns; "
        "quote a cell that contains a comma or a line break"
    )
    return None
