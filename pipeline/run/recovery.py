"""Recovery after a worker's exit: which clips are run again, and which fail."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from triptych.extractors.base import Reason
from triptych.pipeline.run.events import StageStarted
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.graph import source_digest, with_downstream
from triptych.pipeline.storage.ledger import LedgerLine

POLL_SECONDS = 0.2
STAGE_SECONDS = 1800.0  # a stage that takes longer for one clip is taken to hang; a hundredth of it is usual


class WorkersDiedError(Exception):
    """Worker processes exit before they start a clip: no clip is the cause, and no work can be done."""


@dataclass(frozen=True)
class WorkerExit:
    """Why a worker process exited before its work was finished."""

    reason: Reason
    detail: str

    @classmethod
    def timeout(cls, seconds: float) -> WorkerExit:
        """Return the exit of a worker that was killed because a stage took too long."""
        return cls(Reason.TIMEOUT, f"it was not finished after {seconds:.0f} s")


@dataclass(frozen=True)
class Running:
    """The stage that a worker process is running, and since when."""

    stage: StageStarted
    since: float = field(default_factory=time.monotonic)

    def overdue(self, seconds: float) -> bool:
        """Return whether it has taken longer than its clips may, given the limit in seconds for each clip."""
        return time.monotonic() - self.since > seconds * len(self.stage.clips)


def divide(
    task: GroupTask, running: StageStarted | None, failure: WorkerExit
) -> tuple[list[LedgerLine], list[GroupTask]]:
    """Halve a group whose worker exited when it ran alone; the stage of a single clip fails.

    Parameters
    ----------
    running
        The stage that the worker was running, if known.

    Returns
    -------
    tuple of list of LedgerLine and list of GroupTask
        The failures: for a single clip, the stage at which the worker exited and the stages that read it. The
        tasks to run next, each of them alone.
    """
    if len(task.clips) > 1:
        half = len(task.clips) // 2
        return [], [replace(task, clips=part) for part in (task.clips[:half], task.clips[half:])]
    work = task.clips[0]
    lost = with_downstream(running.stage) if running else frozenset(work.stages)
    lines = [
        LedgerLine(
            clip_id=work.clip.id,
            stage=stage,
            outcome="failed",
            reason=failure.reason,
            detail=f"its worker process exited twice on this clip: {failure.detail}",
            seconds=0.0,
            fingerprint=task.fingerprints[stage],
            digest=source_digest(stage, work.digests),
        )
        for stage in work.stages
        if stage in lost
    ]
    rest = tuple(stage for stage in work.stages if stage not in lost)
    return lines, [replace(task, clips=(replace(work, stages=rest),))] if rest else []


def separate(task: GroupTask, clips: Collection[str]) -> tuple[GroupTask | None, GroupTask | None]:
    """Split a group into the named clips and the others; None if the group has none of them."""
    named = tuple(work for work in task.clips if work.clip.id in clips)
    others = tuple(work for work in task.clips if work.clip.id not in clips)
    return (replace(task, clips=named) if named else None, replace(task, clips=others) if others else None)
