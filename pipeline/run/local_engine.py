"""Run groups of clips on worker processes of one machine; a process that exits loses one clip, not the run."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.events import Report, StageStarted, from_line
from triptych.pipeline.run.recovery import (
    POLL_SECONDS,
    STAGE_SECONDS,
    Running,
    WorkerExit,
    WorkersDiedError,
    divide,
    separate,
)
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.run.worker import run_reported, start
from triptych.pipeline.storage.ledger import LedgerLine


@dataclass
class _Progress:
    """The progress file, to which workers append their events; it is read while it grows."""

    path: Path
    watch: Report
    running: dict[int, Running] = field(default_factory=dict)  # by process
    _position: int = 0

    def read(self) -> None:
        with self.path.open("rb") as stream:
            stream.seek(self._position)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            event, process = from_line(line)
            if isinstance(event, StageStarted):
                self.running[process] = Running(event)
            else:
                self.running.pop(process, None)
            self.watch(event)

    def overdue(self, seconds: float) -> list[int]:
        """Return the processes that have run one stage for longer than its clips may take."""
        return [process for process, running in self.running.items() if running.overdue(seconds)]

    def take_running(self) -> list[StageStarted]:
        """Return what the processes were running when the pool broke, and reset it."""
        self.read()
        running = [one.stage for one in self.running.values()]
        self.running.clear()
        return running


def run_groups(
    tasks: Sequence[GroupTask], jobs: int, watch: Report, stage_seconds: float = STAGE_SECONDS
) -> Iterator[list[LedgerLine]]:
    """Run groups on `jobs` processes; yield each group's ledger lines when it ends, in any order.

    When a process exits, the clips that were being processed are run again, alone. If a clip kills its process when
    alone, that stage and those that read from it fail with ``worker_killed`` (or ``timeout`` if it did not end); its
    other stages and all other clips continue.

    Parameters
    ----------
    watch
        Called with every event that the workers report.
    stage_seconds
        How long a stage may take for each clip before its process is killed.

    Raises
    ------
    WorkersDiedError
        Processes exit without having started a clip.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-") as scratch:
        progress = _Progress(Path(scratch) / "progress", watch)
        progress.path.touch()
        _remove_stale()  # files that a killed run has left
        waiting = deque(tasks)
        while waiting:
            failure = yield from _run_until_exit(waiting, jobs, progress, stage_seconds)
            if failure is None:
                return
            candidates = {clip for running in progress.take_running() for clip in running.clips}
            if not candidates:
                raise WorkersDiedError(f"worker processes exit before they start a clip: {failure.detail}")
            yield from _run_alone(_take(waiting, candidates), progress, stage_seconds)


def _run_alone(
    tasks: deque[GroupTask], progress: _Progress, stage_seconds: float
) -> Iterator[list[LedgerLine]]:
    """Run one group at a time; halve a group whose worker exits, until the clip that causes it is found."""
    while tasks:
        task = tasks.popleft()
        failure = yield from _run_until_exit(deque([task]), 1, progress, stage_seconds)
        if failure is None:
            continue
        running = progress.take_running()
        lines, next_tasks = divide(task, running[-1] if running else None, failure)
        if lines:
            yield lines
        tasks.extend(next_tasks)


def _run_until_exit(
    waiting: deque[GroupTask], jobs: int, progress: _Progress, stage_seconds: float
) -> Generator[list[LedgerLine], None, WorkerExit | None]:
    """Run the waiting groups and remove finished ones from `waiting`; return the reason if a process exited."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    pool = ProcessPoolExecutor(
        max_workers=min(jobs, len(waiting)),
        initializer=start,
        initargs=(os.getpid(), progress.path),
        env=ONE_THREAD,
    )
    # Said here by the reason of the clip that ended its worker.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
    hung = False
    try:
        futures: dict[Future[list[LedgerLine]], GroupTask] = {
            pool.submit(run_reported, task, progress.path): task for task in waiting
        }
        while futures:
            ended, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            progress.read()
            broken = [future for future in ended if isinstance(future.exception(), BrokenProcessPool)]
            for future in ended.difference(broken):
                lines = future.result()
                waiting.remove(futures.pop(future))
                yield lines
            if broken and hung:
                return WorkerExit.timeout(stage_seconds)
            if broken:
                return WorkerExit(Reason.WORKER_KILLED, str(broken[0].exception()).strip())
            for process in progress.overdue(stage_seconds):
                hung = True
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        return None
    finally:
        # Killed, not asked to stop: an early exit (an interrupt, a crash) must leave no process running.
        pool.shutdown(wait=True, kill_workers=True)
        _remove_stale()


def _remove_stale() -> None:
    for stage in stages().values():
        stage.clean_up("stale")


def _take(waiting: deque[GroupTask], clips: set[str]) -> deque[GroupTask]:
    """Move clips from the waiting groups into groups of their own."""
    alone: deque[GroupTask] = deque()
    for task in list(waiting):
        named, others = separate(task, clips)
        if named:
            alone.append(named)
            index = waiting.index(task)
            waiting.remove(task)
            if others:
                waiting.insert(index, others)
    return alone
