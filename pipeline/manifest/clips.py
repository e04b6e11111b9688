"""The clips of a run, with ids, paths, transcripts, splits and labels: read, check, merge, write."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import escaped, has_control, quoted
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.files import absolute
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange, find_range, format_range
from triptych.pipeline.manifest.missing import MissingVideos
from triptych.pipeline.manifest.rows import Row
from triptych.pipeline.manifest.sources import read_labels, read_sources
from triptych.pipeline.manifest.tables import cells

SPLITS = ("train", "valid", "test")
LISTED = 100  # problems that one message lists


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip. Two clips are equal when all fields are; a missing label equals a missing label.

    Attributes
    ----------
    id
        ``video$_$clip``, as in CH-SIMS and its code.
    path
        The media file, relative to `root`, its folders separated by ``/``.
    text
        The transcript; None if there is none.
    split
        ``train``, ``valid``, ``test`` or None.
    label, label_T, label_A, label_V
        Sentiment of the whole clip, and of its text, audio and video alone, in the manifest's range; NaN where missing.
    root
        Absolute path of the folder that `path` is relative to.
    """

    id: str
    path: str
    text: str | None
    split: str | None
    label: float
    label_T: float
    label_A: float
    label_V: float
    root: str

    @property
    def file(self) -> Path:
        """The media file."""
        return Path(self.root, self.path)

    def _comparable(self) -> tuple[object, ...]:
        values = (getattr(self, column.name) for column in fields(self))
        return tuple("missing" if value != value else value for value in values)  # NaN is not equal to itself

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clip) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())


@dataclass(frozen=True)
class Manifest:
    """Clips in the order of their source; each id occurs once.

    Attributes
    ----------
    label_range
        Lowest and highest possible label.
    """

    clips: tuple[Clip, ...]
    label_range: LabelRange = DEFAULT

    @property
    def has_labels(self) -> bool:
        """Whether any clip has a label."""
        return any(not math.isnan(getattr(clip, name)) for clip in self.clips for name in LABELS)

    def merged(self, other: Manifest) -> Manifest:
        """Add the clips of another manifest; its row replaces the row of the same id.

        A split or label that is missing in the new row stays: a plain folder of videos has none, and reading
        it again must not remove those that a manifest gave.

        Raises
        ------
        InputError
            Both have labels, in different ranges.
        """
        label_range = other.label_range if other.has_labels else self.label_range
        if self.has_labels and label_range != self.label_range:
            raise InputError(
                f"labels from {format_range(label_range)} cannot be added to labels from "
                f"{format_range(self.label_range)}; use another folder, or name the range by --label-range"
            )
        clips = {clip.id: clip for clip in self.clips}
        for clip in other.clips:
            clips[clip.id] = clip if clip.id not in clips else _completed(clip, clips[clip.id])
        return replace(self, clips=tuple(clips.values()), label_range=label_range)

    def without_splits(self) -> Manifest:
        """Remove the split of every clip."""
        return replace(self, clips=tuple(replace(clip, split=None) for clip in self.clips))


def _completed(clip: Clip, old: Clip) -> Clip:
    labels = {name: getattr(old, name) for name in LABELS if math.isnan(getattr(clip, name))}
    return replace(clip, split=clip.split or old.split, **labels)


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


def load_transcripts(file: Path) -> dict[str, str | None]:
    """Read only the ids and transcripts of a manifest, in an eighth of `load_manifest`'s time.

    A manifest that `write_manifest` wrote is read without checks; any other file goes through `load_manifest`.

    Raises
    ------
    InputError
        The manifest is invalid.
    """
    problems: list[str] = []
    rows = [record for _, record in cells(file, problems)]
    names = [column.name for column in fields(Clip)]
    written = rows and rows[0] in (names, [*names, "label_range"])
    if problems or not written or any(len(row) != len(rows[0]) for row in rows):
        return {clip.id: clip.text for clip in load_manifest(file, check_files=False).clips}
    id_column, text_column = names.index("id"), names.index("text")
    return {row[id_column]: row[text_column].strip() or None for row in rows[1:]}


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
    clip = Clip(
        id=_id(values, path, problems),
        path=path,
        text=(text or "").strip() or None,
        split=split and split.lower(),
        **labels,
        root=root if new_root is None else absolute(new_root),
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


def path_id(path: str) -> str:
    """Return the id of a path: ``<folder>$_$<stem>``, or ``<stem>`` directly in the root."""
    pure = PurePosixPath(path)
    return f"{pure.parent.name}$_${pure.stem}" if pure.parent.name else pure.stem


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


def write_manifest(manifest: Manifest, file: Path | TextIO) -> None:
    """Write a manifest as CSV in UTF-8; `load_manifest` reads an equal one from it.

    A file appears complete or not at all.

    Raises
    ------
    InputError
        The path does not end in ``.csv``, or cannot be written.
    """
    if not isinstance(file, Path):
        file.writelines(_csv_lines(manifest))
        return
    if file.suffix.lower() != ".csv":
        raise InputError(f"{file}: a manifest is written as CSV; choose a name that ends in .csv")
    try:
        write_whole(file, "".join(_csv_lines(manifest)).encode())
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); check the folder and its permissions"
        ) from error


def _csv_lines(manifest: Manifest) -> Iterator[str]:
    names = [column.name for column in fields(Clip)]
    # Most data sets are in the default range, and their manifests need no word of it.
    extra = [] if manifest.label_range == DEFAULT else [format_range(manifest.label_range)]
    yield ",".join([*names, *["label_range"] * len(extra)]) + "\n"
    for clip in manifest.clips:
        yield ",".join([*(_cell(getattr(clip, name)) for name in names), *extra]) + "\n"


def _cell(value: str | float | None) -> str:
    if value is None or value != value:
        return ""
    cell = value if isinstance(value, str) else repr(value)
    # Not csv.writer: before Python 3.13 it leaves a carriage return unquoted.
    return '"' + cell.replace('"', '""') + '"' if re.search('[,"\r\n]', cell) else cell
