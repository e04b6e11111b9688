"""Divide the clips of a run into disjoint parts, so that several runs share the work of one folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import shown

if TYPE_CHECKING:
    from triptych.pipeline.manifest.clips import Clip
    from triptych.pipeline.run.plan import Plan

MOST_PARTS = 99_999


@dataclass(frozen=True)
class Partition:
    """One of several disjoint parts of all clips.

    A clip's part depends only on its id, through SHA-256. So every machine and every Python process divides a source
    in the same way, in any order of its clips, and a clip that is added moves no other one.

    Attributes
    ----------
    number
        Which part, from 1 to `count`.
    count
        How many parts there are.

    Raises
    ------
    InputError
        The part does not exist.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_PARTS:
            raise InputError(f"partition {self}: expected 1 to {MOST_PARTS} parts, such as 1/8")
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"partition {self}: the parts are numbered from 1 to {self.count}. Start a SLURM array with "
                "--array=1-N; to repeat some of its tasks, name the whole N here"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2/8``.

        Raises
        ------
        InputError
            It is no part.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if match is None:
            raise InputError(
                f"partition {shown(text)!r}: expected the part and the number of parts, such as 2/8"
            )
        return cls(int(match[1]), int(match[2]))

    def has(self, clip: str) -> bool:
        """Return whether a clip, by its id, is in this part."""
        digest = hashlib.sha256(clip.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def selected(ids: Iterable[str], limit: int | None, partition: Partition | None) -> frozenset[str] | None:
    """Return the ids that a run is limited to: of the first `limit`, those of its part; None for all.

    So the parts of a limited source are together the limited source.
    """
    if limit is None and partition is None:
        return None
    first = list(ids)[:limit]
    return frozenset(id for id in first if partition is None or partition.has(id))


def within_part(plan: Plan, manifest: Iterable[Clip], clips: Collection[str] | None) -> Plan:
    """Count the positions of a part's clips within the part.

    Groups are ranges of positions. Counted in the whole manifest, a group of 64 clips would have 64 / N clips of a
    part, and a folder N times as many shards.

    Parameters
    ----------
    plan
        The plan of the part.
    manifest
        All clips of the folder.
    clips
        Ids of the part; None for all clips.
    """
    if clips is None:
        return plan
    of_part = (clip.id for clip in manifest if clip.id in clips)
    positions = {id: position for position, id in enumerate(of_part)}
    work = tuple(replace(one, position=positions[one.clip.id]) for one in plan.work)
    return replace(plan, work=work, count=len(positions))
