"""The state of a feature folder as the report shows it: coverage, groups of failures and notes, settings, versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages as registered
from triptych.extractors.remedies import REMEDIES
from triptych.extractors.stage import Input
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.run.extraction import Extraction
from triptych.pipeline.storage.index import FeatureIndex
from triptych.pipeline.storage.ledger import read_remarks
from triptych.pipeline.storage.schema import ShardError
from triptych.pipeline.storage.shard_reader import CheckedShard

NO_SPLIT = "no split"
MOST_NAMED = 200  # clips that a group lists
MOST_SHARDS = 200  # of a stage, whose software versions are read
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Coverage:
    """One stage: how many clips of each split are done, and how many are not, by state."""

    stage: str
    by_split: Mapping[str, tuple[int, int]]  # done, all
    done: int
    absent: int
    failed: int
    missing: int
    notes: int
    fingerprint: str


@dataclass
class Group:
    """Clips with the same remark.

    Attributes
    ----------
    kind
        ``failed``, ``absent`` or ``note``.
    title
        The reason, or the note with its numbers replaced.
    clips
        By clip id: the stages, and the detail.
    count
        Clips in the group, also those that `clips` leaves out.
    """

    kind: str
    title: str
    remedy: str
    clips: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    count: int = 0

    def add(self, clip: str, stage: str, detail: str) -> None:
        """Add a clip's stage."""
        if clip in self.clips:
            self.clips[clip][0].append(stage)
            return
        self.clips[clip] = [stage], detail
        self.count += 1


def coverage(found: Extraction) -> list[Coverage]:
    """Count the clips of each stage by split and by state."""
    split_of = {clip.id: clip.split or NO_SPLIT for clip in found.manifest.clips}
    totals: dict[str, int] = {}
    for split in split_of.values():
        totals[split] = totals.get(split, 0) + 1
    rows = []
    for stage, plan in found.plan.stages.items():
        done = dict.fromkeys(totals, 0)
        for clip in plan.done:
            done[split_of[clip]] += 1
        rows.append(
            Coverage(
                stage,
                {split: (done[split], totals[split]) for split in (*SPLITS, NO_SPLIT) if split in totals},
                len(plan.done),
                len(plan.absent),
                len(plan.failed),
                len(plan.todo),
                len(plan.notes),
                found.fingerprints[stage],
            )
        )
    return rows


def groups(found: Extraction) -> list[Group]:
    """Group failures and absences by reason, and notes by wording; failures first, then the largest groups."""
    collected: dict[tuple[str, str], Group] = {}
    for kind, title, clip, stage, detail in _remarks(found):
        remedy = "" if kind == "note" else remedy_of(title)
        collected.setdefault((kind, title), Group(kind, title, remedy)).add(clip, stage, detail)
    order = ("failed", "absent", "note")
    ordered = sorted(collected.values(), key=lambda group: (order.index(group.kind), -group.count))
    for group in ordered:
        group.clips = dict(list(group.clips.items())[:MOST_NAMED])
    return ordered


def remedy_of(reason: str) -> str:
    """Return what to do about a reason; empty for one that this version does not know."""
    return REMEDIES[Reason(reason)] if reason in set(Reason) else ""


def _remarks(found: Extraction) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield kind, title, clip, stage and detail of every failure, absence and note."""
    reasons = _absence_reasons(found)
    for stage, plan in found.plan.stages.items():
        for clip, line in plan.failed.items():
            yield "failed", line.reason, clip, stage, line.detail
        text = Input.TEXT in registered()[stage].reads
        usual = Reason.NO_TRANSCRIPT if text else Reason.NO_VIDEO_STREAM
        for clip in plan.absent:
            reason, detail = reasons.get((clip, stage), (str(usual), ""))
            yield "absent", reason, clip, stage, detail
        for clip, note in plan.notes.items():
            yield "note", _NUMBER.sub("…", note), clip, stage, note


def _absence_reasons(found: Extraction) -> dict[tuple[str, str], tuple[str, str]]:
    if not any(plan.absent for plan in found.plan.stages.values()):
        return {}
    return {
        (line.clip_id, line.stage): (line.reason, line.detail)
        for key, line in read_remarks(found.folder).items()
        if line.outcome == "absent" and key.fingerprint == found.fingerprints.get(key.stage)
    }


@dataclass(frozen=True)
class Made:
    """What made the rows of one stage.

    Attributes
    ----------
    software
        Versions, model revisions and hashes of programs, by name; several values where shards differ.
    attributes
        Further facts that the shards record, such as vision's backend.
    first, last
        When the oldest and the newest shard were written, ISO 8601; empty without shards.
    """

    stage: str
    shards: int
    software: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, tuple[str, ...]]
    first: str
    last: str


def made(found: Extraction) -> list[Made]:
    """Read from the shards of each stage what made them."""
    entries = []
    with FeatureIndex(found.folder) as index:
        for stage, fingerprint in found.fingerprints.items():
            if stage not in found.plan.stages:
                continue
            shards = [shard for shard in index.shards(stage) if shard.fingerprint == fingerprint]
            software: dict[str, dict[str, None]] = {}
            attributes: dict[str, dict[str, None]] = {}
            for shard in shards[:MOST_SHARDS]:
                _collect(shard.shard, stage, software, attributes)
            dates = sorted(shard.created for shard in shards)
            entries.append(
                Made(
                    stage,
                    len(shards),
                    {name: tuple(values) for name, values in software.items()},
                    {name: tuple(values) for name, values in attributes.items()},
                    dates[0] if dates else "",
                    dates[-1] if dates else "",
                )
            )
    return entries


def _collect(path: Any, stage: str, software: dict[str, Any], attributes: dict[str, Any]) -> None:
    try:
        shard = CheckedShard(path, stage)
    except ShardError:  # the folder's state lists it
        return
    try:
        header = shard.read_header()
    except ShardError:
        return
    finally:
        shard.close()
    for found, collected in ((header.software, software), (header.attributes, attributes)):
        for name, value in found.items():
            collected.setdefault(name, {})[str(value)] = None
