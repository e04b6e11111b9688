"""What becomes of a group whose worker process died: which clip it was, and what goes on without it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from triptych.extractors.base import Reason
from triptych.pipeline.stages.fingerprints import STAGES, with_upstream
from triptych.pipeline.storage.ledger import LedgerLine

if TYPE_CHECKING:
    from triptych.pipeline.run.worker import GroupTask


class WorkersDiedError(Exception):
    """Worker processes die before they begin a clip: no clip can be blamed, and nothing can run."""


class Death(NamedTuple):
    """Why a worker process ended before its work did."""

    reason: Reason
    detail: str


class Begun(NamedTuple):
    """What a worker process is at."""

    clips: tuple[str, ...]
    stage: str
    since: float


def narrowed(task: GroupTask, begun: Begun | None, death: Death) -> tuple[list[LedgerLine], list[GroupTask]]:
    """Halve a group that killed its process when alone; give a single clip's stage up.

    Parameters
    ----------
    begun
        What it was at, where that is known.

    Returns
    -------
    tuple of list of LedgerLine and list of GroupTask
        What is given up: of a single clip the stage it died in, and what reads from that. What is to be run
        next, each apart from all others.
    """
    if len(task.clips) > 1:
        half = len(task.clips) // 2
        return [], [replace(task, clips=part) for part in (task.clips[:half], task.clips[half:])]
    work = task.clips[0]
    lost = _with_downstream(begun.stage) if begun else set(work.stages)
    lines = [
        LedgerLine(
            clip_id=work.clip.id,
            stage=stage,
            outcome="failed",
            reason=death.reason,
            detail=f"its worker process died twice on this clip: {death.detail}",
            seconds=0.0,
            fingerprint=task.fingerprints[stage],
            digest=work.digests[STAGES[stage].source],
        )
        for stage in work.stages
        if stage in lost
    ]
    rest = tuple(stage for stage in work.stages if stage not in lost)
    return lines, [replace(task, clips=(replace(work, stages=rest),))] if rest else []


def parted(task: GroupTask, suspects: Collection[str]) -> tuple[GroupTask | None, GroupTask | None]:
    """Part a group into its suspects and the others, None where there is no such clip."""
    suspected = tuple(work for work in task.clips if work.clip.id in suspects)
    others = tuple(work for work in task.clips if work.clip.id not in suspects)
    return (
        replace(task, clips=suspected) if suspected else None,
        replace(task, clips=others) if others else None,
    )


def _with_downstream(stage: str) -> set[str]:
    return {name for name in STAGES if stage in with_upstream([name])}
