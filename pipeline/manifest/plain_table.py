"""A table of clips in which nothing needs a remark, read in a fifth of the time of `loading`.

Large manifests are such tables: UTF-8, the columns of a manifest, paths in plain form, every video there. Whatever
differs is left to the complete reading, which corrects or reports it, so that both give the same clips.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from triptych.pipeline.escaped import has_control
from triptych.pipeline.manifest.clips import SPLITS, Clip, Manifest, path_id
from triptych.pipeline.manifest.columns import COLUMNS, DETAILS, LABELS, column_name
from triptych.pipeline.manifest.files import absolute
from triptych.pipeline.manifest.label_range import LabelRange, guessed, parse_range
from triptych.pipeline.manifest.spans import FACE

_UNUSUAL = re.compile(
    "[\x00-\x08\x0e-\x19\x1b-\x1f]"
)  # characters for which `encoding` considers other encodings
PLAIN_PATH = re.compile(r"(?!\.{1,2}(/|$))[^/]+(/(?!\.{1,2}(/|$))[^/]+)*")
_SHORTENED = re.compile(r"\d[.,]\d+E\+\d+")  # an id that a spreadsheet has rounded
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


BLOCK = 10_000  # rows whose cells are in memory at a time
T = TypeVar("T")


class _UnusualError(Exception):
    """The table needs the complete reading."""


class _Options(NamedTuple):
    base: str
    root: str | None
    check_files: bool


def read_plain_table(
    source: Path, root: Path | None, check_files: bool, label_range: LabelRange | None
) -> Manifest | None:
    """Read a table; None where it needs the complete reading, `loading.load_manifest`, whose arguments these are."""
    if source.suffix.lower() != ".csv" or not source.is_file():
        return None
    options = _Options(absolute(source.parent), None if root is None else absolute(root), check_files)
    try:
        (options.root or options.base).encode()  # raises an error where a folder's name is not UTF-8
        with source.open(encoding="utf-8-sig", errors="strict", newline="") as lines:
            reader = csv.reader(_usual(lines), strict=True)
            header = [column_name(name) for name in next(reader, [])]
            _check_header(header)
            clips, stated = _read_clips(reader, header, options)
    except (OSError, ValueError, csv.Error, _UnusualError):
        return None
    labels_in = _range_of(clips, stated, label_range)
    low, high = labels_in or (0.0, 0.0)
    labels = (getattr(clip, name) for clip in clips for name in LABELS)
    if labels_in is None or any(not low <= label <= high for label in labels if label == label):
        return None
    return Manifest(tuple(clips), labels_in)


def _usual(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if _UNUSUAL.search(line) or (number == 0 and '"' in line):
            raise _UnusualError
        yield line


def _check_header(header: Sequence[str]) -> None:
    """Refuse columns that are unknown, given twice or missing, and two ways to give an id."""
    names = set(header)
    ids = names & {"id", "video_id", "clip_id"}
    known = len(names) == len(header) and names <= set(COLUMNS) and {"path", "text"} <= names
    if not known or ids not in (set(), {"id"}, {"video_id", "clip_id"}):
        raise _UnusualError


def _read_clips(
    records: Iterator[list[str]], header: Sequence[str], options: _Options
) -> tuple[list[Clip], set[str]]:
    """Return the clips, and the different cells of the column ``label_range``."""
    clips: list[Clip] = []
    stated: set[str] = set()
    while block := list(islice(records, BLOCK)):
        if any(len(record) != len(header) for record in block):
            block = [record for record in block if any(cell.strip() for cell in record)]
            if not block:
                continue
        columns = dict(zip(header, zip(*block, strict=True), strict=True))
        stated.update(map(str.strip, columns.get("label_range", ("",))))
        clips += _clips(columns, len(block), options)
    if not clips or len({clip.id for clip in clips}) < len(clips):
        raise _UnusualError
    return clips, stated


def _clips(columns: Mapping[str, Sequence[str]], count: int, options: _Options) -> Iterator[Clip]:
    """Check columns as a whole, and make clips of them."""
    empty = ("",) * count
    roots = _converted(columns.get("root", empty), lambda cell: _root(cell, options.base))
    paths = list(map(_path, columns["path"], roots))
    own_roots = roots if options.root is None else [options.root] * count
    if options.check_files and not all(map(_is_file, own_roots, paths)):
        raise _UnusualError
    return map(
        Clip,
        _ids(columns, paths),
        paths,
        (text.strip() or None for text in columns["text"]),
        _converted(columns.get("split", empty), _split),
        *(_converted(columns.get(name, empty), _label) for name in LABELS),
        own_roots,
        *(_details(columns, count) if not columns.keys().isdisjoint(DETAILS) else ()),
    )


def _details(columns: Mapping[str, Sequence[str]], count: int) -> Iterator[Sequence[Any]]:
    """Yield the columns that most tables do not have."""
    empty = ("",) * count
    starts, ends = (_converted(columns.get(name, empty), _seconds) for name in ("start", "end"))
    if any(end is not None and (start or 0.0) >= end for start, end in zip(starts, ends, strict=True)):
        raise _UnusualError
    yield from (starts, ends)
    yield _converted(columns.get("face", empty), _face)
    yield _converted(columns.get("text_source", empty), _text_source)
    confidences = _converted(columns.get("text_confidence", empty), _label)
    if any(not 0 <= confidence <= 1 for confidence in confidences if confidence == confidence):
        raise _UnusualError
    yield confidences


def _seconds(cell: str) -> float | None:
    seconds = _label(cell)
    if seconds < 0 or seconds == math.inf:
        raise _UnusualError
    return None if seconds != seconds else seconds


def _face(cell: str) -> str | None:
    cell = cell.strip()
    if cell and not FACE.fullmatch(cell):
        raise _UnusualError
    return cell or None


def _text_source(cell: str) -> str | None:
    cell = cell.strip()
    if has_control(cell):
        raise _UnusualError
    return sys.intern(cell) or None


def _converted(cells: Sequence[str], convert: Callable[[str], T]) -> list[T]:
    """Convert each different cell once: equal ones give one object."""
    converted = {cell: convert(cell) for cell in set(cells)}
    return [converted[cell] for cell in cells]


def _root(cell: str, base: str) -> str:
    root = absolute(os.path.join(base, cell))  # noqa: PTH118
    root.encode()  # raises an error where the base is not UTF-8
    return sys.intern(root)


def _is_file(root: str, path: str) -> bool:
    return os.path.isfile(f"{root}/{path}")  # noqa: PTH113 - Path objects are far slower


def _path(path: str, root: str) -> str:
    """Return a path relative to its root."""
    relative = path[len(root) + 1 :] if path.startswith(f"{root}/") else path
    if not PLAIN_PATH.fullmatch(relative):
        raise _UnusualError
    return relative


def _split(cell: str) -> str | None:
    split = cell.strip().lower()
    if split and split not in SPLITS:
        raise _UnusualError
    return sys.intern(split) or None


def _label(cell: str) -> float:
    """Return a label, NaN where there is none."""
    cell = cell.strip()
    if cell and not _NUMBER.fullmatch(cell):
        raise _UnusualError
    return float(cell) if cell else math.nan


def _ids(columns: Mapping[str, Sequence[str]], paths: Sequence[str]) -> list[str]:
    parts = [columns[name] for name in ("id", "video_id", "clip_id") if name in columns]
    ids = (
        ["$_$".join(of_clip) for of_clip in zip(*parts, strict=True)] if parts else list(map(path_id, paths))
    )
    whole = "".join(ids if parts else paths)
    unusual = not all(map(all, parts)) or not all(ids) or has_control(whole)
    if unusual or any("/" in part or _SHORTENED.fullmatch(part) for column in parts for part in column):
        raise _UnusualError
    return ids


def _range_of(clips: Sequence[Clip], stated: set[str], given: LabelRange | None) -> LabelRange | None:
    """Return the range that was given, that all rows state, or that the labels fit where none is stated."""
    if stated == {""}:
        labels = (getattr(clip, name) for clip in clips for name in LABELS)
        return given or guessed([label for label in labels if label == label])
    own = parse_range(next(iter(stated))) if len(stated) == 1 else None
    return own and (given or own)
