"""Trainings in parallel processes of one thread each, over clips that lie in memory once."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from triptych.pipeline.atomic import alive
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.recovery import WorkersDiedError
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.shared_memory import open_shared, write_shared

Item = TypeVar("Item")
Found = TypeVar("Found")
Work = Callable[[SentimentData, Item], Found]


def in_processes(
    work: Work[Item, Found], tasks: Sequence[Item], data: SentimentData, folder: Path, processes: int
) -> Iterator[tuple[int, Found]]:
    """Do the tasks, the first ones first; give each one's place with what came of it, as it ends.

    Parameters
    ----------
    work
        A module's own function, so that processes can import it.
    folder
        Where the clips are laid for the processes while they run.
    processes
        How many; with one, this process does it all itself.

    Raises
    ------
    WorkersDiedError
        A process was killed, mostly for want of memory.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    _remove_left(folder)
    processes = min(processes, len(tasks))
    if processes <= 1:
        yield from ((place, work(data, task)) for place, task in enumerate(tasks))
        return
    with _shared(data, folder) as shared, warnings.catch_warnings():
        # A process that large systems have filled is ended and begun anew, which is as it should be.
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        pool = ProcessPoolExecutor(
            max_workers=processes, initializer=end_with, initargs=(os.getpid(),), env=ONE_THREAD
        )
        try:
            running = {pool.submit(_on_shared, work, shared, task): place for place, task in enumerate(tasks)}
            for future in as_completed(running):
                try:
                    yield running[future], future.result()
                except BrokenProcessPool as error:
                    raise WorkersDiedError(
                        "a process that trained was killed, mostly for want of memory; what was finished is kept: "
                        "the same command with fewer --jobs goes on"
                    ) from error
        finally:
            # Killed rather than asked: whoever leaves here early leaves no process behind.
            pool.shutdown(wait=True, kill_workers=True)


def _on_shared(work: Work[Item, Found], shared: Path, task: Item) -> Found:
    return work(open_shared(shared), task)


@contextmanager
def _shared(data: SentimentData, folder: Path) -> Iterator[Path]:
    """A folder of the clips for this run's processes, beside the results since a system's own may be memory."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"clips-{os.getpid()}-") as name:
        write_shared(data, Path(name))
        yield Path(name)


def _remove_left(folder: Path) -> None:
    """Remove the clips of runs that were killed."""
    for left in folder.glob("clips-*"):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
