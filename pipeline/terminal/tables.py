"""Tables on stdout: with borders on a terminal, plain aligned columns elsewhere, for `grep` and `awk`."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import click

from triptych.pipeline.escaped import LONGEST, escaped, shown
from triptych.pipeline.terminal.grid import is_missing


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    *,
    longest: int | None = LONGEST,
) -> None:
    """Print rows under a header; numbers are aligned to the right.

    Parameters
    ----------
    longest
        Characters of a cell; longer ones, as a file may have, are cut. None where all text is the program's own.
    """
    cells = [[_text(cell, longest) for cell in row] for row in rows]
    right = [
        all(isinstance(row[column], (int, float, type(None))) for row in rows)
        for column in range(len(header))
    ]
    if sys.stdout.isatty():
        _print_bordered(header, cells, right, title)
        return
    if title:
        click.echo(title)
    widths = [max(_width(cell) for cell in column) for column in zip(header, *cells, strict=True)]
    for row in [list(header), *cells]:
        line = "  ".join(
            " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        click.echo(line.rstrip())


def _print_bordered(header: Sequence[str], cells: list[list[str]], right: list[bool], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for name, to_right in zip(header, right, strict=True):
        table.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console(emoji=False).print(table, markup=False)


def _text(cell: object, longest: int | None) -> str:
    if is_missing(cell):
        return "-"
    text = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return escaped(text) if longest is None else shown(text, longest)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
