"""Lock files, which processes take one after the other."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

SILENT_SECONDS = 5.0  # a longer wait is reported
LONGEST_SECONDS = 300.0  # less than a stage may take; work that is done once takes a minute or two
_POLL_SECONDS = 0.05


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file exclusively; made where it is missing, never written to, and no link is followed.

    A wait of more than 5 s is reported with the process that is waited for. The lock of a process that has exited is
    free. The caller goes on without where the file cannot be opened, where its file system has no locks (as some
    network file systems), where the process that has the lock is stopped, and after 300 s: the lock saves work or time,
    and results do not depend on it.
    """
    descriptor = -1
    with suppress(OSError):
        descriptor = open_lock(path)
        wait_for(descriptor, path, bounded=True)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open a lock file, made where it is missing; no link is followed.

    Raises
    ------
    OSError
        It is a link, or cannot be opened.
    """
    # A FIFO that was planted there would wait for its other end.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, 0o600)


def try_lock(descriptor: int) -> bool:
    """Take an open file's lock if it is free.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(descriptor: int, path: Path, *, bounded: bool = False) -> None:
    """Wait for an open file's lock; report a wait of more than 5 s.

    Parameters
    ----------
    bounded
        Return without the lock if the process that has it is stopped (as by SIGSTOP), and after 300 s.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    started = time.monotonic()
    look, reported = started + SILENT_SECONDS, False
    while not try_lock(descriptor):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if now <= look:
            continue
        look = now + SILENT_SECONDS
        owner = _owner(descriptor)
        by = f"process {owner}" if owner else "another process"
        if bounded and (_is_stopped(owner) or now - started > LONGEST_SECONDS):
            logger.warning("going on without the lock %s, which %s does not release", path, by)
            return
        if not reported:
            logger.warning("waiting for %s, which has locked %s", by, path)
            reported = True


def _owner(descriptor: int) -> int | None:
    """Return the process that has locked an open file, if the system says so."""
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and place in words and int(words[4]) > 0:
                return int(words[4])
    return None


def _is_stopped(process: int | None) -> bool:
    """Return whether a process of this machine is stopped, so that it releases nothing until it is continued."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False
