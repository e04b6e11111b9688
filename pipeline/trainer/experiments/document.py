"""An experiment's result as files: Markdown, CSV and, where there is a figure, PNG."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.terminal.grid import Grid


@dataclass(frozen=True)
class Document:
    """One experiment's result.

    Attributes
    ----------
    name
        Name of its files, without their endings.
    data
        The data that it was made from, in a sentence.
    tables
        Tables of the Markdown file, each under its caption.
    records
        The CSV file: every number of the tables, once.
    notes
        Notes below the tables.
    figure
        Content of a PNG file.
    """

    name: str
    title: str
    data: str
    tables: tuple[tuple[str, Grid], ...]
    records: Grid
    notes: tuple[str, ...] = ()
    figure: bytes | None = field(default=None, repr=False)

    def markdown(self) -> str:
        """Return the content of the Markdown file."""
        parts = [f"# {self.title}", f"Data: {self.data}"]
        for caption, grid in self.tables:
            parts += [caption, grid.markdown()] if caption else [grid.markdown()]
        if self.figure is not None:
            parts.append(f"![{self.title}]({self.name}.png)")
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write the files, each atomically; the folder is created where missing."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = {".md": self.markdown().encode(), ".csv": self.records.csv(), ".png": self.figure}
        written = []
        for ending, content in contents.items():
            if content is not None:
                path = folder / f"{self.name}{ending}"
                write_whole(path, content)
                written.append(path)
        return tuple(written)


def count(number: int, thing: str) -> str:
    """Return a number with its noun, as in ``1 clip`` and ``2,281 clips``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def spread(mean: float, std: float, percent: bool = True) -> str:
    """Return ``mean ± standard deviation`` in hundredths, as the paper prints them; one seed has no deviation."""
    factor = 100 if percent else 1
    if math.isnan(mean):
        return "–"
    return f"{mean * factor:.2f}" + ("" if math.isnan(std) else f" ± {std * factor:.2f}")
