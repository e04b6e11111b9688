"""Groups of clips over worker processes of one machine; a process that dies takes one clip with it, not the run."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from extractors.base import Reason
from extractors.openface.scratch import remove_stale
from pipeline.ledger import LedgerLine
from pipeline.plan import ClipWork
from pipeline.stages import STAGES
from pipeline.threads import ONE_THREAD
from pipeline.worker import GroupTask, run_reported, start

POLL_SECONDS = 0.2
Watch = Callable[[dict[str, Any]], None]


class WorkersDiedError(Exception):
    """Worker processes die before they begin a clip: no clip can be blamed, and nothing can run."""


@dataclass
class _Reports:
    """The file into which workers write what they begin and end, read as it grows."""

    path: Path
    watch: Watch
    begun: dict[int, list[str]] = field(default_factory=dict)  # by process: clips it is at
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
                self.begun[event["pid"]] = event["begin"]
            else:
                self.begun.pop(event["pid"], None)
            self.watch(event)

    def suspects(self) -> set[str]:
        self.read()
        found = {clip for clips in self.begun.values() for clip in clips}
        self.begun.clear()
        return found


def run_groups(tasks: Sequence[GroupTask], jobs: int, watch: Watch) -> Iterator[list[LedgerLine]]:
    """Run groups on `jobs` processes, giving each group's ledger lines as it ends, in any order.

    When a process dies, the clips that were under way are run alone, one at a time; one that kills its
    process again is given up as ``worker_killed``. All other clips go on.

    Parameters
    ----------
    watch
        Told every event as the workers report it: ``{"begin": [ids]}`` or ``{"end": id, "frames", "failed"}``.

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
            death = yield from _run_until_death(waiting, jobs, reports)
            if death is None:
                return
            suspects = reports.suspects()
            if not suspects:
                raise WorkersDiedError(f"worker processes die before they begin a clip: {death}")
            alone = _take(waiting, suspects)
            for task in alone:
                queue = deque([task])
                death = yield from _run_until_death(queue, 1, reports)
                if death is not None:
                    reports.suspects()
                    yield _killed(task, death)


def _run_until_death(
    waiting: deque[GroupTask], jobs: int, reports: _Reports
) -> Generator[list[LedgerLine], None, str | None]:
    """Run what waits, taking from `waiting` only what has ended; return the reason if a process died."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    pool = ProcessPoolExecutor(
        max_workers=min(jobs, len(waiting)),
        initializer=start,
        initargs=(os.getpid(), reports.path),
        env=ONE_THREAD,
    )
    try:
        running: dict[Future[list[LedgerLine]], GroupTask] = {
            pool.submit(run_reported, task, reports.path): task for task in waiting
        }
        while running:
            ended, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            reports.read()
            for future in ended:
                try:
                    lines = future.result()
                except BrokenProcessPool as error:
                    return str(error).strip() or type(error).__name__
                waiting.remove(running.pop(future))
                yield lines
        return None
    finally:
        # Killed rather than asked: whoever leaves here early (an interrupt, a death) leaves no process behind.
        pool.shutdown(wait=True, kill_workers=True)
        remove_stale()


def _take(waiting: deque[GroupTask], suspects: set[str]) -> list[GroupTask]:
    """Take the suspects out of the groups that wait, each as a group of its own."""
    alone: list[GroupTask] = []
    for task in list(waiting):
        rest = tuple(work for work in task.clips if work.clip.id not in suspects)
        alone += [replace(task, clips=(work,)) for work in task.clips if work.clip.id in suspects]
        if len(rest) < len(task.clips):
            place = waiting.index(task)
            waiting.remove(task)
            if rest:
                waiting.insert(place, replace(task, clips=rest))
    return alone


def _killed(task: GroupTask, death: str) -> list[LedgerLine]:
    def line(work: ClipWork, stage: str) -> LedgerLine:
        return LedgerLine(
            clip_id=work.clip.id,
            stage=stage,
            outcome="failed",
            reason=Reason.WORKER_KILLED,
            detail=f"its worker process died twice on this clip: {death}",
            seconds=0.0,
            fingerprint=task.fingerprints[stage],
            digest=work.digests[STAGES[stage].source],
        )

    return [line(work, stage) for work in task.clips for stage in work.stages]
