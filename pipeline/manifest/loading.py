"""Read and check the clips of any SOURCE."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import escaped, has_control, quoted
from triptych.pipeline.manifest.clips import SPLITS, Clip, Manifest, path_id
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.files import absolute
from triptych.pipeline.manifest.label_range import LabelRange, find_range
from triptych.pipeline.manifest.missing import MissingVideos
from triptych.pipeline.manifest.plain_table import PLAIN_PATH, read_plain_table
from triptych.pipeline.manifest.rows import Row
from triptych.pipeline.manifest.sources import read_labels, read_sources
from triptych.pipeline.manifest.spans import read_face, read_span
from triptych.pipeline.processes.collection import collection_paused

LISTED = 100  # problems that one message lists


@collection_paused()
def load_manifest(
    source: Path | Sequence[Path],
    *,
    root: Path | None = None,
    check_files: bool = True,
    labels_only: bool = False,
    label_range: LabelRange | None = None,
) -> Manifest:
    """Read one SOURCE or several: folders, tables, media files, or patterns of them.

    A folder with a table of labels is a data set in a known layout. `manifests/README.md` describes all sources. A row
    whose video is missing is reported and stays, so that this clip alone fails, unless no video of the table exists.

    Parameters
    ----------
    source
        The folders or files.
    root
        Folder of the files, instead of the root that the source gives.
    check_files
        Whether missing videos are reported.
    labels_only
        Videos are not needed: a clip's file may be missing, or even its path, which is then empty.
    label_range
        Lowest and highest possible label; by default the source's own, else one that the labels fit.

    Raises
    ------
    InputError
        The source is invalid; every problem is listed with its file, its line and the remedy.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    if len(sources) == 1 and not labels_only:
        plain = read_plain_table(sources[0], root, check_files, label_range)
        if plain is not None:
            return plain
    found = read_labels(sources[0]) if labels_only else read_sources(sources)
    problems = found.problems
    labels_in = find_range(found.rows, label_range, problems)
    clips: list[Clip] = []
    origins: dict[str, str] = {}
    missing = MissingVideos()
    for row in found.rows:
        clip, row_problems = _read_row(row, found.root, root, labels_only, labels_in)
        if clip.id in origins:
            row_problems.append(
                f"id {quoted(clip.id)} is already used by {origins[clip.id]}; rename one of the two"
            )
        elif clip.id:
            origins[clip.id] = row.origin
        if check_files and not labels_only and clip.path and not row.listed:
            row_problems += missing.check(row, clip.root, clip.path)
        clips.append(clip)
        problems += [f"{row.origin}: {problem}" for problem in row_problems]
    problems += missing.report()
    if not clips and not problems:
        problems.append(f"{', '.join(map(str, sources))}: has no clips; add a row for each video")
    if problems:
        raise InputError(_printable(problems))
    return Manifest(tuple(clips), labels_in)


def _read_row(
    row: Row, base: str, new_root: Path | None, labels_only: bool, labels_in: LabelRange
) -> tuple[Clip, list[str]]:
    """Check one row; the clip and the row's problems. An invalid id or path is left empty."""
    values, problems = row.values, list[str]()
    text = _text(values, "text", problems, optional=True)
    split = _text(values, "split", problems, optional=True)
    if split is not None and split.lower() not in SPLITS:
        remedy = "valid" if split.lower() in ("val", "dev", "validation") else "train, valid or test"
        problems.append(f"split = {_short(split)}: unknown; write {remedy}, or leave it empty")
    labels = {name: _label(values, name, labels_in, problems) for name in LABELS}
    recorded = _text(values, "root", problems, optional=True)
    root = absolute(os.path.join(base, recorded or ""))  # noqa: PTH118 - Path objects are far slower
    path = ""
    if "path" not in values:
        problems += [] if labels_only else [row.no_path]
    elif stated := _text(values, "path", problems):
        path = _relative(stated, root, problems)
    start, end = read_span(values, problems)
    clip = Clip(
        id=_id(values, path, problems),
        path=path,
        text=(text or "").strip() or None,
        split=split and split.lower(),
        **labels,
        root=root if new_root is None else absolute(new_root),
        start=start,
        end=end,
        face=read_face(values, problems),
        text_source=_text_source(values, problems),
        text_confidence=_confidence(values, problems),
    )
    if not _encodable(clip.root):
        problems.append(f"root = {quoted(clip.root)}: not valid UTF-8; rename the folder")
    return clip, problems


def _text(values: dict[str, Any], name: str, problems: list[str], *, optional: bool = False) -> str | None:
    """A value that must be text; None, and a problem is added, where it is not."""
    value = values.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, str):
        remedy = (
            "in quotes, so that 0001 keeps its zeros" if isinstance(value, int | float) else "as a string"
        )
        problems.append(f"{name} = {_short(value)}: not text; write it {remedy}")
    elif "\0" in value or not _encodable(value):
        problems.append(f"{name} = {_short(value)}: contains NUL or is not valid UTF-8; correct it")
    elif not value and name != "text":
        problems.append(f"{name} is empty; fill it in" + (", or remove the column" if name != "path" else ""))
    else:
        return value
    return None


def _text_source(values: dict[str, Any], problems: list[str]) -> str | None:
    source = _text(values, "text_source", problems, optional=True)
    return source if source is None else _checked_id("text_source", source, problems) or None


def _confidence(values: dict[str, Any], problems: list[str]) -> float:
    value = values.get("text_confidence")
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        problems.append(f"text_confidence = {_short(value)}: write a number from 0 to 1, or leave it empty")
        return math.nan
    return float(value)


def _label(values: dict[str, Any], name: str, labels_in: LabelRange, problems: list[str]) -> float:
    value = values.get(name)
    low, high = labels_in
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.append(
            f"{name} = {_short(value)}: not a number; write one in [{low:g}, {high:g}], or leave it empty"
        )
    elif not low <= value <= high:
        problems.append(
            f"{name} = {_short(value)}: outside [{low:g}, {high:g}]; correct it, or name the range: "
            "--label-range LOW HIGH"
        )
    else:
        return float(value)
    return math.nan


def _relative(path: str, root: str, problems: list[str]) -> str:
    """The path relative to `root`; empty, and a problem is added, where it leads elsewhere."""
    if PLAIN_PATH.fullmatch(path):
        return path
    pure = PurePosixPath(path)
    inside = ".." not in pure.parts and pure.name != ""
    if inside and not pure.is_absolute():
        return str(pure)
    if inside and pure.is_relative_to(root) and str(pure) != root:
        return str(pure.relative_to(root))
    problems.append(
        f"path = {quoted(path)}: outside the root {root}; add a column root that names the folder of all videos"
    )
    return ""


def _id(values: dict[str, Any], path: str, problems: list[str]) -> str:
    """The id that a row gives, or else that of its path, which no folder above the root is part of.

    Empty where it is invalid.
    """
    stated = {
        name: _id_part(values, name, problems) for name in ("id", "video_id", "clip_id") if name in values
    }
    if ("video_id" in stated) != ("clip_id" in stated):
        problems.append("video_id and clip_id belong together; give both or neither")
        return ""
    if not all(stated.values()):
        return ""
    if not stated:
        return path_id(_checked_id("path", path, problems)) if path else ""
    joined = "$_$".join(stated[name] for name in ("video_id", "clip_id") if name in stated)
    if "id" in stated and joined and stated["id"] != joined:
        problems.append(
            f"id = {quoted(stated['id'])}: differs from {quoted(joined)}, which video_id and clip_id give; "
            "correct or remove one of them"
        )
    return stated.get("id", joined)


def _id_part(values: dict[str, Any], name: str, problems: list[str]) -> str:
    part = _text(values, name, problems) or ""
    if re.fullmatch(r"\d[.,]\d+E\+\d+", part):
        problems.append(
            f"{name} = {quoted(part)}: shortened by a spreadsheet; give the column the format Text, and "
            "enter the ids again"
        )
        return ""
    if "/" not in part:
        return _checked_id(name, part, problems)
    problems.append(f"{name} = {quoted(part)}: an id must not contain '/'; remove it")
    return ""


def _checked_id(name: str, part: str, problems: list[str]) -> str:
    if not has_control(part):
        return part
    problems.append(
        f"{name} = {quoted(part)}: an id must not contain line breaks, control characters or codes that change the "
        f"direction of text; {'rename the file, or name the clip in a column id' if name == 'path' else 'remove them'}"
    )
    return ""


def _encodable(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None


def _short(value: object) -> str:
    return quoted(value, 60)


def _printable(problems: list[str]) -> list[str]:
    """The first problems, with codes that change the terminal, and surrogates of file names, as escapes."""
    shown = problems[:LISTED]
    if len(problems) > LISTED:
        shown.append(f"... and {len(problems) - LISTED} more problems")
    return [escaped(problem) for problem in shown]
