"""The index ``index.sqlite``: the shard of each clip, and the digest of each media file.

It is only a cache of the shards and the media files. It is never changed in place but replaced completely when saved.
So it needs no lock and works on network file systems; if several processes save, the last one wins, after it has merged
the entries of the others. A damaged or missing file is made again, and none is saved if the folder cannot be written.
Only the names and times of the shards are in memory; their clips and the digests of media files are looked up in the
file, which `index_file` reads and writes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import remove_stale_temporaries
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.index_file import Entry, IndexFile, Key, save
from triptych.pipeline.storage.schema import NewerSchemaError, ShardError, content_name, shard_content
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import checksum_problem, newer_schema, shard_names, shard_problems

FILE = "index.sqlite"
SAVE_SECONDS = 30.0
SAVE_SHARE = 10.0  # a save that took long is not repeated before this multiple of its time
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


class ShardClips(NamedTuple):
    """A shard with its clips.

    Attributes
    ----------
    shard
        The file.
    fingerprint
        Its fingerprint.
    created
        When it was written, ISO 8601, UTC.
    ids, digests
        The clips in the order of their rows, and the digest of the content that each one's features were computed from.
    """

    shard: Path
    fingerprint: str
    created: str
    ids: tuple[str, ...]
    digests: tuple[str, ...]


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
        self._stamps: dict[Key, str] = {}
        self._unsaved: dict[Key, Entry] = {}
        self._media: dict[bytes, tuple[str, str]] = {}  # not yet saved
        self._cleared: set[Key] = set()  # doubted, and found intact
        self._read()
        self._changed = False
        self._next_save = time.monotonic() + SAVE_SECONDS
        self.refresh()
        self.save()

    def _read(self) -> None:
        """Open the saved index; the names and times of its shards are read, all else is looked up in it."""
        self._file = IndexFile(self.folder / FILE)
        self._stamps = dict(self._file.stamps())
        self._doubted = self._file.doubted()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()
        self._file.close()

    def refresh(self) -> None:
        """List the shards on disk again."""
        found: dict[Key, str] = {}
        self.damaged, self.newer = {}, {}
        for stage in stages():
            for name, stamp in _listed(self.folder / stage):
                path = self.folder / stage / name
                try:
                    found[stage, name] = self._examine((stage, name), path, stamp)
                except NewerSchemaError as error:
                    self.newer[path] = error
                except ShardError as error:
                    self.damaged[path] = error
        self._changed |= found != self._stamps
        self._stamps = found

    def refuse_newer(self) -> None:
        """Refuse a folder with shards of a newer schema: nothing may be planned or written without reading them.

        Raises
        ------
        InputError
            There are such shards.
        """
        if self.newer:
            raise InputError([str(error) for error in self.newer.values()])

    def _examine(self, key: Key, path: Path, stamp: str | OSError) -> str:
        if isinstance(stamp, OSError):
            raise ShardError(path, f"cannot be read ({stamp.strerror})") from stamp
        if key in self._doubted:
            self._clear(key, path)
        elif self._stamps.get(key) == stamp:
            return stamp
        self._unsaved[key] = _read_entry(key[0], path, stamp)
        return stamp

    def _clear(self, key: Key, path: Path) -> None:
        """Believe a doubted shard again if all of it is intact, such as one that was written again."""
        if problems := shard_problems(path, key[0]):
            raise problems[0]
        self._doubted.discard(key)
        self._cleared.add(key)
        self._changed = True

    def stages(self) -> tuple[str, ...]:
        """Return the stages that have intact shards."""
        return tuple(sorted({stage for stage, _ in self._stamps}))

    def shards(self, stage: str) -> Iterator[ShardClips]:
        """Yield every intact shard of a stage, for any fingerprint, by name."""
        for key in sorted(key for key in self._stamps if key[0] == stage):
            path = self.folder / stage / key[1]
            try:
                entry, (ids, digests) = self._entry(key, path)
            except ShardError as error:  # it was removed or damaged since it was listed
                self.damaged[path] = error
                del self._stamps[key]
                continue
            yield ShardClips(path, entry.fingerprint, entry.created, ids, digests)

    def holdings(self, stage: str) -> Iterator[Holding]:
        """Yield every clip of these shards."""
        for shard in self.shards(stage):
            for row, (clip_id, digest) in enumerate(zip(shard.ids, shard.digests, strict=True)):
                yield Holding(clip_id, digest, shard.fingerprint, shard.shard, row, shard.created)

    def _entry(self, key: Key, path: Path) -> tuple[Entry, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Look up a shard; where the saved index is wrong or has become unreadable, read the shard itself."""
        entry = self._unsaved.get(key) or self._file.shard(key)
        with suppress(ValueError, TypeError, RecursionError):
            if entry is not None and entry.stamp == self._stamps[key]:
                return entry, entry.clips()
        entry = self._unsaved[key] = _read_entry(key[0], path, self._stamps[key])
        self._changed = True
        return entry, entry.clips()

    def digest_of(self, path: str | Path, *, rehash: bool = False) -> str:
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
        key = os.fsencode(path if str(path).startswith("/") else Path(path).absolute())
        before = os.stat(path)  # noqa: PTH116 - Path objects are far slower
        stamp = _stamp(before)
        known = None if rehash else self._media.get(key) or self._file.media(key)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = content_digest(Path(path))
        settled = time.time_ns() - before.st_mtime_ns > SETTLED_NS
        if settled and _stamp(os.stat(path)) == stamp:  # noqa: PTH116
            self._media[key] = stamp, digest
            self._changed = True
            if time.monotonic() > self._next_save:
                self.save()
        return digest

    def save(self) -> None:
        """Save the index if the folder can be written; without it only time is lost."""
        started = time.monotonic()
        if self._changed and self.folder.is_dir():
            with suppress(OSError, sqlite3.Error):
                self._save()
                self._file.close()
                self._file = IndexFile(self.folder / FILE)
                self._unsaved, self._media = {}, {}
                remove_stale_temporaries(self.folder)
            self._changed = False
        taken = time.monotonic() - started
        self._next_save = started + taken + max(SAVE_SECONDS, SAVE_SHARE * taken)

    def _save(self) -> None:
        """Write the entries that this process and others have; a shard that is gone or in doubt is left out."""
        with closing(IndexFile(self.folder / FILE)) as others:
            doubted = {key for key in others.doubted() if self.folder.joinpath(*key).exists()} - self._cleared
            shards = chain(
                # This process's own file may be older than the other one, and have entries that another removed.
                ((key, entry) for key, entry in self._file.shards() if key in self._stamps),
                ((key, entry) for key, entry in others.shards() if self._exists(key)),
                ((key, entry) for key, entry in self._unsaved.items() if key in self._stamps),
            )
            media = chain(others.all_media(), ((key, *value) for key, value in self._media.items()))
            save(
                self.folder / FILE,
                ((key, entry) for key, entry in shards if key not in doubted),
                media,
                sorted(doubted),
            )

    def _exists(self, key: Key) -> bool:
        return key in self._stamps or self.folder.joinpath(*key).exists()


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
    with closing(IndexFile(folder / FILE)) as file, suppress(OSError, sqlite3.Error):
        save(
            folder / FILE,
            ((key, entry) for key, entry in file.shards() if key not in keys),
            file.all_media(),
            sorted(file.doubted() | keys),
        )


def _listed(folder: Path) -> Iterator[tuple[str, str | OSError]]:
    """Yield name and stamp of each shard in a stage's folder, by name; the error instead, if it cannot be read."""
    for name in shard_names(folder):
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - Path objects are far slower
            yield name, f"{status.st_size}:{status.st_mtime_ns}"
        except OSError as error:
            yield name, error


def _read_entry(stage: str, path: Path, stamp: str) -> Entry:
    """Check a shard, and read its clips."""
    if problem := checksum_problem(path):
        raise newer_schema(path) or ShardError(path, problem)
    with Shard(path) as shard:
        clips = tuple(zip(shard.ids, shard.digests, strict=True))
        content = shard_content(shard.header.fingerprint, clips)
        if shard.header.stage != stage or path.name != content_name(content):
            raise ShardError(path, f"its content, of stage {shard.header.stage}, is not what its name says")
        if list(clips) != sorted(clips):
            raise ShardError(path, "its clips are not sorted by id")
        return Entry(stamp, shard.created, content)


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


def stamped_digest(path: Path) -> str:
    """Return the SHA-256 of a file, read once in this process while its size, time and inode are the same.

    Raises
    ------
    OSError
        As `content_digest`.
    """
    return _digest_of_stamp(path, _stamp(path.stat()))


@lru_cache(maxsize=64)
def _digest_of_stamp(path: Path, _: str) -> str:
    return content_digest(path)


def part_digest(digest: str, part: str) -> str:
    """Return the digest of a part of a file, from that of the file; that of the file itself where `part` is empty.

    Parameters
    ----------
    part
        Which part it is, as `Clip.part` describes it.
    """
    return hashlib.sha256(f"{digest} {part}".encode()).hexdigest() if digest and part else digest


def text_digest(text: str) -> str:
    """Return the SHA-256 of a transcript: the text stage's digest of a clip."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
