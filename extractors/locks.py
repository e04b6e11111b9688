"""A lock file, which processes take one after the other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file exclusively; made where it is missing, never written to, and no link is followed.

    Where the file cannot be opened, or its file system has no locks (as some network file systems), the caller goes
    on without: the lock saves work or time, and results do not depend on it.
    """
    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)
