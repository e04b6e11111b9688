"""One run of `extract` at a time for the same clips of a feature folder, so that no clip is computed twice."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from triptych.extractors.locks import open_lock, try_lock
from triptych.pipeline.run.partition import Partition

logger = logging.getLogger(__name__)

FILE = "extract.lock"
POLL_SECONDS = 0.2
LONGEST = 4096  # bytes that are read of a lock file
_PART = re.compile(r"extract-([0-9]+)-of-([0-9]+)\.lock")


class FolderBusyError(Exception):
    """Another run extracts into the folder."""


def lock_name(partition: Partition | None) -> str:
    """Return the name of the lock file of a run: parts of one folder have a file each."""
    return FILE if partition is None else f"extract-{partition.number}-of-{partition.count}.lock"


@contextmanager
def only_run(folder: Path, *, wait: bool = True, partition: Partition | None = None) -> Iterator[bool]:
    """Lock a feature folder, or a part of its clips, for one run; wait until another one of the same has ended.

    The lock is free when its process exits, however that happens; the file stays. Where the file cannot be opened or
    its file system has no locks, the run goes on: two runs may then compute a clip twice, without other harm. A run of
    a part and a run of all clips, or of a part of another division, do not wait for each other: that they overlap is
    reported.

    Parameters
    ----------
    wait
        Wait for another run; otherwise raise an error.
    partition
        The part that is extracted; None for all clips.

    Yields
    ------
    bool
        Whether another run was waited for, so that the folder has changed.

    Raises
    ------
    FolderBusyError
        Another run extracts the same clips into the folder, and `wait` is false.
    """
    path, descriptor, tries = folder / lock_name(partition), -1, 0
    try:
        with suppress(OSError):
            descriptor = open_lock(path)
            while not try_lock(descriptor):
                if (
                    tries == 1
                ):  # the first time it may be another run that only looks whether the lock is free
                    _report(folder, descriptor, wait, partition)
                tries += 1
                time.sleep(POLL_SECONDS)
            _write(descriptor)
        if others := overlapping(folder, partition):
            logger.warning(
                "%s: another extract of %s runs here; a clip may be computed twice, without other harm",
                folder,
                ", ".join(others),
            )
        yield tries > 0
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def overlapping(folder: Path, partition: Partition | None) -> list[str]:
    """Return the runs at this moment that extract some of the clips of another one, and have another lock.

    Parameters
    ----------
    partition
        The part of that other one. Parts of the same division have no clip in common.

    Returns
    -------
    list of str
        ``all clips``, or ``part 2/8``.
    """
    found = {}
    for path in sorted(folder.glob("extract*.lock")):
        match = _PART.fullmatch(path.name)
        if path.name == lock_name(partition) or not (match or path.name == FILE):
            continue
        if match and partition and int(match[2]) == partition.count:
            continue
        if _is_locked(path):
            found[path.name] = f"part {match[1]}/{match[2]}" if match else "all clips"
    return list(found.values())


def _is_locked(path: Path) -> bool:
    """Return whether a process has locked a file; it is locked for a moment to find out."""
    try:
        descriptor = open_lock(path)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _report(folder: Path, descriptor: int, wait: bool, partition: Partition | None) -> None:
    what = "another extract" if partition is None else f"another extract of part {partition}"
    about = f"{folder}: {what} runs here{_owner(descriptor)}"
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
