"""The manifest as a CSV file: write it, compare it, and read its transcripts alone."""

from __future__ import annotations

import csv
import errno
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from itertools import repeat
from pathlib import Path
from typing import TextIO

from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.columns import DETAILS
from triptych.pipeline.manifest.label_range import DEFAULT, format_range
from triptych.pipeline.manifest.loading import load_manifest

# The columns of every manifest that is written; others only where a clip has a value in them.
NAMES = [column.name for column in fields(Clip) if column.name not in DETAILS]


def write_manifest(manifest: Manifest, file: Path | TextIO) -> None:
    """Write a manifest as CSV in UTF-8; `load_manifest` reads an equal one from it.

    A file appears complete or not at all; one that already has this content is left alone.

    Raises
    ------
    InputError
        The path does not end in ``.csv``, or cannot be written.
    OSError
        The disk is full.
    """
    if not isinstance(file, Path):
        file.writelines(_csv_lines(manifest))
        return
    if file.suffix.lower() != ".csv":
        raise InputError(f"{file}: a manifest is written as CSV; choose a name that ends in .csv")
    if is_written(manifest, file):
        return
    try:
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(_csv_lines(manifest))
    except OSError as error:
        if error.errno == errno.ENOSPC:  # no fault of the path
            raise
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); check the folder and its permissions"
        ) from error


def is_written(manifest: Manifest, file: Path) -> bool:
    """Return whether a file is what `write_manifest` writes, byte by byte."""
    with suppress(OSError), file.open("rb") as stream:
        for line in _csv_lines(manifest):
            expected = line.encode("utf-8", "surrogatepass")
            if stream.read(len(expected)) != expected:
                return False
        return not stream.read(1)
    return False


def _csv_lines(manifest: Manifest) -> Iterator[str]:
    details = [name for name in DETAILS if any(map(_has, repeat(name), manifest.clips))]
    # Most data sets are in the default range, and their manifests need no word of it.
    extra = [] if manifest.label_range == DEFAULT else [format_range(manifest.label_range)]
    yield ",".join([*NAMES, *details, *["label_range"] * len(extra)]) + "\n"
    for clip in manifest.clips:
        texts = (clip.id, clip.path, clip.text or "", clip.split or "")
        labels = (clip.label, clip.label_T, clip.label_A, clip.label_V)
        cells = [*map(_cell, texts), *("" if label != label else repr(label) for label in labels)]
        more = [_detail(getattr(clip, name)) for name in details]
        yield ",".join([*cells, _cell(clip.root), *more, *extra]) + "\n"


def _has(name: str, clip: Clip) -> bool:
    value = getattr(clip, name)
    return value is not None and value == value


def _detail(value: str | float | None) -> str:
    if value is None or value != value:
        return ""
    return _cell(value) if isinstance(value, str) else repr(value)


_QUOTED = re.compile('[,"\r\n]')


def _cell(text: str) -> str:
    # Not csv.writer: before Python 3.13 it leaves a carriage return unquoted.
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _fits(row: list[str], header: list[str]) -> bool:
    if len(row) != len(header):
        raise ValueError("another number of cells")
    return True


def load_transcripts(file: Path) -> dict[str, str | None]:
    """Read only the ids and transcripts of a manifest, in a fifth of `load_manifest`'s time.

    A manifest that `write_manifest` wrote is read without checks; any other file goes through `load_manifest`.

    Raises
    ------
    InputError
        The manifest is invalid.
    """
    with suppress(OSError, ValueError, csv.Error), file.open(encoding="utf-8", newline="") as lines:
        records = csv.reader(lines, strict=True)
        header = next(records, [])
        if header[: len(NAMES)] == NAMES and {*header[len(NAMES) :]} <= {*DETAILS, "label_range"}:
            # Unpacking raises ValueError where a row has another number of cells.
            if len(header) == len(NAMES):
                return {id: text.strip() or None for id, _, text, _, _, _, _, _, _ in records}
            return {row[0]: row[2].strip() or None for row in records if _fits(row, header)}
    return {clip.id: clip.text for clip in load_manifest(file, check_files=False).clips}
