"""The processors that OpenFace may run on: bound to a single one, it hangs. No numpy.

Its capture thread never starts when the affinity names one processor, so the program waits forever. A process may often
widen its own affinity, within what a container or a batch system allows.
"""

from __future__ import annotations

import os
from threading import Thread

NEEDED = 2
MOST = 4096  # numbers of processors that are asked for; the kernel grants those that exist and are allowed


def usable() -> int:
    """Count the processors that this process may run on; macOS and Windows have no affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or NEEDED


def widened() -> frozenset[int]:
    """Return the affinity that OpenFace needs instead of this process's own; empty if the own one suffices.

    It has fewer processors than `NEEDED` where widening is not allowed.
    """
    if usable() >= NEEDED or not hasattr(os, "sched_setaffinity"):
        return frozenset()
    found = [os.sched_getaffinity(0)]

    def widen() -> None:
        try:
            os.sched_setaffinity(0, range(MOST))
        except OSError:
            return  # a sandbox may refuse the call
        # Cpusets cut the request down without an error, so only the result shows what was granted.
        found.append(os.sched_getaffinity(0))

    # The affinity is a thread's own: this one ends, and the process remains as it was.
    thread = Thread(target=widen)
    thread.start()
    thread.join()
    return frozenset(found[-1])


def problem() -> str | None:
    """Return an error message with the remedy when the program would hang for want of a second processor."""
    if usable() >= NEEDED or len(widened()) >= NEEDED:
        return None
    return (
        f"OpenFace hangs when it has a single processor, and only one is usable here. Allow it {NEEDED}: `docker run "
        "--cpuset-cpus=0,1`, SLURM's `--cpus-per-task=2`, or `taskset -c 0,1`; the same for each worker of Dask"
    )
