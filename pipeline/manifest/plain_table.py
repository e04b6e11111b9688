"""A table of clips in which nothing needs a remark, read in a fifth of the time of `loading`.

Large manifests are such tables: UTF-8, the columns of a manifest, paths in plain form, every video there. Whatever
differs is left to the complete reading, which corrects or reports it, so that both give the same clips.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from triptych.pipeline.escaped import has_control
from triptych.pipeline.manifest.clips import SPLITS, Clip, Manifest, path_id
from triptych.pipeline.manifest.columns import COLUMNS, LABELS, column_name
from triptych.pipeline.manifest.files import absolute
from triptych.pipeline.manifest.label_range import LabelRange, guessed, parse_range

_UNUSUAL = re.compile(
    "[\x00-\x08\x0e-\x19\x1b-\x1f]"
)  # characters for which `encoding` considers other encodings
_PLAIN_PATH = re.compile(r"(?!\.{1,2}(/|$))[^/]+(/(?!\.{1,2}(/|$))[^/]+)*")
_SHORTENED = re.compile(r"\d[.,]\d+E\+\d+")  # an id that a spreadsheet has rounded
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


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
    ids: set[str] = set()
    stated: set[str] = set()
    roots: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for record in records:
        if len(record) != len(header):
            if any(cell.strip() for cell in record):
                raise _UnusualError
            continue
        values = dict(zip(header, record, strict=True))
        given = values.get("root", "")
        if (recorded := roots.get(given)) is None:
            recorded = roots[given] = absolute(os.path.join(options.base, given))  # noqa: PTH118
        path = _path(values["path"], recorded)
        own_root = options.root or recorded
        split = values.get("split", "").strip().lower() or None
        clip_id = _id(values, path)
        if (split is not None and split not in SPLITS) or clip_id in ids:
            raise _UnusualError
        if options.check_files and not os.path.isfile(f"{own_root}/{path}"):  # noqa: PTH113
            raise _UnusualError
        ids.add(clip_id)
        stated.add(values.get("label_range", "").strip())
        labels = [_number(values.get(name, ""), numbers) for name in LABELS]
        clips.append(Clip(clip_id, path, values["text"].strip() or None, split, *labels, own_root))
    if not clips:
        raise _UnusualError
    return clips, stated


def _path(path: str, root: str) -> str:
    """Return a path relative to its root."""
    relative = path[len(root) + 1 :] if path.startswith(f"{root}/") else path
    if not _PLAIN_PATH.fullmatch(relative):
        raise _UnusualError
    return relative


def _id(values: dict[str, Any], path: str) -> str:
    parts = [values[name] for name in ("id", "video_id", "clip_id") if name in values]
    if any("/" in part or not part or _SHORTENED.fullmatch(part) for part in parts):
        raise _UnusualError
    clip_id = "$_$".join(parts) if parts else path_id(path)
    if has_control(clip_id if parts else path) or not clip_id:
        raise _UnusualError
    return clip_id


def _number(cell: str, numbers: dict[str, float]) -> float:
    """Return a label, NaN where there is none; equal labels are one object while there are few."""
    cell = cell.strip()
    if not cell:
        return math.nan
    if (number := numbers.get(cell)) is None:
        if not _NUMBER.fullmatch(cell):
            raise _UnusualError
        number = float(cell)
        if len(numbers) < 10_000:
            numbers[cell] = number
    return number


def _range_of(clips: Sequence[Clip], stated: set[str], given: LabelRange | None) -> LabelRange | None:
    """Return the range that was given, that all rows state, or that the labels fit where none is stated."""
    if stated == {""}:
        labels = (getattr(clip, name) for clip in clips for name in LABELS)
        return given or guessed([label for label in labels if label == label])
    own = parse_range(next(iter(stated))) if len(stated) == 1 else None
    return own and (given or own)
