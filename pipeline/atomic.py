"""Atomic writing of files, and removal of the temporary files of killed writers."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from triptych.extractors.locks import wait_for

STALE_SECONDS = 6 * 3600.0
_TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there is renamed to `path` if the block ends without an error.

    The order is: file to disk, rename, folder to disk. So a reader finds either the old file or the new one, even if
    the writer or the machine stops at any moment. After an error the temporary file is removed.

    Parameters
    ----------
    path
        The final name; its folder exists.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The error of a full disk names no file, and the temporary name would not help the user.
        try:
            error.filename = str(path)
        except AttributeError:  # PyAV's errors are read-only
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; one that already has this content is left alone. Its folder exists."""
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that lock it too; where the file system has no locks, go on.

    A wait of more than 5 s is reported.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            wait_for(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: Path, older_than: float = STALE_SECONDS) -> list[Path]:
    """Remove the temporary files of killed writers from a folder, and no others.

    A file is removed when the process that wrote it on this machine has exited, or when nothing was written
    to it for `older_than` seconds on any machine. Other `*.tmp` files are left alone.

    Returns
    -------
    list of Path
        The files removed.
    """
    removed = []
    for path in sorted(folder.glob("*.tmp")):
        name = _TEMPORARY.search(path.name)
        if name is None or name.end() != len(path.name):
            continue
        # Another machine may remove the same file at the same time, and some folders are read-only.
        with suppress(OSError):
            orphaned = name["host"] == _host() and not alive(int(name["process"]))
            if orphaned or time.time() - path.stat().st_mtime > older_than:
                path.unlink()
                removed.append(path)
    return removed


def is_temporary(path: Path) -> bool:
    """Return whether a file has the name of a temporary file that `replacing` makes."""
    return re.search(_TEMPORARY.pattern + r"\Z", path.name) is not None


@cache
def _host() -> str:
    """Identify the scope in which process ids are unique (one boot of one machine, one container) by a hash."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:8]


def alive(process: int) -> bool:
    """Return whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    # Some network file systems have no fsync of folders; the file itself is on disk by then.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
