"""A pool of worker processes that ends completely and in silence."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from triptych.pipeline.processes.signals import terminal_signals_blocked
from triptych.pipeline.processes.threads import ONE_THREAD

if TYPE_CHECKING:
    from joblib.externals.loky import ProcessPoolExecutor

MANAGER = "ExecutorManagerThread"  # name of the pool's own thread


@contextmanager
def worker_pool(
    processes: int, start: Callable[..., object], *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes of one thread each; at the end they are killed, not asked to stop.

    An early end (an interrupt, a crash) must leave no process running.

    Parameters
    ----------
    processes
        How many.
    start, arguments
        Called in each process before its first task.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    _start_trackers()
    pool = ProcessPoolExecutor(
        max_workers=processes, initializer=start, initargs=arguments, env=dict(ONE_THREAD)
    )
    try:
        yield pool
    finally:
        workers = list((pool._processes or {}).values())  # loky's own list is emptied at the end
        with _quiet():
            pool.shutdown(wait=True, kill_workers=True)
        for worker in workers:  # if the pool's thread ended with an error, before it ended them
            if worker.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)


def _start_trackers() -> None:
    """Start the processes that watch over semaphores, of loky and of Python, before the workers.

    A hangup would end them, and their start unblocks Ctrl-C, also for workers that start next.
    """
    from multiprocessing import resource_tracker as of_python

    from joblib.externals.loky.backend import resource_tracker as of_loky

    with terminal_signals_blocked():
        of_loky.ensure_running()
    with terminal_signals_blocked():
        of_python.ensure_running()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the KeyError of loky's thread, which may look for a task that the shutdown has just removed."""
    before = threading.excepthook

    def hook(error: Any) -> None:
        if error.thread is None or error.thread.name != MANAGER:
            before(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        if threading.excepthook is hook:
            threading.excepthook = before
