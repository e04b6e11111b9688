"""What every kind of SOURCE is read into: rows of one form, that of a line of a JSONL manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from triptych.pipeline.escaped import quoted


@dataclass(frozen=True)
class Row:
    """One clip as its source gives it, unchecked.

    Attributes
    ----------
    origin
        The file, with the line where there is one, as messages name it.
    values
        Values by column, with the types of JSON: a missing text, split, label or root is None.
    no_path
        The problem to report where `values` has no path.
    not_found
        The problem where the video was searched for and not found; the path is then where it should be.
    listed
        The path is an entry of a folder that was read, so that it needs no check; if it is a broken link or no file,
        the clip fails by itself.
    """

    origin: str
    values: dict[str, Any]
    no_path: str = "column path is missing; add the video's path, relative to the root"
    not_found: str = ""
    listed: bool = False


@dataclass
class Source:
    """The content of a SOURCE: its rows, the folder that its paths are relative to, and its problems."""

    root: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def some(names: Sequence[str]) -> str:
    """Name the first five for a message."""
    shown = ", ".join(map(quoted, names[:5]))
    return shown if len(names) <= 5 else f"{shown}, ..."
