"""Scratch folders that are removed even if the process that made them is killed. No numpy.

A folder has a lock that the kernel releases when the process ends. A folder without a
lock belongs to a process that has ended, in this or another container, and any other process may remove it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

PREFIX = "triptych-openface-"
MEMORY = Path("/dev/shm")


class Scratch:
    """Folders under one or several roots, made on first use, with a lock on each.

    `close` removes them. A process that is killed leaves them to `remove_stale`.
    """

    def __init__(self) -> None:
        self._locked: dict[Path, tuple[Path, int]] = {}
        _OPEN.add(self)

    def under(self, root: Path) -> Path:
        """Return this scratch's folder under a root.

        Raises
        ------
        OSError
            The folder cannot be made.
        """
        if root not in self._locked:
            self._locked[root] = _make_locked(root)
        return self._locked[root][0]

    def close(self) -> None:
        """Remove all folders; the object can be used again afterwards."""
        while self._locked:
            _, (path, lock) = self._locked.popitem()
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


_OPEN: WeakSet[Scratch] = WeakSet()


def remove_own() -> None:
    """Remove the folders of this process, before it is ended."""
    for scratch in tuple(_OPEN):
        scratch.close()


def memory_root(room: int) -> Path | None:
    """Return the memory-backed scratch space if it has `room` bytes free, else None."""
    with suppress(OSError):
        if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= room:
            return MEMORY
    return None


def disk_root() -> Path:
    """Return the temporary folder, which TMPDIR names."""
    return Path(tempfile.gettempdir())


def remove_stale() -> list[Path]:
    """Remove the folders of processes that have ended.

    Returns
    -------
    list of Path
        The folders removed.
    """
    removed = []
    for path in sorted(found for root in {MEMORY, disk_root()} for found in root.glob(f"{PREFIX}*")):
        with suppress(OSError):  # another user's, or just removed
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
            finally:
                os.close(lock)
    return removed


def _make_locked(root: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = -1
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            pass  # another process took it for stale before it was locked
        except OSError:
            return path, lock  # a file system without locks: no folder there is ever taken for stale
        else:
            if path.exists():
                return path, lock
        if lock >= 0:
            os.close(lock)
