"""The file of the index, ``index.sqlite``: rows are looked up in it; it is never changed in place, only replaced.

Each row has a hash of its other columns. Whatever differs from what was written, in one row or in the whole file, is
left out, as if it had never been saved.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import replacing
from triptych.pipeline.storage.schema import content_name

_TABLES = {
    "shards": (("stage", "name"), ("stamp", "created", "content")),  # the name is itself a hash of `content`
    "media": (("path",), ("stamp", "digest")),
    "doubted": (("stage", "name"), ()),
}
_COLUMNS = {name: ", ".join((*key, *others, "hash")) for name, (key, others) in _TABLES.items()}
_CREATE = {
    name: f"CREATE TABLE {name} ({_COLUMNS[name]}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"
    for name, (key, _) in _TABLES.items()
}
_MEDIA = f"SELECT {_COLUMNS['media']} FROM media WHERE path = ?"
_SHA256 = re.compile("[0-9a-f]{64}")

Key = tuple[str, str]  # a shard's stage and name


class Entry(NamedTuple):
    """The index entry of a shard, valid while the file's size and times are unchanged.

    Attributes
    ----------
    stamp
        The file's size and time of change.
    created
        When the shard was written.
    content
        Fingerprint, and id and digest of every clip in the order of their rows: the text that the shard's name is
        the hash of (`schema.shard_content`).
    """

    stamp: str
    created: str
    content: str

    @property
    def fingerprint(self) -> str:
        """The shard's fingerprint."""
        return self.content[2:66]

    def clips(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return ids and digests of the clips, in the order of their rows."""
        ids, digests = zip(*json.loads(self.content)[1], strict=True)
        return ids, digests


class IndexFile:
    """A saved index, open for reading. One that is missing or invalid is empty.

    The file is never changed in place, so it needs no lock. Another process may replace it meanwhile; where that makes
    the opened one unreadable, as on network file systems, it is empty from then on.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._base = _open(path)

    def shards(self) -> Iterator[tuple[Key, Entry]]:
        """Yield the valid entries of shards."""
        for stage, name, *entry in self._rows("shards"):
            found = _entry(stage, name, entry)
            if found is not None:
                yield (stage, name), found

    def stamps(self) -> Iterator[tuple[Key, str]]:
        """Yield the stamp of each entry, which may be invalid."""
        if self._base is not None:
            with suppress(sqlite3.Error):
                for stage, name, stamp in self._base.execute("SELECT stage, name, stamp FROM shards"):
                    yield (stage, name), stamp

    def shard(self, key: Key) -> Entry | None:
        """Return a shard's entry."""
        row = next(self._rows("shards", key), None)
        return None if row is None else _entry(row[0], row[1], row[2:])

    def all_media(self) -> Iterator[tuple[bytes, str, str]]:
        """Yield path, stamp and SHA-256 of every media file."""
        for path, stamp, digest in self._rows("media"):
            if isinstance(path, bytes) and _SHA256.fullmatch(str(digest)):
                yield path, stamp, digest

    def media(self, path: bytes) -> tuple[str, str] | None:
        """Return stamp and SHA-256 of a media file."""
        if self._base is None:
            return None
        try:
            row = self._base.execute(_MEDIA, (path,)).fetchone()
        except sqlite3.Error:
            return None
        if row is None or _hash("media", row[:3]) != row[3] or not _SHA256.fullmatch(str(row[2])):
            return None
        return row[1], row[2]

    def doubted(self) -> set[Key]:
        """Return shards that were found damaged although size and times are those of their entries."""
        return {(stage, name) for stage, name in self._rows("doubted") if stage in stages()}

    def _rows(self, table: str, key: Sequence[Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """Yield the rows whose hash is right, of one key or all."""
        if self._base is None:
            return
        names = _TABLES[table][0]
        where = "" if key is None else " WHERE " + " AND ".join(f"{name} = ?" for name in names)
        with suppress(sqlite3.Error):
            for *row, found in self._base.execute(f"SELECT {_COLUMNS[table]} FROM {table}{where}", key or ()):
                if _hash(table, row) == found:
                    yield tuple(row)

    def close(self) -> None:
        """Close the file; it is empty from then on."""
        if self._base is not None:
            self._base.close()
            self._base = None


def _open(path: Path) -> sqlite3.Connection | None:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a FIFO would wait for ever
            return None
        # The file is never changed in place, hence `immutable`: no lock and no journal.
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except (OSError, sqlite3.Error):
        return None
    base.text_factory = lambda data: data.decode("utf-8", "replace")  # the hash finds what is replaced
    try:
        # Views and generated columns, which another program may have put there, are not evaluated.
        known = dict(base.execute("SELECT name, sql FROM sqlite_schema")) == _CREATE
        if known and base.execute("PRAGMA quick_check").fetchone() == ("ok",):
            return base
    except (sqlite3.Error, ValueError, MemoryError):
        pass
    base.close()
    return None


def _hash(table: str, row: Sequence[Any]) -> str:
    if table == "shards":
        row = row[:-1]
    return hashlib.sha256(repr((table, *row)).encode("utf-8", "surrogatepass")).hexdigest()


def _entry(stage: str, name: str, values: Sequence[Any]) -> Entry | None:
    """Read a shard's row, and compare it with the shard's name, which is the hash of its content."""
    stamp, created, content = values
    if stage not in stages() or not all(isinstance(value, str) for value in (name, created, content)):
        return None
    if content_name(content) != name:
        return None
    return Entry(stamp, created, content)


def save(
    path: Path,
    shards: Iterable[tuple[Key, Entry]],
    media: Iterable[tuple[bytes, str, str]],
    doubted: Iterable[Key],
) -> None:
    """Replace an index file. Of several rows for one key the last one stays.

    Raises
    ------
    OSError, sqlite3.Error
        It cannot be written.
    """
    rows: dict[str, Iterable[tuple[Any, ...]]] = {
        "shards": ((*key, *entry) for key, entry in shards),
        "media": media,
        "doubted": doubted,
    }
    with replacing(path) as temporary, closing(sqlite3.connect(temporary)) as base:
        base.execute("PRAGMA journal_mode = OFF")
        for name in _TABLES:
            base.execute(_CREATE[name])
            places = ", ".join("?" * (_COLUMNS[name].count(",") + 1))
            base.executemany(
                f"INSERT OR REPLACE INTO {name} VALUES ({places})",
                ((*row, _hash(name, row)) for row in rows[name]),
            )
        base.commit()
