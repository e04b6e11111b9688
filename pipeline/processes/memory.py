"""Whether the system has ended processes because memory ran out."""

from __future__ import annotations

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
