"""What is run again after a worker process has exited, what is given up, and what goes on without it."""

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
STAGE_SECONDS = 1800.0  # a stage of one clip that takes longer hangs; usual is a hundredth of it


class WorkersDiedError(Exception):
    """Worker processes exit before they start a clip: no clip can be the cause, and nothing can run."""


@dataclass(frozen=True)
class WorkerExit:
    """Why a worker process exited before its work was finished."""

    reason: Reason
    detail: str

    @classmethod
    def timeout(cls, seconds: float) -> WorkerExit:
        """It was ended because one stage took too long."""
        return cls(Reason.TIMEOUT, f"it was not finished after {seconds:.0f} s")


@dataclass(frozen=True)
class Running:
    """The stage that a worker process is running, and since when."""

    stage: StageStarted
    since: float = field(default_factory=time.monotonic)

    def overdue(self, seconds: float) -> bool:
        """Whether it has taken longer than its clips may, at so many seconds a clip."""
        return time.monotonic() - self.since > seconds * len(self.stage.clips)


def divide(
    task: GroupTask, running: StageStarted | None, failure: WorkerExit
) -> tuple[list[LedgerLine], list[GroupTask]]:
    """Halve a group whose worker exited when it ran alone; give up the stage of a single clip.

    Parameters
    ----------
    running
        The stage that the worker was running, where that is known.

    Returns
    -------
    tuple of list of LedgerLine and list of GroupTask
        What is given up: of a single clip the stage at which the worker exited, and what reads from it. What is
        to be run next, each task alone.
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
