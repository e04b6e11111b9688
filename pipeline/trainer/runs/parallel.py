"""Trainings in parallel processes of one thread each, which share one copy of the clips in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from triptych.pipeline.atomic import alive
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.processes.pool import worker_pool
from triptych.pipeline.processes.signals import terminal_signals_blocked
from triptych.pipeline.run.recovery import WorkersDiedError
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.shared_memory import open_shared, write_shared

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Function = Callable[[SentimentData, Item], Outcome]


def in_processes(
    function: Function[Item, Outcome],
    tasks: Sequence[Item],
    data: SentimentData,
    folder: Path,
    processes: int,
) -> Iterator[tuple[int, Outcome]]:
    """Run the tasks in their order; yield each one's index and outcome when it ends.

    Parameters
    ----------
    function
        Called with the clips and a task; a module's own function, so that processes can import it.
    folder
        While the tasks run it has a folder of clips: those that the processes share, and a cache of standardised ones
        if they do not fit in memory.
    processes
        Number of processes; with one, this process runs all tasks.

    Raises
    ------
    WorkersDiedError
        A process was killed, usually because memory ran out.
    """
    _remove_abandoned(folder)
    processes = min(processes, len(tasks))
    if processes <= 1 and data.in_memory(rows=True):
        yield from _here(function, tasks, data)
        return
    with _own_folder(folder) as own:
        data = replace(data, cache=own)
        if processes <= 1:
            yield from _here(function, tasks, data)
        else:
            _share(data, own)
            yield from _on_workers(function, tasks, own, processes)


def _here(
    function: Function[Item, Outcome], tasks: Sequence[Item], data: SentimentData
) -> Iterator[tuple[int, Outcome]]:
    yield from ((index, function(data, task)) for index, task in enumerate(tasks))


def _on_workers(
    function: Function[Item, Outcome], tasks: Sequence[Item], shared: Path, processes: int
) -> Iterator[tuple[int, Outcome]]:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    with warnings.catch_warnings():
        # The pool replaces a process whose memory large systems have filled, as intended.
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        with worker_pool(processes, end_with, os.getpid()) as pool:
            with terminal_signals_blocked():
                running = {
                    pool.submit(_on_shared, function, shared, task): index for index, task in enumerate(tasks)
                }
            for future in as_completed(running):
                try:
                    yield running[future], future.result()
                except BrokenProcessPool as error:
                    raise WorkersDiedError(
                        "a training process was killed, usually because memory ran out; finished trainings are "
                        "saved. Run the same command with fewer --jobs to continue"
                    ) from error


def _on_shared(function: Function[Item, Outcome], shared: Path, task: Item) -> Outcome:
    return function(open_shared(shared), task)


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for this run's clips beside its results: the system's temporary folder may be in memory."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"clips-{os.getpid()}-") as name:
        yield Path(name)


def _share(data: SentimentData, folder: Path) -> None:
    """Write the clips for this run's processes."""
    try:
        write_shared(data, folder)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(folder.parent)) from error


def _remove_abandoned(folder: Path) -> None:
    """Remove the clips of runs that were killed."""
    for abandoned in folder.glob("clips-*"):
        owner = abandoned.name.split("-")[1]
        if owner.isdecimal() and not alive(int(owner)):
            shutil.rmtree(abandoned, ignore_errors=True)
