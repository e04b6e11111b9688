"""MELD as it is published: tables of utterances, and videos by dialogue and utterance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted
from triptych.pipeline.manifest.files import absolute, is_media, walk
from triptych.pipeline.manifest.layouts import USUAL_ENDING, plain_number
from triptych.pipeline.manifest.rows import Row, Source, some
from triptych.pipeline.manifest.tables import TABLE_ENDINGS, cells, fitted

logger = logging.getLogger(__name__)

MELD_COLUMNS = {"dialogue_id", "utterance_id", "utterance"}
MELD_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
# MELD's apostrophes and dashes are Windows-1252's codes, written as control characters.
_APOSTROPHES = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
MELD_LABELS = {"positive": 1.0, "neutral": 0.0, "negative": -1.0, "": None}


def meld_tables(folder: Path) -> list[Path]:
    """Return the tables in MELD's form, such as train_sent_emo.csv, in a folder or the folders in it."""
    return [
        entry
        for place in [folder, *_folders(folder)]
        for entry in sorted(place.iterdir())
        if not entry.name.startswith(".")
        and entry.suffix.lower() in TABLE_ENDINGS
        and entry.is_file()
        and is_meld(entry)
    ]


def is_meld(table: Path) -> bool:
    """Return whether a table has MELD's columns."""
    try:
        first = next(islice(cells(table, []), 1), (1, []))[1]
    except (InputError, OSError):
        return False
    return {name.strip().lower() for name in first} >= MELD_COLUMNS


def read_meld(folder: Path, tables: Sequence[Path], *, whole: bool = False) -> Source:
    """Read MELD's tables: utterances of dialogues, in videos ``dia<dialogue>_utt<utterance>.mp4``.

    The videos of ``train_sent_emo.csv`` are beside the table, or in a folder there or in `folder` whose name contains
    ``train``, such as ``train_splits``. The sentiment becomes the label: positive 1, neutral 0, negative -1.

    Parameters
    ----------
    whole
        The tables are all of the folder, so that every other video in it is reported.
    """
    found = Source(absolute(folder))
    searched: set[str] = set()
    for table in tables:
        videos = _videos(folder, table)
        searched.update(path for paths in videos.values() for path in paths)
        lines = cells(table, found.problems)
        header = [name.strip().lower() for name in next(lines)[1]]
        for line, record in lines:
            origin = f"{table}:{line}"
            if (complete := fitted(record, len(header), origin, found.problems)) is not None:
                values = dict(zip(header, complete, strict=True))
                found.rows.append(_row(origin, values, _kind(table), videos, found.problems))
    if whole:
        for place, names in walk(found.root, found.problems):
            searched.update(
                (place / name).relative_to(found.root).as_posix() for name in names if is_media(name)
            )
    if unlisted := sorted(searched - {row.values.get("path", "") for row in found.rows}):
        logger.warning(
            "%s: %d videos have no row in %s and are left out: %s",
            folder,
            len(unlisted),
            ", ".join(table.name for table in tables),
            some(unlisted),
        )
    return found


def _row(
    origin: str, values: dict[str, str], kind: str, videos: dict[str, list[str]], problems: list[str]
) -> Row:
    dialogue, utterance = (plain_number(values[name]) for name in ("dialogue_id", "utterance_id"))
    sentiment = values.get("sentiment", "").strip().lower()
    if sentiment not in MELD_LABELS:
        expected = ", ".join(filter(None, MELD_LABELS))
        problems.append(
            f"{origin}: sentiment = {quoted(sentiment)}: unknown; write one of {expected}, or leave it empty"
        )
    row = {
        "video_id": f"{kind}_dia{dialogue}" if kind else f"dia{dialogue}",
        "clip_id": f"utt{utterance}",
        "text": values["utterance"].translate(_APOSTROPHES) or None,
        "split": MELD_SPLITS.get(kind),
        "label": MELD_LABELS.get(sentiment),
    }
    name = f"dia{dialogue}_utt{utterance}"
    paths = videos.get(name, [])
    if len(paths) > 1:
        return Row(origin, row, f"{' and '.join(paths)} both fit; remove or rename one")
    if not paths and not (dialogue.isdecimal() and utterance.isdecimal()):
        return Row(origin, row, "Dialogue_ID and Utterance_ID must be whole numbers; correct them")
    if paths:
        return Row(origin, {**row, "path": paths[0]})
    beside = PurePosixPath(next(iter(videos.values()), [name])[0])  # another video of the table
    problem = f"video {name}.* not found; add it or remove the row"
    return Row(origin, {**row, "path": str(beside.with_name(name + USUAL_ENDING))}, not_found=problem)


def _kind(table: Path) -> str:
    """Return train, dev or test if the table's name contains it."""
    return next((kind for kind in MELD_SPLITS if kind in table.stem.lower()), "")


def _videos(folder: Path, table: Path) -> dict[str, list[str]]:
    """Return the paths, relative to `folder`, of the videos that may belong to a table, by name."""
    kind = _kind(table)
    places = {
        place: None
        for near in (table.parent, folder)
        for place in [near, *(entry for entry in _folders(near) if kind in entry.name.lower())]
    }
    found: dict[str, list[str]] = {}
    for place in places:
        for file in sorted(place.iterdir()):
            if is_media(file.name):
                found.setdefault(file.stem, []).append(file.relative_to(folder).as_posix())
    return found


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
