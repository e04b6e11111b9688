"""Memory and the system: processes that it ended because memory ran out, and the return of freed memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.events")
KERNEL = Path("/proc/vmstat")


def oom_kills() -> int:
    """Count the processes that the system has killed for memory: those of this container, else of the machine."""
    for path in (CGROUP, KERNEL):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def return_freed_memory() -> None:
    """Give the heap's free memory back to the system; where the C library cannot, nothing happens.

    The heap has no free end after many arrays of different ages were freed, and so would remain as large as it was.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
