"""What is still missing of tasks whose results never arrived: the shards in the feature folder decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.graph import source_digest
from triptych.pipeline.storage.index import FeatureIndex

Key = tuple[str, str, str, str]  # stage, clip, fingerprint, digest


def remaining(tasks: Sequence[GroupTask]) -> tuple[list[GroupTask], list[str]]:
    """Read the feature folder; leave out of tasks what intact shards already have.

    Parameters
    ----------
    tasks
        Tasks of one feature folder.

    Returns
    -------
    tuple of list of GroupTask and list of str
        The tasks that have work left, with this work; the ids of the clips that are complete.
    """
    clips = {work.clip.id for task in tasks for work in task.clips}  # few of a large folder's
    with FeatureIndex(tasks[0].folder) as index:
        saved: dict[Key, Path] = {
            (stage, holding.clip_id, holding.fingerprint, holding.digest): holding.shard
            for stage in index.stages()
            for holding in index.holdings(stage)
            if holding.clip_id in clips
        }
    left, complete = [], []
    for task in tasks:
        works = [_missing(work, task, saved) for work in task.clips]
        complete += [work.clip.id for work in works if not work.stages]
        if unfinished := tuple(work for work in works if work.stages):
            left.append(replace(task, clips=unfinished))
    return left, complete


def _missing(work: ClipWork, task: GroupTask, saved: dict[Key, Path]) -> ClipWork:
    found = {
        stage: shard
        for stage in work.stages
        if (
            shard := saved.get(
                (stage, work.clip.id, task.fingerprints[stage], source_digest(stage, work.digests))
            )
        )
    }
    return replace(
        work,
        stages=tuple(stage for stage in work.stages if stage not in found),
        saved={**work.saved, **found},
    )
