"""Data sets as they are published: CH-SIMS, CH-SIMS v2, MOSI and MOSEI in MMSA's layout."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.columns import LABELS, column_name
from triptych.pipeline.manifest.files import absolute, clips_among, report_doubles
from triptych.pipeline.manifest.names import stem
from triptych.pipeline.manifest.rows import Row, Source, some
from triptych.pipeline.manifest.tables import TABLE_ENDINGS, cells, records

logger = logging.getLogger(__name__)

CH_SIMS_COLUMNS = ("video_id", "clip_id", "text", *LABELS, "annotation", "split")
USUAL_ENDING = ".mp4"  # of a video that does not exist
LABEL_TABLES = ("label", "labels", "meta")  # names without ending, in lower case


def label_table(folder: Path) -> Path | None:
    """Return the folder's table of labels: label.csv, Label.csv, meta.csv, label.xlsx and so on; None without one.

    Raises
    ------
    InputError
        There are several.
    """
    found = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.stem.lower() in LABEL_TABLES and entry.suffix.lower() in TABLE_ENDINGS and entry.is_file()
    ]
    if len(found) > 1:
        raise InputError(
            f"{folder}: {' and '.join(entry.name for entry in found)} are both tables of labels; rename or remove one"
        )
    return found[0] if found else None


def raw_folder(folder: Path) -> Path:
    """Return the folder of videos, ``Raw`` in upper or lower case."""
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == "raw"), folder / "Raw")


def read_raw(folder: Path, table: Path) -> Source:
    """Read a table of labels, its header optional, beside ``Raw/<video_id>/<clip_id>.<ending>``."""
    found = Source(absolute(folder))
    raw = raw_folder(folder)
    if not raw.is_dir():
        found.problems.append(
            f"{raw}: folder not found; the CH-SIMS layout, which {table.name} is part of, has its videos in "
            "Raw/<video_id>/"
        )
        return found
    lines = list(cells(table, found.problems))
    header = ch_sims_header(lines)
    if "clip_id" not in header:
        found.problems.append(
            f"{table}:1: no column clip_id; the columns of CH-SIMS are "
            f"{', '.join(CH_SIMS_COLUMNS).replace('split', 'mode')}"
        )
        return found
    videos = _Videos(raw)
    for origin, values in records(table, header, lines, found.problems):
        video, clip = values.get("video_id") or "", values["clip_id"] or ""
        key, problem = videos.find(video, clip)
        if key is None:
            found.rows.append(Row(origin, values, problem))
            continue
        if problem:
            path = f"{raw.name}/{video}/{clip}{USUAL_ENDING}"
            found.rows.append(Row(origin, {**values, "path": path}, not_found=problem))
            continue
        path = f"{raw.name}/{key[0]}/{videos.names[key][0]}"
        found.rows.append(Row(origin, {**values, "video_id": key[0], "clip_id": key[1], "path": path}))
    videos.log(table)
    return found


def ch_sims_header(lines: list[tuple[int, list[str]]]) -> list[str]:
    """Remove the header from `lines` if there is one; columns that are not read get an empty name."""
    first = [column_name(name) for name in lines[0][1]] if lines else []
    if "video_id" in first:
        del lines[0]
        return [name if name in (*CH_SIMS_COLUMNS, "label_range") else "" for name in first]
    return [*CH_SIMS_COLUMNS, *[""] * (len(first) - len(CH_SIMS_COLUMNS))]


class _Videos:
    """The videos under ``Raw``, by (video, clip), and which of them the table named."""

    def __init__(self, raw: Path) -> None:
        self.names: dict[tuple[str, str], list[str]] = {}
        self._raw = raw
        self._doubles: list[str] = []
        for entry in sorted(raw.iterdir()):
            if entry.name.startswith("."):
                continue
            # A file directly in Raw belongs to no video.
            video, files = (entry.name, sorted(entry.iterdir())) if entry.is_dir() else ("", [entry])
            for name in clips_among([file.name for file in files], self._doubles):
                self.names.setdefault((video, stem(name)), []).append(name)
        self._as_numbers: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for key in self.names:
            self._as_numbers.setdefault((plain_number(key[0]), plain_number(key[1])), []).append(key)
        self._listed: set[tuple[str, str]] = set()
        self._restored: list[str] = []

    def find(self, video: str, clip: str) -> tuple[tuple[str, str] | None, str]:
        """Return the video's key, None if the row is wrong, and the problem; lost zeros are restored.

        A key with a problem is that of a video that does not exist.
        """
        key = (video, clip)
        if key not in self.names:
            near = self._as_numbers.get((plain_number(video), plain_number(clip)), [])
            if not near:
                problem = f"video Raw/{video}/{clip}.* not found; add it or remove the row"
                return (key if all(map(_is_name, key)) else None), problem
            if len(near) > 1:
                several = " and ".join("/".join(one) for one in near)
                return (
                    None,
                    f"video Raw/{video}/{clip}.* not found, but {several} are; write the zeros of the ids",
                )
            (key,) = near
            self._restored.append(f"{video}/{clip} is {key[0]}/{key[1]}")
        self._listed.add(key)
        if len(self.names[key]) > 1:
            return None, f"{' and '.join(self.names[key])} are both in Raw/{key[0]}; remove one"
        return key, ""

    def log(self, table: Path) -> None:
        """Say which ids were restored and which videos the table does not list."""
        report_doubles(self._raw, self._doubles)
        if self._restored:
            logger.warning(
                "%s: %d ids without their zeros, as spreadsheets write them, or with blanks were matched with "
                "videos: %s",
                table,
                len(self._restored),
                some(self._restored),
            )
        unlisted = [
            f"{key[0]}/{name}"
            for key, names in self.names.items()
            if key not in self._listed
            for name in names
        ]
        if unlisted:
            logger.warning(
                "%s: %d videos in Raw have no row and are left out: %s", table, len(unlisted), some(unlisted)
            )


def _is_name(id: str) -> bool:
    return bool(id.strip()) and "/" not in id


def plain_number(id: str) -> str:
    """Return an id as a spreadsheet shows it: ``0001``, ``1`` and ``1.0`` are the same number."""
    return (
        str(int(match[1])) if (match := re.fullmatch(r"(\d+)(?:\.0+)?", id.strip(), re.ASCII)) else id.strip()
    )
