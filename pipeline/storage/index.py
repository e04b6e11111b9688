"""The index ``index.sqlite``: the shard of each clip, and the digest of each media file.

It is only a cache of the shards and the media files. It is read completely when opened and replaced completely when
saved, never changed in place. So it needs no lock and works on network file systems; if several processes save, the
last one wins, after it has merged the entries of the others. A damaged or missing file is made again, and none is
saved if the folder cannot be written. `index_file` reads and writes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import remove_stale_temporaries
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.index_file import Content, Entry, Key, load, save
from triptych.pipeline.storage.schema import NewerSchemaError, ShardError, shard_name
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import checksum_problem, newer_schema, shard_files, shard_problems

FILE = "index.sqlite"
SAVE_SECONDS = 30.0
# A file that changed this recently could change again with the same time stamp.
SETTLED_NS = 2_000_000_000


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


class FeatureIndex:
    """The index of a feature folder; a context manager that saves the index on exit.

    Opening compares the shards on disk with the index. The checksum and header of a new or changed shard are read
    once. A damaged shard is left out and listed in `damaged`: its clips count as missing. So is a shard that
    `remember_damage` was called for, until all of its content is found intact.

    Parameters
    ----------
    folder
        The feature folder. It may be missing, or not writable.

    Attributes
    ----------
    damaged
        The shards that cannot be read, each with its `ShardError`.
    newer
        The shards of a newer schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[Path, ShardError] = {}
        self.newer: dict[Path, NewerSchemaError] = {}
        self._content = load(folder / FILE)
        self._cleared: set[Key] = set()  # doubted, and found intact
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
        found: dict[Key, Entry] = {}
        self.damaged, self.newer = {}, {}
        for stage in stages():
            for path in shard_files(self.folder / stage):
                try:
                    found[stage, path.name] = self._examine(stage, path)
                except NewerSchemaError as error:
                    self.newer[path] = error
                except ShardError as error:
                    self.damaged[path] = error
        self._changed |= found != self._content.shards
        self._content.shards = found

    def refuse_newer(self) -> None:
        """Refuse a folder with shards of a newer schema: nothing may be planned or written without reading them.

        Raises
        ------
        InputError
            There are such shards.
        """
        if self.newer:
            raise InputError([str(error) for error in self.newer.values()])

    def _examine(self, stage: str, path: Path) -> Entry:
        try:
            status = path.stat()
        except OSError as error:
            raise ShardError(path, f"cannot be read ({error.strerror})") from error
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        key = stage, path.name
        known = self._content.shards.get(key)
        if key in self._content.doubted:
            self._clear(key, path)
        elif known is not None and known.stamp == stamp:
            return known
        if problem := checksum_problem(path):
            raise newer_schema(path) or ShardError(path, problem)
        with Shard(path) as shard:
            clips = tuple(zip(shard.ids, shard.digests, strict=True))
            if shard.header.stage != stage or path.name != shard_name(shard.header.fingerprint, clips):
                raise ShardError(
                    path, f"its content, of stage {shard.header.stage}, is not what its name says"
                )
            return Entry(stamp, shard.header.fingerprint, shard.created, clips)

    def _clear(self, key: Key, path: Path) -> None:
        """Believe a doubted shard again if all of it is intact, such as one that was written again."""
        if problems := shard_problems(path, key[0]):
            raise problems[0]
        self._content.doubted.discard(key)
        self._cleared.add(key)
        self._changed = True

    def stages(self) -> tuple[str, ...]:
        """Return the stages that have intact shards."""
        return tuple(sorted({stage for stage, _ in self._content.shards}))

    def holdings(self, stage: str) -> Iterator[Holding]:
        """Return every clip of every intact shard of a stage, for any fingerprint, in order of the shards' names."""
        for (folder, name), entry in sorted(self._content.shards.items()):
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
        known = self._content.media.get(key)
        if known is not None and known[0] == _stamp(before) and not rehash:
            return known[1]
        digest = content_digest(path)
        settled = time.time_ns() - before.st_mtime_ns > SETTLED_NS
        if settled and _stamp(path.stat()) == _stamp(before):
            self._content.media[key] = (_stamp(before), digest)
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
        others = load(path)
        doubted = {key for key in others.doubted if self.folder.joinpath(*key).exists()} - self._cleared
        shards = {key: entry for key, entry in others.shards.items() if self.folder.joinpath(*key).exists()}
        shards = {key: entry for key, entry in (shards | self._content.shards).items() if key not in doubted}
        self._content.media = others.media | self._content.media
        with suppress(OSError, sqlite3.Error):
            save(path, Content(shards, self._content.media, doubted))
            remove_stale_temporaries(self.folder)
        self._changed = False


def remember_damage(folder: Path, shards: Iterable[Path]) -> None:
    """Remember that shards are damaged, though their size and times may be those of the index.

    They are then checked completely at each opening of the index, and count as missing until they are intact or
    written again. In a folder that cannot be written nothing is remembered.

    Parameters
    ----------
    folder
        The feature folder.
    shards
        The damaged shards in it.
    """
    keys = {(path.parent.name, path.name) for path in shards}
    if not keys:
        return
    content = load(folder / FILE)
    content.doubted |= keys
    for key in keys:
        content.shards.pop(key, None)
    with suppress(OSError, sqlite3.Error):
        save(folder / FILE, content)


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
