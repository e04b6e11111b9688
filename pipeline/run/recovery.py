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
# A stage that takes longer is taken to hang: models are loaded within the first time, and a second of a clip takes a
# hundredth of the second one, on a slow processor a tenth.
START_SECONDS = 600.0
SECONDS_PER_SECOND = 30.0


class WorkersDiedError(Exception):
    """Worker processes exit before they start a clip: no clip is the cause, and no work can be done."""


@dataclass(frozen=True)
class WorkerExit:
    """Why a worker process exited before its work was finished."""

    reason: Reason
    detail: str
    clips: frozenset[str] = frozenset()  # of which one is the cause, if that is known

    @classmethod
    def timeout(cls, seconds: float) -> WorkerExit:
        """Return the exit of a worker that was killed because a stage took too long."""
        return cls(
            Reason.TIMEOUT, f"it was not finished after {seconds:.0f} s; --clip-timeout sets another limit"
        )

    @property
    def may_be_chance(self) -> bool:
        """Return whether a single clip is run once more: another program may have killed its worker."""
        return self.reason != Reason.TIMEOUT


@dataclass(frozen=True)
class Running:
    """The stage that a worker process is running, and since when."""

    stage: StageStarted
    since: float = field(default_factory=time.monotonic)

    def overdue(self, clip_timeout: float | None) -> float | None:
        """Return the time limit of the stage's clips if it has taken longer; None while it has not."""
        limit = time_limit(self.stage, clip_timeout)
        return limit if time.monotonic() - self.since > limit else None


def time_limit(stage: StageStarted, clip_timeout: float | None) -> float:
    """Return how long a stage may take [s]: for one clip the limit that was given, else by the clips' length."""
    by_length = START_SECONDS + SECONDS_PER_SECOND * stage.seconds
    if clip_timeout is None:
        return by_length
    return min(len(stage.clips) * clip_timeout, max(clip_timeout, by_length))


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
            detail=f"its worker process exited each time on this clip: {failure.detail}",
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
