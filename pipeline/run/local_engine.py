"""Run groups of clips on worker processes of one machine; a process that exits loses one clip, not the run."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages
from triptych.pipeline.processes.memory import oom_kills
from triptych.pipeline.processes.pool import worker_pool
from triptych.pipeline.processes.signals import terminal_signals_blocked
from triptych.pipeline.run.events import Report, StageStarted, from_line
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.recovery import (
    POLL_SECONDS,
    START_SECONDS,
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
    heard: float = field(default_factory=time.monotonic)  # when the last event was read
    _position: int = 0

    def read(self) -> None:
        with self.path.open("rb") as stream:
            stream.seek(self._position)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        if whole or self.running:
            self.heard = time.monotonic()
        for line in whole.splitlines():
            try:
                event, process = from_line(line)
            except (ValueError, KeyError, TypeError):  # cut off by a full disk
                continue
            if isinstance(event, StageStarted):
                self.running[process] = Running(event)
            else:
                self.running.pop(process, None)
            self.watch(event)

    def overdue(self, clip_timeout: float | None) -> dict[int, float]:
        """Return the processes that have run one stage for longer than its clips may take, and that time."""
        return {
            process: limit
            for process, running in self.running.items()
            if (limit := running.overdue(clip_timeout)) is not None
        }

    def take_running(self) -> list[StageStarted]:
        """Return what the processes were running when the pool broke, and reset it."""
        self.read()
        running = [one.stage for one in self.running.values()]
        self.running.clear()
        return running


def run_groups(
    tasks: Sequence[GroupTask], jobs: int, watch: Report, clip_timeout: float | None = None
) -> Iterator[list[LedgerLine]]:
    """Run groups on `jobs` processes; yield each group's ledger lines when it ends, in any order.

    When a process exits, the clips that were being processed are run again, alone. If a clip ends its process twice
    when alone, that stage and those that read from it fail with ``worker_killed`` or ``out_of_memory`` (or, the first
    time, with ``timeout`` if it did not end); its other stages and all other clips continue.

    Parameters
    ----------
    watch
        Called with every event that the workers report.
    clip_timeout
        How long a stage may take for a clip before its process is killed [s]; by default from the clip's length.

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
            failure = yield from _run_until_exit(waiting, jobs, progress, clip_timeout)
            if failure is None:
                return
            candidates = {clip for running in progress.take_running() for clip in running.clips}
            candidates |= failure.clips
            if not candidates:
                raise WorkersDiedError(f"worker processes exit before they start a clip: {failure.detail}")
            yield from _run_alone(_take(waiting, candidates), progress, clip_timeout)


def _run_alone(
    tasks: deque[GroupTask], progress: _Progress, clip_timeout: float | None
) -> Iterator[list[LedgerLine]]:
    """Run one group at a time; halve a group whose worker exits, until the clip that causes it is found."""
    tried: set[tuple[str, tuple[str, ...]]] = set()
    while tasks:
        task = tasks.popleft()
        failure = yield from _run_until_exit(deque([task]), 1, progress, clip_timeout)
        if failure is None:
            continue
        running = progress.take_running()
        if len(task.clips) == 1 and failure.may_be_chance and _key(task.clips[0]) not in tried:
            tried.add(_key(task.clips[0]))
            tasks.appendleft(task)
            continue
        lines, next_tasks = divide(task, running[-1] if running else None, failure)
        if lines:
            yield lines
        tasks.extend(next_tasks)


def _run_until_exit(
    waiting: deque[GroupTask], jobs: int, progress: _Progress, clip_timeout: float | None
) -> Generator[list[LedgerLine], None, WorkerExit | None]:
    """Run the waiting groups and remove finished ones from `waiting`; return the reason if a process exited."""
    # Said here by the reason of the clip that ended its worker.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
    killed_before, progress.heard = oom_kills(), time.monotonic()
    hung = 0.0
    try:
        with worker_pool(min(jobs, len(waiting)), start, os.getpid(), progress.path) as pool:
            with terminal_signals_blocked():
                futures: dict[Future[list[LedgerLine]], GroupTask] = {
                    pool.submit(run_reported, task, progress.path): task for task in waiting
                }
            while futures:
                ended, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                progress.read()
                exits = {}
                for future in ended:
                    failure = _exit_of(future, futures[future], oom_kills() > killed_before)
                    if failure is None:
                        lines = future.result()
                        waiting.remove(futures.pop(future))
                        yield lines
                    else:
                        exits[future] = failure
                if exits:
                    return WorkerExit.timeout(hung) if hung else next(iter(exits.values()))
                if time.monotonic() - progress.heard > START_SECONDS:
                    raise WorkersDiedError(
                        f"worker processes have started nothing for {START_SECONDS:.0f} s; the same command continues"
                    )
                for process, limit in progress.overdue(clip_timeout).items():
                    hung = limit
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            return None
    finally:
        _remove_stale()


def _exit_of(future: Future[list[LedgerLine]], task: GroupTask, killed_for_memory: bool) -> WorkerExit | None:
    """Return why the worker of a group exited; None if the group is finished, or raised any other error."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    error = future.exception()
    if isinstance(error, MemoryError):
        ids = frozenset(work.clip.id for work in task.clips)
        return WorkerExit(Reason.OUT_OF_MEMORY, str(error) or "memory ran out", ids)
    if isinstance(error, BrokenProcessPool):
        reason = Reason.OUT_OF_MEMORY if killed_for_memory else Reason.WORKER_KILLED
        return WorkerExit(reason, " ".join(str(error).split()))
    return None


def _key(work: ClipWork) -> tuple[str, tuple[str, ...]]:
    return work.clip.id, tuple(work.stages)


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
