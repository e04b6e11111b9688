"""Tables on stdout: fitted to the terminal's width, and in full elsewhere, for `grep` and `awk`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click
from rich.cells import cell_len, chop_cells

from triptych.pipeline.escaped import LONGEST, escaped, shown
from triptych.pipeline.terminal.grid import is_missing

GAP = 2  # cells between columns
NARROWEST = 8  # a column is not made narrower than this
ELLIPSIS = "…"


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    *,
    longest: int | None = LONGEST,
) -> None:
    """Print rows under a header; numbers are aligned to the right.

    On a terminal that is too narrow, sentences are wrapped, and names and paths are shortened in the middle.

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
    terminal = sys.stdout.isatty()
    if title:
        click.secho(title, bold=True)
    columns = [list(column) for column in zip(header, *cells, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    if terminal:
        widths = fitted(columns, widths, shutil.get_terminal_size().columns)
    for number, row in enumerate([list(header), *cells]):
        for line in laid_out(row, widths, right):
            click.secho(line, bold=True) if terminal and number == 0 else click.echo(line)


def fitted(columns: Sequence[Sequence[str]], widths: Sequence[int], available: int) -> list[int]:
    """Make the widest columns narrower until all fit.

    Parameters
    ----------
    columns
        The cells of each column, the header first.
    widths
        What each column needs [cells of the terminal].
    available
        The terminal's width [cells].

    Returns
    -------
    list of int
        Widths whose sum, with gaps, is at most `available`, if columns of `NARROWEST` cells can do that.
    """
    least = [min(width, max(NARROWEST, _word(column))) for column, width in zip(columns, widths, strict=True)]
    found, excess = list(widths), sum(widths) + GAP * (len(widths) - 1) - available
    for _ in range(excess):
        wide = [column for column in range(len(found)) if found[column] > least[column]]
        if not wide:
            break
        found[max(wide, key=lambda column: found[column])] -= 1
    return found


def _word(column: Sequence[str]) -> int:
    """Return the longest word of a header, and of cells that are no sentence and short, such as numbers."""
    header, *cells = column
    short = [cell_len(cell) for cell in cells if cell_len(cell) <= NARROWEST]
    return max([*map(cell_len, header.split()), *short], default=0)


def laid_out(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """Return the lines of a row: several where a cell is wrapped."""
    parts = [_parts(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, parts))):
        padded = []
        for part, width, to_right in zip(parts, widths, right, strict=True):
            text = part[number] if number < len(part) else ""
            space = " " * (width - cell_len(text))
            padded.append(space + text if to_right else text + space)
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _parts(cell: str, width: int) -> list[str]:
    if cell_len(cell) <= width:
        return [cell]
    return wrapped(cell, width) if " " in cell else [elided(cell, width)]


def wrapped(text: str, width: int) -> list[str]:
    """Break a sentence at spaces into lines of at most `width` cells; a longer word is divided."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += chop_cells(word, width)
    return [line for line in lines if line] or [""]


def elided(name: str, width: int) -> str:
    """Shorten a name to `width` cells in the middle: its beginning and its end distinguish it."""
    if cell_len(name) <= width:
        return name
    tail = ""
    for character in reversed(name):
        if cell_len(tail) + cell_len(character) > (width - 1) // 2:
            break
        tail = character + tail
    head = ""
    for character in name:
        if cell_len(head) + cell_len(character) > width - 1 - cell_len(tail):
            break
        head += character
    return head + ELLIPSIS + tail


def _text(cell: object, longest: int | None) -> str:
    if is_missing(cell):
        return "-"
    text = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return escaped(text) if longest is None else shown(text, longest)
