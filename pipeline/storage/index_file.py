"""The file of the index, ``index.sqlite``: it is read completely and replaced completely.

Each row has a hash of its other columns. Whatever differs from what was written, in one row or in the whole file, is
left out, as if it had never been saved.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import replacing
from triptych.pipeline.storage.schema import shard_name

_TABLES = {
    "shards": ("stage", "name", "stamp", "fingerprint", "created", "clips"),
    "media": ("path", "stamp", "digest"),
    "doubted": ("stage", "name"),
}
_CREATE = {name: f"CREATE TABLE {name} ({', '.join(columns)}, hash)" for name, columns in _TABLES.items()}


class Entry(NamedTuple):
    """The index entry of a shard, valid while the file's size and times are unchanged."""

    stamp: str
    fingerprint: str
    created: str
    clips: tuple[tuple[str, str], ...]  # (id, digest), in the order of their rows


Key = tuple[str, str]  # a shard's stage and name


@dataclass
class Content:
    """What the index has saved.

    Attributes
    ----------
    shards
        The intact shards.
    media
        By path: the stamp and the SHA-256 of a media file.
    doubted
        Shards that were found damaged although size and times are those of the index: only a complete check clears
        them.
    """

    shards: dict[Key, Entry] = field(default_factory=dict)
    media: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    doubted: set[Key] = field(default_factory=set)


def load(path: Path) -> Content:
    """Read an index file; one that is missing or invalid is empty."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a FIFO would wait for ever
            return Content()
        tables = _rows(path)
    except (OSError, sqlite3.Error, ValueError, MemoryError):
        return Content()
    return Content(
        {(row[0], row[1]): entry for row in tables["shards"] if (entry := _entry(row)) is not None},
        {
            path: (stamp, digest)
            for path, stamp, digest in tables["media"]
            if isinstance(path, bytes) and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
        },
        {(stage, name) for stage, name in tables["doubted"] if stage in stages()},
    )


def _rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return each table's rows whose hash is right."""
    # The file is never changed in place, hence `immutable`: no lock and no journal.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
        base.text_factory = lambda data: data.decode("utf-8", "replace")  # the hash finds what is replaced
        # Views and generated columns, which another program may have put there, are not evaluated.
        if dict(base.execute("SELECT name, sql FROM sqlite_schema")) != _CREATE:
            return {name: [] for name in _TABLES}
        if base.execute("PRAGMA quick_check").fetchone() != ("ok",):
            return {name: [] for name in _TABLES}
        return {
            name: [
                row
                for *row, found in base.execute(f"SELECT {', '.join(columns)}, hash FROM {name}")
                if _hash(name, row) == found
            ]
            for name, columns in _TABLES.items()
        }


def _hash(table: str, row: Sequence[Any]) -> str:
    return hashlib.sha256(repr((table, *row)).encode("utf-8", "surrogatepass")).hexdigest()


def _entry(row: Sequence[Any]) -> Entry | None:
    """Read a shard's row and compare it with the shard's name, which is a hash of its content."""
    stage, name, stamp, fingerprint, created, content = row
    try:
        clips = tuple((clip_id, digest) for clip_id, digest in json.loads(content))
        if shard_name(fingerprint, clips) != name or stage not in stages() or not isinstance(created, str):
            return None
    except (TypeError, ValueError, RecursionError):
        return None
    return Entry(stamp, fingerprint, created, clips)


def save(path: Path, content: Content) -> None:
    """Replace an index file.

    Raises
    ------
    OSError, sqlite3.Error
        It cannot be written.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {
        "shards": [(*key, *entry[:-1], json.dumps(entry.clips)) for key, entry in content.shards.items()],
        "media": [(key, *value) for key, value in content.media.items()],
        "doubted": sorted(content.doubted),
    }
    with replacing(path) as temporary, closing(sqlite3.connect(temporary)) as base:
        base.execute("PRAGMA journal_mode = OFF")
        for name, columns in _TABLES.items():
            base.execute(_CREATE[name])
            places = ", ".join("?" * (len(columns) + 1))
            base.executemany(
                f"INSERT INTO {name} VALUES ({places})", ((*row, _hash(name, row)) for row in rows[name])
            )
        base.commit()
