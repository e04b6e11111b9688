"""Plan a run: which clips are missing in each stage, and why. Reads no files itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from heapq import heapreplace
from pathlib import Path

from triptych.extractors.registry import stages as registered
from triptych.extractors.stage import Input
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.stages.graph import source_digest
from triptych.pipeline.storage.index import Holding, text_digest
from triptych.pipeline.storage.ledger import LedgerKey, LedgerLine

LARGEST_GROUP = 64
GROUPS_AT_LEAST = (
    16  # a small manifest is divided into about this many groups, so that several workers share the work
)
# Small groups are joined where each start of a program costs time. A task of more than `SHARED` would lose much when a
# run is stopped; one of less than `WORTHWHILE`, in clips and in bytes, would spend its time on the start.
SHARED_CLIPS, SHARED_BYTES = 16, 64 * 2**20
WORTHWHILE_CLIPS, WORTHWHILE_BYTES = 8, 8 * 2**20


class Why(StrEnum):
    """Why a stage has to be run on a clip."""

    NEW = "new"
    SETTINGS_CHANGED = "settings changed"
    CLIP_CHANGED = "clip changed"
    FAILED_BEFORE = "failed before"


@dataclass(frozen=True)
class ClipWork:
    """One clip, and the stages of it that are missing.

    Attributes
    ----------
    digests
        By source (``"text"``, ``"media"``): SHA-256 of what the stages read; empty where there is none.
    saved
        By stage: the shard that already has an upstream stage's rows.
    group
        The number of its group, whose clips share a batch.
    """

    clip: Clip
    stages: tuple[str, ...]
    digests: Mapping[str, str]
    saved: Mapping[str, Path] = field(default_factory=dict)
    group: int = 0


@dataclass
class StagePlan:
    """The state of one stage: clip ids, in the manifest's order.

    Attributes
    ----------
    notes
        What a user should know about the rows of clips that are done, such as a cut transcript.
    """

    done: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failed: dict[str, LedgerLine] = field(default_factory=dict)
    todo: dict[str, Why] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All stages' plans, and the work that they add up to."""

    stages: Mapping[str, StagePlan]
    work: tuple[ClipWork, ...]
    positions: Mapping[str, int]

    def groups(self, size: int | None = None) -> list[tuple[ClipWork, ...]]:
        """Divide the work into groups; each group makes one shard for each stage.

        A group is a range of consecutive clips of the manifest, and does not depend on which of them are missing. So
        the same sentences share a batch and give the same bits for any number of workers, and also if a run was
        stopped and continued. (The exception is a group with a clip that killed its worker: its other clips are
        embedded in another batch.)

        Parameters
        ----------
        size
            Clips in a group; by default 64, and fewer if the manifest is small.
        """
        size = size or max(1, min(LARGEST_GROUP, -(-len(self.positions) // GROUPS_AT_LEAST)))
        groups: dict[int, list[ClipWork]] = {}
        for work in self.work:
            number = self.positions[work.clip.id] // size
            groups.setdefault(number, []).append(replace(work, group=number))
        return [tuple(group) for _, group in sorted(groups.items())]


def shared(
    groups: Sequence[tuple[ClipWork, ...]], sizes: Mapping[str, int], workers: int
) -> list[tuple[ClipWork, ...]]:
    """Join small groups, so that one start of a program serves the clips of several.

    Each worker gets work, of about equal size in bytes, unless there is too little for so many starts. Clips remember
    their group, so that its other batches are the same.

    Parameters
    ----------
    sizes
        By clip id: bytes of the media file.
    workers
        How many tasks run at the same time.
    """
    weights = [sum(sizes[work.clip.id] for work in group) for group in groups]
    clips, size = sum(map(len, groups)), sum(weights)
    worthwhile = max(-(-clips // WORTHWHILE_CLIPS), -(-size // WORTHWHILE_BYTES))
    together = max(1, SHARED_CLIPS // max(map(len, groups), default=1))
    count = max(min(workers, worthwhile), -(-len(groups) // together), -(-size // SHARED_BYTES))
    if count >= len(groups):
        return list(groups)
    joined: list[list[ClipWork]] = [[] for _ in range(count)]
    filled = [
        (0, 0, task) for task in range(count)
    ]  # a heap of bytes, clips and tasks: the emptiest is first
    for weight, number in sorted(((weight, number) for number, weight in enumerate(weights)), reverse=True):
        in_bytes, in_clips, task = filled[0]
        joined[task] += groups[number]
        heapreplace(filled, (in_bytes + weight, in_clips + len(groups[number]), task))
    return [tuple(sorted(task, key=lambda work: work.group)) for task in joined]


@dataclass(frozen=True)
class _OnDisk:
    """The content of shards and ledger, by stage and clip."""

    saved: Mapping[tuple[str, str], Sequence[Holding]]
    failed: Mapping[tuple[str, str], Sequence[LedgerLine]]
    absent: frozenset[LedgerKey]
    notes: Mapping[LedgerKey, str]

    @classmethod
    def gather(cls, holdings: Mapping[str, Iterable[Holding]], ledger: Iterable[LedgerLine]) -> _OnDisk:
        saved: dict[tuple[str, str], list[Holding]] = {}
        for stage, in_stage in holdings.items():
            for holding in in_stage:
                saved.setdefault((stage, holding.clip_id), []).append(holding)
        failed: dict[tuple[str, str], list[LedgerLine]] = {}
        absent, notes = set(), {}
        for line in ledger:
            if line.outcome == "failed":
                failed.setdefault((line.stage, line.clip_id), []).append(line)
            elif line.outcome == "absent":
                absent.add(LedgerKey.of(line))
            elif line.outcome == "done" and line.detail:
                notes[LedgerKey.of(line)] = line.detail
        return cls(saved, failed, frozenset(absent), notes)

    def holding(self, stage: str, clip: str, fingerprint: str, digest: str) -> Holding | None:
        found = self.saved.get((stage, clip), ())
        return next((h for h in found if (h.fingerprint, h.digest) == (fingerprint, digest)), None)

    def failure(self, stage: str, clip: str, fingerprint: str, digest: str) -> LedgerLine | None:
        found = self.failed.get((stage, clip), ())
        return next((f for f in found if (f.fingerprint, f.digest) == (fingerprint, digest)), None)

    def why(self, stage: str, clip: str, fingerprint: str) -> Why:
        before: list[Holding | LedgerLine] = [
            *self.saved.get((stage, clip), ()),
            *self.failed.get((stage, clip), ()),
        ]
        if not before:
            return Why.NEW
        return Why.CLIP_CHANGED if any(b.fingerprint == fingerprint for b in before) else Why.SETTINGS_CHANGED


def make_plan(
    manifest: Manifest,
    fingerprints: Mapping[str, str],
    media_digests: Mapping[str, str],
    holdings: Mapping[str, Iterable[Holding]],
    ledger: Iterable[LedgerLine],
    *,
    stages: Sequence[str],
    clips: Collection[str] | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Compare the requested features with those that exist.

    Parameters
    ----------
    manifest
        The requested clips.
    fingerprints
        The requested recipe's fingerprints, by stage.
    media_digests
        By clip id: SHA-256 of the media file, empty where it is missing.
    holdings, ledger
        The content of the shards, by stage; the ledger's lines. Only the shards decide what is done.
    stages
        The requested stages, upstream stages included, in the graph's order.
    clips
        Ids of the clips to plan for; None for all.
    retry_failed
        Plan failed clips again.
    """
    known = _OnDisk.gather(holdings, ledger)
    plans = {name: StagePlan() for name in stages}
    work = []
    for clip in manifest.clips:
        if clips is not None and clip.id not in clips:
            continue
        transcript = clip.text if clip.text and clip.text.strip() else None
        digests = {
            "text": text_digest(transcript) if transcript else "",
            "media": media_digests.get(clip.id, ""),
        }
        saved: dict[str, Path] = {}
        for name in stages:
            _sort_in(plans, name, clip, digests, fingerprints[name], known, saved, retry_failed)
        missing = tuple(name for name in stages if clip.id in plans[name].todo)
        if missing:
            work.append(ClipWork(clip, missing, digests, saved))
    positions = {clip.id: position for position, clip in enumerate(manifest.clips)}
    return Plan(plans, tuple(work), positions)


def _sort_in(
    plans: Mapping[str, StagePlan],
    name: str,
    clip: Clip,
    digests: Mapping[str, str],
    fingerprint: str,
    known: _OnDisk,
    saved: dict[str, Path],
    retry_failed: bool,
) -> None:
    """Put one clip into one of the four lists of one stage."""
    stage, plan = registered()[name], plans[name]
    digest = source_digest(name, digests)
    if Input.TEXT in stage.reads and not digests["text"]:
        plan.absent.append(clip.id)
        return
    holding = known.holding(name, clip.id, fingerprint, digest)
    if holding:
        plan.done.append(clip.id)
        if note := known.notes.get(LedgerKey(clip.id, name, fingerprint, digest)):
            plan.notes[clip.id] = note
        saved[name] = holding.shard
        return
    if LedgerKey(clip.id, name, fingerprint, digest) in known.absent:
        plan.absent.append(clip.id)
        return
    failure = known.failure(name, clip.id, fingerprint, digest)
    if failure is None:  # a failed stage has no rows for the stages that read it
        failure = next(
            (
                plans[up].failed[clip.id]
                for up in stage.upstream
                if up in plans and clip.id in plans[up].failed
            ),
            None,
        )
    if failure and not retry_failed:
        plan.failed[clip.id] = failure
        return
    plan.todo[clip.id] = Why.FAILED_BEFORE if failure else known.why(name, clip.id, fingerprint)
