"""One run of `extract` at a time in a feature folder, so that no clip is computed twice."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from triptych.extractors.locks import open_lock, try_lock

logger = logging.getLogger(__name__)

FILE = "extract.lock"
POLL_SECONDS = 0.2
LONGEST = 4096  # bytes that are read of a lock file


class FolderBusyError(Exception):
    """Another run extracts into the folder."""


@contextmanager
def only_run(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a feature folder for one run; wait until another one has ended.

    The lock is free when its process exits, however that happens; the file stays. Where the file cannot be opened or
    its file system has no locks, the run goes on: two runs may then compute a clip twice, without other harm.

    Parameters
    ----------
    wait
        Wait for another run; otherwise raise an error.

    Yields
    ------
    bool
        Whether another run was waited for, so that the folder has changed.

    Raises
    ------
    FolderBusyError
        Another run extracts into the folder, and `wait` is false.
    """
    path, descriptor, waited = folder / FILE, -1, False
    try:
        with suppress(OSError):
            descriptor = open_lock(path)
            while not try_lock(descriptor):
                if not waited:
                    _report(folder, descriptor, wait)
                waited = True
                time.sleep(POLL_SECONDS)
            _write(descriptor)
        yield waited
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _report(folder: Path, descriptor: int, wait: bool) -> None:
    about = f"{folder}: another extract runs here{_owner(descriptor)}"
    if not wait:
        raise FolderBusyError(f"{about}. Run this again when it has ended")
    logger.warning("%s; waiting for it. --no-wait exits instead", about)


def _owner(descriptor: int) -> str:
    try:
        content = json.loads(os.pread(descriptor, LONGEST, 0))
        return f" (process {int(content['pid'])} on {str(content['host'])!r:.100} since {content['since']!s:.40})"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _write(descriptor: int) -> None:
    """Say who has the lock, for the message of another run."""
    owner = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
