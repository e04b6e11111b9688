"""What an experiment leaves behind: one Markdown, one CSV and, where there is something to see, one PNG file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triptych.pipeline.atomic import write_whole

Cell = str | float | int | None


@dataclass(frozen=True)
class Grid:
    """Rows under a header; None is a cell without a value."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """A Markdown table; columns of numbers are aligned to the right."""
        right = [_is_number(column) for column in zip(*self.rows, strict=True)] if self.rows else []
        marks = ["---:" if is_right else "---" for is_right in right] or ["---"] * len(self.header)
        lines = [self.header, marks, *([_shown(cell) for cell in row] for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def csv(self) -> bytes:
        """The same as CSV, numbers in full, a missing one empty."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([["" if _is_missing(cell) else cell for cell in row] for row in self.rows])
        return lines.getvalue().encode()


@dataclass(frozen=True)
class Document:
    """One experiment's result.

    Attributes
    ----------
    name
        Of its files.
    data
        What it was made from.
    tables
        Shown in the Markdown, each under its caption.
    records
        The CSV: every number of the tables, once.
    notes
        Below the tables.
    picture
        A PNG file's content.
    """

    name: str
    title: str
    data: str
    tables: tuple[tuple[str, Grid], ...]
    records: Grid
    notes: tuple[str, ...] = ()
    picture: bytes | None = field(default=None, repr=False)

    def markdown(self) -> str:
        """The Markdown file."""
        parts = [f"# {self.title}", f"Data: {self.data}"]
        for caption, grid in self.tables:
            parts += [caption, grid.markdown()] if caption else [grid.markdown()]
        if self.picture is not None:
            parts.append(f"![{self.title}]({self.name}.png)")
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write the files, each whole or not at all; the folder is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = {".md": self.markdown().encode(), ".csv": self.records.csv(), ".png": self.picture}
        written = []
        for ending, content in contents.items():
            if content is not None:
                path = folder / f"{self.name}{ending}"
                write_whole(path, content)
                written.append(path)
        return tuple(written)


def count(number: int, thing: str) -> str:
    """A number with its noun, as in ``1 clip`` and ``2,281 clips``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def spread(mean: float, deviation: float, percent: bool = True) -> str:
    """``mean ± deviation`` in hundredths, as the paper prints them; the deviation of one seed is left out."""
    factor = 100 if percent else 1
    if math.isnan(mean):
        return "–"
    return f"{mean * factor:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation * factor:.2f}")


def _is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _is_number(column: Sequence[Cell]) -> bool:
    return all(isinstance(cell, int | float | None) or cell[:1] in "0123456789-–+↑↓" for cell in column)


def _shown(cell: Cell) -> str:
    if _is_missing(cell):
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
