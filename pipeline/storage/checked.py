"""The check of a shard before a process reads it for the first time."""

from __future__ import annotations

from pathlib import Path

from triptych.pipeline.storage.schema import RemovedShardError, ShardError
from triptych.pipeline.storage.shards import checksum_problem

_intact: set[tuple[str, int, int, int]] = set()


def check_once(path: Path) -> None:
    """Compare a shard with its SHA-256, once in this process while its size, time and inode are unchanged.

    Storage can change bytes without changing a file's time, so the index cannot find this. A forked process inherits
    the result.

    Raises
    ------
    ShardError
        The shard is damaged; a `RemovedShardError` if it is missing.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RemovedShardError(path, f"cannot be opened ({error.strerror})") from error
    except OSError as error:
        raise ShardError(path, f"cannot be opened ({error.strerror})") from error
    key = str(path), status.st_size, status.st_mtime_ns, status.st_ino
    if key in _intact:
        return
    if problem := checksum_problem(path):
        raise ShardError(path, problem)
    _intact.add(key)
