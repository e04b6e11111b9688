"""Rows under a header, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | float | int | None


@dataclass(frozen=True)
class Grid:
    """Rows under a header; None and NaN are cells without a value."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """Return a Markdown table; columns of numbers are aligned to the right."""
        right = [_is_number(column) for column in zip(*self.rows, strict=True)] if self.rows else []
        marks = ["---:" if is_right else "---" for is_right in right] or ["---"] * len(self.header)
        lines = [self.header, marks, *([_shown(cell) for cell in row] for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def csv(self) -> bytes:
        """Return the table as CSV, numbers in full, a missing one empty."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([["" if is_missing(cell) else cell for cell in row] for row in self.rows])
        return lines.getvalue().encode()


def is_missing(cell: object) -> bool:
    """Return whether a cell has no value: None or NaN."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _is_number(column: Sequence[Cell]) -> bool:
    return all(isinstance(cell, int | float | None) or cell[:1] in "0123456789-–+↑↓" for cell in column)


def _shown(cell: Cell) -> str:
    if is_missing(cell):
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
