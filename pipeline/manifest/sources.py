"""Reading of any SOURCE: folders, tables, single files and patterns."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.columns import COLUMNS, column_name
from triptych.pipeline.manifest.encoding import decode
from triptych.pipeline.manifest.files import (
    MEDIA_ENDINGS,
    absolute,
    clips_among,
    expanded,
    is_media,
    report_doubles,
    walk,
)
from triptych.pipeline.manifest.layouts import (
    ch_sims_header,
    label_table,
    raw_folder,
    read_raw,
)
from triptych.pipeline.manifest.meld import is_meld, meld_tables, read_meld
from triptych.pipeline.manifest.names import stem
from triptych.pipeline.manifest.rows import Row, Source, some
from triptych.pipeline.manifest.tables import TABLE_ENDINGS, cells, records
from triptych.pipeline.manifest.transcripts import clip_stem, find_transcripts, read_transcript

logger = logging.getLogger(__name__)

JSONL_ENDINGS = (".jsonl", ".ndjson")
SOURCE_ENDINGS = frozenset((*TABLE_ENDINGS, *JSONL_ENDINGS, *MEDIA_ENDINGS))
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")  # in every folder of a kind that a shell's pattern matches


def read_sources(sources: Sequence[Path]) -> Source:
    """Read one SOURCE or several: folders, tables, media files, or patterns of them.

    Raises
    ------
    InputError
        A source is missing, cannot be opened, or is none of these.
    """
    paths = _readable(expanded(sources))
    files = {path: None for path in paths if is_media(path.name) and not path.is_dir()}
    parts: list[Source] = []
    problems: list[str] = []
    for path in paths:
        if path not in files:
            try:
                parts.append(_read_one(path, paths))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    if files:
        parts.append(_read_files(list(files)))
    parts = _each_file_once(parts)
    if len(parts) == 1:
        return parts[0]
    return Source(
        os.sep,
        [_rooted(row, part.root) for part in parts for row in part.rows],
        [problem for part in parts for problem in part.problems],
    )


def _readable(paths: dict[Path, bool]) -> list[Path]:
    """Leave out what a shell's or our own pattern such as ``clips/*`` matches besides clips, tables and folders."""
    sources = {path for path in paths if path.is_dir() or path.suffix.lower() in SOURCE_ENDINGS}
    clips = {(path.parent, clip_stem(path.stem)) for path in sources if is_media(path.name)}
    others = [
        path for path in paths if path not in sources and (path.parent, clip_stem(path.stem)) not in clips
    ]
    if unnamed := [path.name for path in others if not paths[path]]:
        logger.warning(
            "%d files are neither clips nor tables and are left out: %s", len(unnamed), some(unnamed)
        )
    wrong = {path for path in others if paths[path] and path.name not in SYSTEM_FILES}
    if not (sources or wrong):
        raise InputError(f"{', '.join(map(str, paths))}: no clip, table or folder; name one")
    return [path for path in paths if path in sources or path in wrong]


def _each_file_once(parts: list[Source]) -> list[Source]:
    """Leave out a file that several sources name, such as a folder and a clip in it; a table's row comes first."""
    if len(parts) == 1:
        return parts
    seen = {path for part in parts for row in part.rows if not row.listed and (path := _file(row, part.root))}
    once = []
    for part in parts:
        rows = []
        for row in part.rows:
            file = _file(row, part.root) if row.listed else ""
            if file not in seen:
                rows.append(row)
            if row.listed:
                seen.add(file)
        if rows or part.problems or not part.rows:
            once.append(replace(part, rows=rows))
    return once


def _file(row: Row, root: str) -> str:
    """Return the absolute path of a row's file; empty where the row is not valid, which is reported later."""
    recorded, path = row.values.get("root") or "", row.values.get("path")
    return absolute(Path(root, recorded, path)) if isinstance(recorded, str) and isinstance(path, str) else ""


def _rooted(row: Row, root: str) -> Row:
    """Write the root of a row's source into the row.

    The path of a file that was found in a folder starts with that folder, so that files of one name in several folders
    have different ids.
    """
    if row.listed and Path(root).name:
        path = f"{Path(root).name}/{row.values['path']}"
        return replace(row, values={**row.values, "root": str(Path(root).parent), "path": path})
    recorded = row.values.get("root")
    if not isinstance(recorded, str | None):
        return row  # reported later
    return replace(row, values={**row.values, "root": absolute(Path(root, recorded or ""))})


def _read_one(source: Path, others: Sequence[Path]) -> Source:
    readers = {
        **dict.fromkeys(TABLE_ENDINGS, _read_table),
        **dict.fromkeys(JSONL_ENDINGS, _read_jsonl),
    }
    try:
        if source.is_dir():
            return _read_any_folder(source, others)
        reader = readers.get(source.suffix.lower())
        if reader is None:
            raise InputError(
                f"{source}: neither a folder, nor a media file, nor a manifest; the name of a manifest ends in "
                f"{', '.join(readers)}, that of a media file in {' '.join(MEDIA_ENDINGS)}"
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
        As `read_sources`.
    """
    if (source / "recipe.json").is_file() and (source / "manifest.csv").is_file():
        return read_sources([source / "manifest.csv"])
    folder = source if source.is_dir() else source.parent
    table = label_table(source) if source.is_dir() else source
    if (
        table is None
        or not table.is_file()
        or table.suffix.lower() not in TABLE_ENDINGS
        or (source.is_dir() and raw_folder(folder).is_dir())
        or is_meld(table)
    ):
        return read_sources([source])
    found = Source(absolute(folder))
    lines = list(cells(table, found.problems))
    if lines and "path" in map(column_name, lines[0][1]):
        return read_sources([source])
    header = ch_sims_header(lines)
    if not {"video_id", "clip_id"} <= set(header):
        found.problems.append(
            f"{table}:1: neither a column path nor the columns video_id and clip_id; name them in the first line"
        )
        return found
    found.rows += [Row(origin, values) for origin, values in records(table, header, lines, found.problems)]
    return found


def _read_table(source: Path) -> Source:
    if is_meld(source):
        return read_meld(source.parent, [source])
    found = Source(absolute(source.parent))
    lines = cells(source, found.problems)
    line, first = next(lines, (1, []))
    header = [column_name(name) for name in first]
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
    return _with_transcripts(found)


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
    return _with_transcripts(found)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number; write null for a missing label")


def _warn_of_other_columns(source: Path, names: Iterable[str]) -> None:
    ignored = [name for name in names if name and name not in COLUMNS]
    if ignored:
        logger.warning("%s: unknown columns are ignored: %s", source, some(ignored))


def _read_any_folder(folder: Path, others: Sequence[Path]) -> Source:
    """Read a data set in a known layout, or else every media file under the folder."""
    table = label_table(folder)
    if table is not None:
        first = next(cells(table, []), (1, []))[1]
        return _read_table(table) if "path" in map(column_name, first) else read_raw(folder, table)
    tables = meld_tables(folder)
    if tables:
        return read_meld(folder, tables, whole=True)
    _warn_of_tables(folder, others)
    return _read_folder(folder)


def _warn_of_tables(folder: Path, sources: Sequence[Path]) -> None:
    """Report tables of clips that are not read because of their names, and that are no sources themselves."""
    named = set(map(absolute, sources))
    for entry in sorted(folder.iterdir()):
        hidden = entry.name.startswith(".") or absolute(entry) in named
        if hidden or entry.suffix.lower() not in TABLE_ENDINGS or not entry.is_file():
            continue
        try:
            names = {column_name(name) for name in next(cells(entry, []), (1, []))[1]}
        except (InputError, OSError):
            continue
        if {"path", "clip_id"} & names:
            logger.warning("%s: not read; name this table itself as the source to use it", entry)


def _read_folder(source: Path) -> Source:
    """Read every media file under a folder, each with the transcript beside it."""
    found = Source(absolute(source))
    unmatched: list[str] = []
    doubles: list[str] = []
    for folder, names in walk(found.root, found.problems):
        inside = "" if str(folder) == found.root else f"{folder.relative_to(found.root).as_posix()}/"
        transcripts = find_transcripts(names)
        clips = clips_among(names, doubles)
        stems = {clip_stem(stem(name)) for name in clips}
        unmatched += [
            f"{inside}{name}"
            for clip, of_clip in transcripts.items()
            if clip not in stems
            for name in of_clip
        ]
        for name in clips:
            values = {"path": f"{inside}{name}"}
            text = _transcript(folder, name, transcripts, found.problems)
            values |= {} if text is None else {"text": text}
            found.rows.append(Row(f"{folder}/{name}", values, listed=True))
    if not found.rows:
        found.problems.append(
            f"{source}: no clip in this folder or its subfolders; supported endings are {' '.join(MEDIA_ENDINGS)}"
        )
    report_doubles(source, doubles)
    if unmatched and any("text" not in row.values for row in found.rows):
        logger.warning(
            "%s: %d files are not read as transcripts: the name of a transcript is that of a clip beside it, apart "
            "from the ending: %s",
            source,
            len(unmatched),
            some(unmatched),
        )
    return found


def _read_files(files: Sequence[Path]) -> Source:
    """Read media files by name; their paths are relative to the folder that they have in common."""
    parents = [absolute(file.parent) for file in files]
    found = Source(os.path.commonpath(parents))
    beside: dict[str, dict[str, list[str]]] = {}
    for file, parent in zip(files, parents, strict=True):
        if parent not in beside:
            beside[parent] = find_transcripts(os.listdir(parent))  # noqa: PTH208 - names are what is needed
        whole = Path(parent, file.name)
        values = {"path": whole.relative_to(found.root).as_posix()}
        text = _transcript(whole.parent, whole.name, beside[parent], found.problems)
        values |= {} if text is None else {"text": text}
        found.rows.append(Row(str(whole), values, listed=True))
    return found


def _with_transcripts(found: Source) -> Source:
    """Add the transcripts beside the files of a table that has no column of text."""
    if any("text" in row.values for row in found.rows):
        return found
    beside: dict[Path, dict[str, list[str]]] = {}
    rows = []
    for row in found.rows:
        file = Path(_file(row, found.root))
        if file.parent not in beside:
            names = os.listdir(file.parent) if file.parent.is_dir() else []  # noqa: PTH208 - names are what is needed
            beside[file.parent] = find_transcripts(names)
        text = _transcript(file.parent, file.name, beside[file.parent], found.problems)
        rows.append(row if text is None else replace(row, values={**row.values, "text": text}))
    return replace(found, rows=rows)


def _transcript(
    folder: Path, clip: str, transcripts: dict[str, list[str]], problems: list[str]
) -> str | None:
    """Read the first transcript of a clip, given by its file's name, that is not empty."""
    for name in transcripts.get(clip_stem(stem(clip)), ()):
        try:
            text = read_transcript(folder / name)
        except InputError as error:
            problems += error.problems
        except OSError as error:
            problems.append(f"{folder / name}: cannot be read ({error.strerror})")
        else:
            if text.strip():
                return text
    return None
