"""The index ``index.sqlite``: the shard of each clip, and the digest of each media file.

It is only a cache of the shards and the media files. It is read completely when opened and replaced completely when
saved, never changed in place. So it needs no lock and works on network file systems; if several processes save, the
last one wins, after it has merged the entries of the others. A damaged or missing file is made again, and none is
saved if the folder cannot be written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import remove_stale_temporaries, replacing
from triptych.pipeline.storage.schema import ShardError, shard_name
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import checksum_problem, shard_files

FILE = "index.sqlite"
SAVE_SECONDS = 30.0
# A file that changed this recently could change again with the same time stamp.
SETTLED_NS = 2_000_000_000
_TABLES = {
    "shards": ("stage", "name", "stamp", "fingerprint", "created", "clips"),
    "media": ("path", "stamp", "digest"),
}


class Holding(NamedTuple):
    """A clip in a shard.

    Attributes
    ----------
    clip_id, digest
        The clip, and the digest of the content that its features were computed from.
    fingerprint
        The shard's fingerprint.
    shard
        The file.
    row
        The clip's position in the shard.
    created
        When the shard was written, ISO 8601, UTC.
    """

    clip_id: str
    digest: str
    fingerprint: str
    shard: Path
    row: int
    created: str


class _Entry(NamedTuple):
    """The index entry of a shard, valid while the file's size and times are unchanged."""

    stamp: str
    fingerprint: str
    created: str
    clips: tuple[tuple[str, str], ...]  # (id, digest), in the order of their rows


class FeatureIndex:
    """The index of a feature folder; a context manager that saves the index on exit.

    Opening compares the shards on disk with the index. The checksum and header of a new or changed shard are read
    once. A damaged shard is left out and listed in `damaged`: its clips count as missing.

    Parameters
    ----------
    folder
        The feature folder. It may be missing, or not writable.

    Attributes
    ----------
    damaged
        The shards that cannot be read, each with its `ShardError`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[Path, ShardError] = {}
        self._shards, self._media = _load(folder / FILE)
        self._changed = False
        self._saved = time.monotonic()
        self.refresh()
        self.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()

    def refresh(self) -> None:
        """List the shards on disk again."""
        found: dict[tuple[str, str], _Entry] = {}
        self.damaged = {}
        for stage in stages():
            for path in shard_files(self.folder / stage):
                try:
                    found[stage, path.name] = self._examine(stage, path)
                except ShardError as error:
                    self.damaged[path] = error
        self._changed |= found != self._shards
        self._shards = found

    def _examine(self, stage: str, path: Path) -> _Entry:
        try:
            status = path.stat()
        except OSError as error:
            raise ShardError(path, f"cannot be read ({error.strerror})") from error
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        known = self._shards.get((stage, path.name))
        if known is not None and known.stamp == stamp:
            return known
        if problem := checksum_problem(path):
            raise ShardError(path, problem)
        with Shard(path) as shard:
            clips = tuple(zip(shard.ids, shard.digests, strict=True))
            if shard.header.stage != stage or path.name != shard_name(shard.header.fingerprint, clips):
                raise ShardError(
                    path, f"its content, of stage {shard.header.stage}, is not what its name says"
                )
            return _Entry(stamp, shard.header.fingerprint, shard.created, clips)

    def stages(self) -> tuple[str, ...]:
        """Return the stages that have intact shards."""
        return tuple(sorted({stage for stage, _ in self._shards}))

    def holdings(self, stage: str) -> Iterator[Holding]:
        """Return every clip of every intact shard of a stage, for any fingerprint, in order of the shards' names."""
        for (folder, name), entry in sorted(self._shards.items()):
            if folder == stage:
                shard = self.folder / stage / name
                for row, (clip_id, digest) in enumerate(entry.clips):
                    yield Holding(clip_id, digest, entry.fingerprint, shard, row, entry.created)

    def digest_of(self, path: Path, *, rehash: bool = False) -> str:
        """Return the SHA-256 of a file, cached while its size, mtime_ns and inode are unchanged.

        Parameters
        ----------
        path
            The media file.
        rehash
            Read the file even if its digest is cached.

        Returns
        -------
        str
            64 hexadecimal digits.

        Raises
        ------
        OSError
            The file is missing, no regular file, or cannot be read.
        """
        key = os.fsencode(path.absolute())
        before = path.stat()
        known = self._media.get(key)
        if known is not None and known[0] == _stamp(before) and not rehash:
            return known[1]
        digest = content_digest(path)
        settled = time.time_ns() - before.st_mtime_ns > SETTLED_NS
        if settled and _stamp(path.stat()) == _stamp(before):
            self._media[key] = (_stamp(before), digest)
            self._changed = True
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()
        return digest

    def save(self) -> None:
        """Save the index if the folder can be written; without it only time is lost."""
        self._saved = time.monotonic()
        if not self._changed or not self.folder.is_dir():
            return
        path = self.folder / FILE
        shards, media = _load(path)
        shards = {
            key: entry for key, entry in shards.items() if self.folder.joinpath(*key).exists()
        } | self._shards
        self._media = media | self._media
        with suppress(OSError, sqlite3.Error):
            _save(path, shards, self._media)
            remove_stale_temporaries(self.folder)
        self._changed = False


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    OSError
        It is missing, cannot be read, or is a FIFO or a device, whose reading may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 of a transcript: the text stage's digest of a clip."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _load(path: Path) -> tuple[dict[tuple[str, str], _Entry], dict[bytes, tuple[str, str]]]:
    """Read an index file; invalid or inconsistent entries are left out."""
    try:
        # The file is never changed in place, hence `immutable`: no lock and no journal.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            if base.execute("PRAGMA quick_check").fetchone() != ("ok",):
                return {}, {}
            tables = {
                name: base.execute(f"SELECT {', '.join(columns)} FROM {name}").fetchall()
                for name, columns in _TABLES.items()
            }
    except sqlite3.Error:
        return {}, {}
    shards = {(row[0], row[1]): entry for row in tables["shards"] if (entry := _entry(row)) is not None}
    media = {
        path: (stamp, digest)
        for path, stamp, digest in tables["media"]
        if isinstance(path, bytes) and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    }
    return shards, media


def _entry(row: Sequence[Any]) -> _Entry | None:
    """Read a shard's row and compare it with the shard's name, which is a hash of its content."""
    stage, name, stamp, fingerprint, created, content = row
    try:
        clips = tuple((clip_id, digest) for clip_id, digest in json.loads(content))
        if shard_name(fingerprint, clips) != name or stage not in stages() or not isinstance(created, str):
            return None
    except (TypeError, ValueError, RecursionError):
        return None
    return _Entry(stamp, fingerprint, created, clips)


def _save(path: Path, shards: dict[tuple[str, str], _Entry], media: dict[bytes, tuple[str, str]]) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {
        "shards": [(*key, *entry[:-1], json.dumps(entry.clips)) for key, entry in shards.items()],
        "media": [(key, *value) for key, value in media.items()],
    }
    with replacing(path) as temporary, closing(sqlite3.connect(temporary)) as base:
        base.execute("PRAGMA journal_mode = OFF")
        for name, columns in _TABLES.items():
            base.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            base.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows[name])
        base.commit()
