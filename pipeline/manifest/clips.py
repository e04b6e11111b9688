"""The clips of a run: ids, paths, transcripts, splits and labels; read, checked, merged, written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.csv_text import LABELS, cells
from triptych.pipeline.manifest.sources import Row, absolute, read_labels, read_source

SPLITS = ("train", "valid", "test")
SHOWN = 100  # mistakes that a message lists


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip. Two clips are equal when every field is, a missing label being equal to a missing label.

    Attributes
    ----------
    id
        ``video$_$clip``, as CH-SIMS and its code write it.
    path
        The video file, relative to `root`, its folders separated by ``/``.
    text
        The transcript; None where there is none.
    split
        ``train``, ``valid``, ``test`` or None.
    label, label_T, label_A, label_V
        Sentiment in [-1, 1] of the whole clip, and of its text, sound and picture alone; NaN where missing.
    root
        Absolute path of the folder that `path` starts from.
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
        """The video file."""
        return Path(self.root, self.path)

    def _comparable(self) -> tuple[object, ...]:
        values = (getattr(self, column.name) for column in fields(self))
        return tuple("missing" if value != value else value for value in values)  # NaN differs from itself

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clip) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())


@dataclass(frozen=True)
class Manifest:
    """Clips in the order of their source, each id once."""

    clips: tuple[Clip, ...]

    def merged(self, other: Manifest) -> Manifest:
        """Add another's clips; where both have an id, the other's row takes the old one's place.

        A split or label that the other row lacks stays: a plain folder of videos knows none, and giving
        it again must not undo what a manifest said.
        """
        clips = {clip.id: clip for clip in self.clips}
        for clip in other.clips:
            clips[clip.id] = clip if clip.id not in clips else _completed(clip, clips[clip.id])
        return Manifest(tuple(clips.values()))

    def without_splits(self) -> Manifest:
        """Forget which split each clip is in."""
        return Manifest(tuple(replace(clip, split=None) for clip in self.clips))

    def rerooted(self, root: Path) -> Manifest:
        """Move every clip's root, for files that another machine or container sees elsewhere."""
        return Manifest(tuple(replace(clip, root=absolute(root)) for clip in self.clips))


def _completed(clip: Clip, old: Clip) -> Clip:
    labels = {name: getattr(old, name) for name in LABELS if math.isnan(getattr(clip, name))}
    return replace(clip, split=clip.split or old.split, **labels)


def load_manifest(
    source: Path, *, root: Path | None = None, check_files: bool = True, labels_only: bool = False
) -> Manifest:
    """Read a SOURCE: a folder in CH-SIMS layout, a folder of videos, or a CSV, TSV or JSONL manifest.

    A folder that holds a `label.csv` is in CH-SIMS layout. `manifests/README.md` describes a manifest.

    Parameters
    ----------
    source
        The folder or the file.
    root
        Where the files are now, in place of the root that the source gives.
    check_files
        Whether a video that is not there is a mistake.
    labels_only
        Videos are not needed: a clip may lack its file, or even its path, which is then empty.

    Raises
    ------
    InputError
        The source has mistakes: all of them, each with its file, its line and the remedy.
    """
    found = read_labels(source) if labels_only else read_source(source)
    mistakes = found.mistakes
    clips: list[Clip] = []
    places: dict[str, str] = {}
    roots: dict[str, bool] = {}
    for row in found.rows:
        clip, problems = _read_row(row, found.root, root, labels_only)
        if clip.id in places:
            problems.append(f"id {clip.id!r} is also that of {places[clip.id]}; rename one of the two")
        elif clip.id:
            places[clip.id] = row.place
        if check_files and not labels_only and clip.path:
            problems += _file_problems(clip, roots)
        clips.append(clip)
        mistakes += [f"{row.place}: {problem}" for problem in problems]
    if not clips and not mistakes:
        mistakes.append(f"{source}: holds no clips; add a row for each video")
    if mistakes:
        raise InputError(_printable(mistakes))
    return Manifest(tuple(clips))


def load_transcripts(file: Path) -> dict[str, str | None]:
    """Read clip ids and transcripts alone of a manifest, in an eighth of `load_manifest`'s time.

    What `write_manifest` wrote is believed; anything else is read, and its mistakes named, by `load_manifest`.

    Raises
    ------
    InputError
        The manifest has mistakes.
    """
    mistakes: list[str] = []
    rows = [record for _, record in cells(file, ",", mistakes)]
    names = [column.name for column in fields(Clip)]
    if mistakes or not rows or rows[0] != names or any(len(row) != len(names) for row in rows):
        return {clip.id: clip.text for clip in load_manifest(file, check_files=False).clips}
    at_id, at_text = names.index("id"), names.index("text")
    return {row[at_id]: row[at_text].strip() or None for row in rows[1:]}


def _read_row(row: Row, base: str, new_root: Path | None, labels_only: bool) -> tuple[Clip, list[str]]:
    """Check one row; what is wrong with it, and a clip, whose id or path is empty where that is wrong."""
    values, problems = row.values, list[str]()
    text = _text(values, "text", problems, optional=True)
    split = _text(values, "split", problems, optional=True)
    if split is not None and split.lower() not in SPLITS:
        meant = "valid" if split.lower() in ("val", "dev", "validation") else "train, valid or test"
        problems.append(f"split = {_short(split)}: unknown; write {meant}, or leave it empty")
    labels = {name: _label(values, name, problems) for name in LABELS}
    recorded = _text(values, "root", problems, optional=True)
    root = absolute(os.path.join(base, recorded or ""))  # noqa: PTH118 - a Path each takes far longer
    path = ""
    if "path" not in values:
        problems += [] if labels_only else [row.no_path]
    elif stated := _text(values, "path", problems):
        path = _relative(stated, root, problems)
    clip = Clip(
        id=_id(values, f"{root}/{path}" if path else "", problems),
        path=path,
        text=(text or "").strip() or None,
        split=split and split.lower(),
        **labels,
        root=root if new_root is None else absolute(new_root),
    )
    if not _encodable(clip.root):
        problems.append(f"root = {clip.root!r}: the name is not UTF-8; rename the folder")
    return clip, problems


def _text(values: dict[str, Any], name: str, problems: list[str], *, optional: bool = False) -> str | None:
    """A value that must be text, or None with a problem noted."""
    value = values.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, str):
        remedy = "; put it in quotes, so that 0001 keeps its zeros" if isinstance(value, int | float) else ""
        problems.append(f"{name} = {_short(value)}: not text{remedy}")
    elif "\0" in value or not _encodable(value):
        problems.append(f"{name} = {_short(value)}: holds a NUL or is not UTF-8; rename or mend it")
    elif not value and name != "text":
        problems.append(
            f"{name} is empty; fill it in" + (", or leave the column out" if name != "path" else "")
        )
    else:
        return value
    return None


def _label(values: dict[str, Any], name: str, problems: list[str]) -> float:
    value = values.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.append(f"{name} = {_short(value)}: not a number; give one in [-1, 1], or leave it empty")
    elif not -1 <= value <= 1:
        problems.append(f"{name} = {_short(value)}: outside [-1, 1]; scale the labels to that range")
    else:
        return float(value)
    return math.nan


def _relative(path: str, root: str, problems: list[str]) -> str:
    """The path from `root` on; empty, and a problem noted, where it leads elsewhere."""
    pure = PurePosixPath(path)
    inside = ".." not in pure.parts and pure.name != ""
    if inside and not pure.is_absolute():
        return str(pure)
    if inside and pure.is_relative_to(root) and str(pure) != root:
        return str(pure.relative_to(root))
    problems.append(
        f"path = {path!r}: outside the root {root}; name the folder that holds all videos in a column root"
    )
    return ""


def _id(values: dict[str, Any], file: str, problems: list[str]) -> str:
    """The id a row states, or else that of its file, ``<its folder>$_$<its stem>``; empty where wrong."""
    stated = {
        name: _id_part(values, name, problems) for name in ("id", "video_id", "clip_id") if name in values
    }
    if ("video_id" in stated) != ("clip_id" in stated):
        problems.append("video_id and clip_id go together; give both or neither")
        return ""
    if not all(stated.values()):
        return ""
    if not stated:
        pure = PurePosixPath(file)
        return f"{pure.parent.name}$_${pure.stem}" if file else ""
    joined = "$_$".join(stated[name] for name in ("video_id", "clip_id") if name in stated)
    if "id" in stated and joined and stated["id"] != joined:
        problems.append(
            f"id = {stated['id']!r}: video_id and clip_id make it {joined!r}; keep one of the two"
        )
    return stated.get("id", joined)


def _id_part(values: dict[str, Any], name: str, problems: list[str]) -> str:
    part = _text(values, name, problems) or ""
    if "/" not in part:
        return part
    problems.append(f"{name} = {part!r}: an id has no '/'; take it out")
    return ""


def _file_problems(clip: Clip, roots: dict[str, bool]) -> list[str]:
    """Whether the video is there. A root that is not there is said once: `roots` keeps those looked for."""
    if clip.root not in roots:
        roots[clip.root] = os.path.isdir(clip.root)  # noqa: PTH112
        if not roots[clip.root]:
            return [
                f"no folder {clip.root}, from which the paths start; mend the column root, or give the root"
            ]
    file = f"{clip.root}/{clip.path}"
    if not roots[clip.root] or os.path.isfile(file):  # noqa: PTH113 - a Path each takes far longer
        return []
    remedy = "separate folders by '/'" if "\\" in clip.path else "add it, mend the path or remove the row"
    return [f"no file {file}; {remedy}"]


def _encodable(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _printable(mistakes: list[str]) -> list[str]:
    """As many mistakes as one can read, without the surrogates of file names that are not UTF-8."""
    shown = mistakes[:SHOWN]
    if len(mistakes) > SHOWN:
        shown.append(f"... and {len(mistakes) - SHOWN} more mistakes")
    return [mistake.encode("utf-8", "backslashreplace").decode("utf-8") for mistake in shown]


def write_manifest(manifest: Manifest, file: Path | TextIO) -> None:
    """Write a manifest as CSV in UTF-8; `load_manifest` gives an equal one back.

    A path is written whole or not at all.

    Raises
    ------
    InputError
        The path does not end in ``.csv``, or cannot be written.
    """
    if not isinstance(file, Path):
        file.writelines(_csv_lines(manifest))
        return
    if file.suffix.lower() != ".csv":
        raise InputError(f"{file}: a manifest is written as CSV; give a name that ends in .csv")
    try:
        write_whole(file, "".join(_csv_lines(manifest)).encode())
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); check the folder and its permissions"
        ) from error


def _csv_lines(manifest: Manifest) -> Iterator[str]:
    names = [column.name for column in fields(Clip)]
    yield ",".join(names) + "\n"
    for clip in manifest.clips:
        yield ",".join(_cell(getattr(clip, name)) for name in names) + "\n"


def _cell(value: str | float | None) -> str:
    if value is None or value != value:
        return ""
    cell = value if isinstance(value, str) else repr(value)
    # Not csv.writer: before Python 3.13 it leaves a carriage return unquoted.
    return '"' + cell.replace('"', '""') + '"' if re.search('[,"\r\n]', cell) else cell
