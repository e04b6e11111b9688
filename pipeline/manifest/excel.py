"""Excel's workbooks, as cells of text with the row of each record."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.columns import COLUMNS, column_name

logger = logging.getLogger(__name__)

Rows = list[tuple[object, ...]]


def excel_cells(source: Path, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Read the first sheet that names a known column, or else the first; formulas give the values that Excel saved.

    A date or a formula without a value in a column that is read adds a problem.

    Raises
    ------
    InputError
        The file is no workbook, or openpyxl is missing.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(
            f"{source}: Excel files need the package openpyxl: `pip install 'triptych[xlsx]'`, "
            "or save the table as CSV in UTF-8"
        ) from error
    try:
        saved = _sheets(load_workbook(source, read_only=True, data_only=True))
        title = next((name for name, rows in saved.items() if _known_columns(rows)), next(iter(saved)))
        entered = _sheets(load_workbook(source, read_only=True))[title]
    except OSError:
        raise
    except Exception as error:  # zipfile's, XML's and openpyxl's own errors
        raise InputError(
            f"{source}: not a readable Excel file ({type(error).__name__}: {error}); save it again as xlsx or CSV"
        ) from error
    rows = saved[title]
    problems += _unreadable(source, rows, entered)
    # A sheet often has empty columns on its right.
    texts = [[_text(value) for value in row] for row in rows]
    width = max((len(_without_empty_end(row)) for row in texts), default=0)
    for line, row in enumerate(texts, 1):
        if any(cell.strip() for cell in row):
            yield line, [*row[:width], *[""] * (width - len(row))]
    if others := [name for name, more in saved.items() if name != title and _header(more)[1]]:
        logger.warning("%s: only the sheet %r is read, not %s", source, title, ", ".join(map(repr, others)))


def _sheets(book: Any) -> dict[str, Rows]:
    try:
        return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
    finally:
        book.close()


def _header(rows: Rows) -> tuple[int, tuple[object, ...]]:
    """Return the first row that is not empty, and its index."""
    return next(
        ((index, row) for index, row in enumerate(rows) if any(cell is not None for cell in row)), (0, ())
    )


def _known_columns(rows: Rows) -> dict[int, str]:
    """Return the columns that are read, by their number from 0."""
    names = {index: column_name(_text(cell)) for index, cell in enumerate(_header(rows)[1])}
    return {index: name for index, name in names.items() if name in COLUMNS}


def _unreadable(source: Path, saved: Rows, entered: Rows) -> Iterator[str]:
    """Yield the cells that would be read as something that nobody has written."""
    known = _known_columns(saved)
    start = _header(saved)[0] + 1
    for line, (row, formulas) in enumerate(zip(saved[start:], entered[start:], strict=False), start + 1):
        for index, name in known.items():
            value = row[index] if index < len(row) else None
            formula = formulas[index] if index < len(formulas) else None
            if isinstance(value, datetime.date | datetime.time):
                yield (
                    f"{source}:{line}: {name} is a date to Excel ({value}); give the column the format Text, and enter "
                    "the cell again"
                )
            elif value is None and isinstance(formula, str) and formula.startswith("="):
                yield (
                    f"{source}:{line}: {name} is a formula without a saved value; open the table in Excel and save it, "
                    "or enter the value"
                )


def _without_empty_end(row: Sequence[str]) -> Sequence[str]:
    while row and not row[-1].strip():
        row = row[:-1]
    return row


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
