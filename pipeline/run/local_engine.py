"""Groups of clips over worker processes of one machine; a process that dies takes one clip with it, not the run."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.extractors.base import Reason
from triptych.extractors.vision.openface.scratch import remove_stale
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.recovery import Begun, Death, WorkersDiedError, narrowed, parted
from triptych.pipeline.run.worker import GroupTask, run_reported, start
from triptych.pipeline.storage.ledger import LedgerLine

POLL_SECONDS = 0.2
STAGE_SECONDS = 1800.0  # a stage of one clip that takes longer hangs; real time is a hundredth of it

Watch = Callable[[dict[str, Any]], None]


@dataclass
class _Reports:
    """The file into which workers write what they begin and end, read as it grows."""

    path: Path
    watch: Watch
    begun: dict[int, Begun] = field(default_factory=dict)  # by process
    _position: int = 0

    def read(self) -> None:
        with self.path.open("rb") as stream:
            stream.seek(self._position)
            lines = stream.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if "begin" in event:
                self.begun[event["pid"]] = Begun(tuple(event["begin"]), event["stage"], time.monotonic())
            else:
                self.begun.pop(event["pid"], None)
            self.watch(event)

    def overdue(self, seconds: float) -> list[int]:
        """Processes that have been at one stage for longer than its clips may take."""
        now = time.monotonic()
        return [pid for pid, at in self.begun.items() if now - at.since > seconds * len(at.clips)]

    def at_death(self) -> list[Begun]:
        self.read()
        begun = list(self.begun.values())
        self.begun.clear()
        return begun


def run_groups(
    tasks: Sequence[GroupTask], jobs: int, watch: Watch, stage_seconds: float = STAGE_SECONDS
) -> Iterator[list[LedgerLine]]:
    """Run groups on `jobs` processes, giving each group's ledger lines as it ends, in any order.

    When a process dies, the clips that were under way are run again apart from all others. A clip that kills
    its process when alone loses that stage, and what reads from it, as ``worker_killed`` (``timeout`` where
    it did not end); its other stages and all other clips go on.

    Parameters
    ----------
    watch
        Told every event as the workers report it, each with its ``pid``: ``{"begin": [ids], "stage"}``,
        ``{"end": id, "frames", "failed"}`` and ``{"written": stage}``.
    stage_seconds
        How long a stage may take for each clip before its process is killed.

    Raises
    ------
    WorkersDiedError
        Processes die without having begun a clip.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-") as scratch:
        reports = _Reports(Path(scratch) / "progress", watch)
        reports.path.touch()
        remove_stale()  # what a run that was killed has left
        waiting = deque(tasks)
        while waiting:
            death = yield from _run_until_death(waiting, jobs, reports, stage_seconds)
            if death is None:
                return
            suspects = {clip for begun in reports.at_death() for clip in begun.clips}
            if not suspects:
                raise WorkersDiedError(f"worker processes die before they begin a clip: {death.detail}")
            yield from _run_apart(_take(waiting, suspects), reports, stage_seconds)


def _run_apart(
    suspected: deque[GroupTask], reports: _Reports, stage_seconds: float
) -> Iterator[list[LedgerLine]]:
    """Run suspects one group at a time, halving a group that dies until the clip is found that it was."""
    while suspected:
        task = suspected.popleft()
        death = yield from _run_until_death(deque([task]), 1, reports, stage_seconds)
        if death is None:
            continue
        begun = reports.at_death()
        lines, apart = narrowed(task, begun[-1] if begun else None, death)
        if lines:
            yield lines
        suspected.extend(apart)


def _run_until_death(
    waiting: deque[GroupTask], jobs: int, reports: _Reports, stage_seconds: float
) -> Generator[list[LedgerLine], None, Death | None]:
    """Run what waits, taking from `waiting` only what has ended; return why, if a process died."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    pool = ProcessPoolExecutor(
        max_workers=min(jobs, len(waiting)),
        initializer=start,
        initargs=(os.getpid(), reports.path),
        env=ONE_THREAD,
    )
    hung = False
    try:
        running: dict[Future[list[LedgerLine]], GroupTask] = {
            pool.submit(run_reported, task, reports.path): task for task in waiting
        }
        while running:
            ended, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            reports.read()
            broken = [future for future in ended if isinstance(future.exception(), BrokenProcessPool)]
            for future in ended.difference(broken):
                lines = future.result()
                waiting.remove(running.pop(future))
                yield lines
            if broken and hung:
                return Death(Reason.TIMEOUT, f"it had not ended after {stage_seconds:.0f} s")
            if broken:
                return Death(Reason.WORKER_KILLED, str(broken[0].exception()).strip())
            for pid in reports.overdue(stage_seconds):
                hung = True
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return None
    finally:
        # Killed rather than asked: whoever leaves here early (an interrupt, a death) leaves no process behind.
        pool.shutdown(wait=True, kill_workers=True)
        remove_stale()


def _take(waiting: deque[GroupTask], suspects: set[str]) -> deque[GroupTask]:
    """Take the suspects out of the groups that wait, into groups of their own."""
    apart: deque[GroupTask] = deque()
    for task in list(waiting):
        suspected, others = parted(task, suspects)
        if suspected:
            apart.append(suspected)
            place = waiting.index(task)
            waiting.remove(task)
            if others:
                waiting.insert(place, others)
    return apart
