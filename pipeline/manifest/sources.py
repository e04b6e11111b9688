"""Reading of each kind of SOURCE into rows of one form, that of a line of a JSONL manifest."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.csv_text import COLUMNS, LABELS, cells, decode, records

logger = logging.getLogger(__name__)

CH_SIMS_COLUMNS = ("video_id", "clip_id", "text", *LABELS, "annotation", "mode")
VIDEO_ENDINGS = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
)


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
    """

    origin: str
    values: dict[str, Any]
    no_path: str = "column path is missing; add the video's path, relative to the root"


@dataclass
class Source:
    """The content of a SOURCE: its rows, the folder that its paths are relative to, and its problems."""

    root: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_source(source: Path) -> Source:
    """Read any SOURCE: a folder in CH-SIMS layout, a folder of videos, or a manifest file.

    Raises
    ------
    InputError
        The source is missing, cannot be opened, or is none of these.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    try:
        if not source.exists():
            raise InputError(f"{source}: file or folder not found; check the path")
        if source.is_dir():
            return _read_ch_sims(source) if (source / "label.csv").is_file() else _read_folder(source)
        reader = readers.get(source.suffix.lower())
        if reader is None:
            raise InputError(
                f"{source}: neither a folder nor a manifest; the name of a manifest ends in {', '.join(readers)}"
            )
        return reader(source)
    except OSError as error:
        raise InputError(f"{error.filename or source}: cannot be read ({error.strerror})") from error


def read_labels(source: Path) -> Source:
    """Read the labels of any SOURCE; rows need no path, as in a table without its videos.

    A CH-SIMS label table may stand alone; for a feature folder its manifest is read.

    Raises
    ------
    InputError
        As `read_source`.
    """
    if (source / "recipe.json").is_file() and (source / "manifest.csv").is_file():
        return read_source(source / "manifest.csv")
    table = source / "label.csv" if source.is_dir() else source
    if not table.is_file() or (source / "Raw").is_dir() or table.suffix.lower() != ".csv":
        return read_source(source)
    found = Source(absolute(table.parent))
    lines = list(cells(table, ",", found.problems))
    if lines and "path" in (name.strip() for name in lines[0][1]):
        return read_source(source)
    header = _ch_sims_header(lines)
    if not {"video_id", "clip_id"} <= set(header):
        found.problems.append(
            f"{table}:1: neither a column path nor the columns video_id and clip_id; name them in the first line"
        )
        return found
    found.rows += [Row(origin, values) for origin, values in records(table, header, lines, found.problems)]
    return found


def _read_csv(source: Path) -> Source:
    found = Source(absolute(source.parent))
    lines = cells(source, "\t" if source.suffix.lower() == ".tsv" else ",", found.problems)
    line, first = next(lines, (1, []))
    header = [name.strip() for name in first]
    repeated = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if repeated:
        found.problems.append(f"{source}:{line}: column {', '.join(repeated)} is given twice; remove one")
    elif header and "path" not in header:
        found.problems.append(
            f"{source}:{line}: no column path among {', '.join(header)}; name the columns in the first line "
            "(for CH-SIMS pass the folder that contains label.csv)"
        )
    else:
        _warn_of_other_columns(source, header)
        found.rows += [
            Row(origin, values) for origin, values in records(source, header, lines, found.problems)
        ]
    return found


def _read_jsonl(source: Path) -> Source:
    found = Source(absolute(source.parent))
    names: dict[str, None] = {}
    for number, line in enumerate(decode(source.read_bytes(), str(source)).split("\n"), 1):
        if not line.strip():
            continue
        origin = f"{source}:{number}"
        try:
            values = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            found.problems.append(
                f'{origin}: not JSON ({error}); write one object a line, as in {{"path": "a.mp4"}}'
            )
            continue
        if not isinstance(values, dict):
            found.problems.append(f'{origin}: not a JSON object; write one a line, as in {{"path": "a.mp4"}}')
            continue
        names.update(dict.fromkeys(values))
        found.rows.append(Row(origin, values))
    _warn_of_other_columns(source, names)
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number; write null for a missing label")


def _warn_of_other_columns(source: Path, names: Iterable[str]) -> None:
    ignored = [name for name in names if name and name not in COLUMNS]
    if ignored:
        logger.warning("%s: unknown columns are ignored: %s", source, _some(ignored))


def _read_ch_sims(source: Path) -> Source:
    """`label.csv`, its header optional, beside ``Raw/<video_id>/<clip_id>.<ending>``."""
    found = Source(absolute(source))
    table, raw = source / "label.csv", source / "Raw"
    if not raw.is_dir():
        found.problems.append(
            f"{raw}: folder not found; the CH-SIMS layout has its videos in Raw/<video_id>/"
        )
        return found
    lines = list(cells(table, ",", found.problems))
    header = _ch_sims_header(lines)
    if "clip_id" not in header:
        found.problems.append(
            f"{table}:1: no column clip_id; the columns of CH-SIMS are {', '.join(CH_SIMS_COLUMNS)}"
        )
        return found
    videos = _raw_videos(raw)
    # Spreadsheets turn 0001 into 1.
    unpadded = {(video, clip.lstrip("0")): names[0] for (video, clip), names in videos.items()}
    listed = set()
    for origin, values in records(table, header, lines, found.problems):
        video, clip = values["video_id"], values["clip_id"]
        listed.add((video, clip))
        match videos.get((video, clip), []), unpadded.get((video, clip.lstrip("0"))):
            case [name], _:
                found.rows.append(Row(origin, {**values, "path": f"Raw/{video}/{name}"}))
                continue
            case [], None:
                problem = f"video Raw/{video}/{clip}.* not found; add it or remove the row"
            case [], near:
                problem = f"video Raw/{video}/{clip}.* not found, but {near} is; restore the zeros of clip_id"
            case names, _:
                problem = f"{' and '.join(names)} are both in Raw/{video}; remove one"
        found.rows.append(Row(origin, values, problem))
    unlisted = [f"{key[0]}/{name}" for key, names in videos.items() if key not in listed for name in names]
    if unlisted:
        logger.warning(
            "%s: %d videos in Raw have no row and are left out: %s", table, len(unlisted), _some(unlisted)
        )
    return found


def _ch_sims_header(lines: list[tuple[int, list[str]]]) -> list[str]:
    """Remove the header from `lines` if there is one; columns that are not read get an empty name."""
    first = [name.strip() for name in lines[0][1]] if lines else []
    if "video_id" in first:
        del lines[0]
        names = [name if name in CH_SIMS_COLUMNS else "" for name in first]
    else:
        names = [*CH_SIMS_COLUMNS, *[""] * (len(first) - len(CH_SIMS_COLUMNS))]
    return ["split" if name == "mode" else name for name in names]


def _raw_videos(raw: Path) -> dict[tuple[str, str], list[str]]:
    """File names by video and clip; a file directly in Raw belongs to no video."""
    videos: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(raw.iterdir()):
        if entry.name.startswith("."):
            continue
        video, files = (entry.name, sorted(entry.iterdir())) if entry.is_dir() else ("", [entry])
        for file in files:
            if _is_video(file.name):
                videos.setdefault((video, file.stem), []).append(file.name)
    return videos


def _read_folder(source: Path) -> Source:
    """Every video under a folder, each with its sidecar transcript."""
    found = Source(absolute(source))
    for folder, names in _walk(found.root, found.problems):
        transcripts = {PurePath(name).stem: name for name in names if name.lower().endswith(".txt")}
        for name in filter(_is_video, names):
            file = folder / name
            values = {"path": file.relative_to(found.root).as_posix()}
            if (sidecar := transcripts.get(file.stem)) is not None:
                values["text"] = _transcript(folder / sidecar, found.problems)
            found.rows.append(Row(str(file), values))
    if not found.rows:
        endings = " ".join(VIDEO_ENDINGS)
        found.problems.append(
            f"{source}: no video in this folder or its subfolders; supported endings are {endings}"
        )
    return found


def _transcript(file: Path, problems: list[str]) -> str:
    try:
        return decode(file.read_bytes(), str(file))
    except InputError as error:
        problems += error.problems
    except OSError as error:
        problems.append(f"{file}: cannot be read ({error.strerror})")
    return ""


def _walk(root: str, problems: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Folders with their sorted files, without hidden ones; a link out of `root` is followed once."""

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror})")

    real_root = Path(root).resolve()
    visited: set[Path] = set()
    for name, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        folder = Path(name)
        real = folder.resolve()
        if real in visited or (folder.is_symlink() and name != root and real.is_relative_to(real_root)):
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and PurePath(name).suffix.lower() in VIDEO_ENDINGS


def absolute(path: str | Path) -> str:
    """The absolute path without ``..``; links are not resolved."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would replace the links


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown}, ..."
