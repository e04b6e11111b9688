"""The unit of work that an engine sends to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from triptych.extractors.media.length import BYTES_PER_SECOND
from triptych.extractors.registry import stages
from triptych.pipeline.run.plan import ClipWork, Plan, shared
from triptych.pipeline.stages.recipe import Recipe


@dataclass(frozen=True)
class GroupTask:
    """A group of clips with their missing stages, and everything that a worker needs to extract them.

    Attributes
    ----------
    buffer_bytes
        Decoded frames of a clip are buffered for its later stages up to this size.
    device
        The device that torch computes on: ``cpu`` or ``cuda``.
    """

    folder: Path
    recipe: Recipe
    fingerprints: Mapping[str, str]
    clips: tuple[ClipWork, ...]
    buffer_bytes: int
    device: str = "cpu"


def group_tasks(plan: Plan, size: int | None, workers: int, like: GroupTask) -> list[GroupTask]:
    """Divide the work into groups, the largest first, so that the workers end at about the same time.

    Small groups are joined where a stage starts a program for each batch.

    Parameters
    ----------
    size
        Clips in a group; None for the plan's own size.
    workers
        How many tasks there are at least, where groups are joined.
    like
        A task without clips.
    """
    groups = plan.groups(size)
    sizes = {work.clip.id: _bytes(work) for work in plan.work}
    names = {name for work in plan.work for name in work.stages}
    if any(stages()[name].shares_start(like.recipe.section(name)) for name in names):
        groups = shared(groups, sizes, workers)
    tasks = [replace(like, clips=group) for group in groups]
    return sorted(tasks, key=lambda task: -sum(sizes[work.clip.id] for work in task.clips))


def _bytes(work: ClipWork) -> int:
    clip = work.clip
    size = clip.file.stat().st_size if clip.file.is_file() else 0
    start, end = clip.span or (0.0, None)
    return size if end is None else min(size, round((end - start) * BYTES_PER_SECOND))
