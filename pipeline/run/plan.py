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
from triptych.pipeline.stages.graph import source_digest, sources
from triptych.pipeline.storage.index import ShardClips, text_digest
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
    position
        The clip's position in the manifest.
    group
        The number of its group, whose clips share a batch.
    """

    clip: Clip
    stages: tuple[str, ...]
    digests: Mapping[str, str]
    saved: Mapping[str, Path] = field(default_factory=dict)
    position: int = 0
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
    """All stages' plans, and the work that they add up to.

    Attributes
    ----------
    count
        Clips of the manifest.
    unlisted
        Ids of clips in the shards that the manifest does not list.
    """

    stages: Mapping[str, StagePlan]
    work: tuple[ClipWork, ...]
    count: int
    unlisted: frozenset[str] = frozenset()

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
        size = size or max(1, min(LARGEST_GROUP, -(-self.count // GROUPS_AT_LEAST)))
        groups: dict[int, list[ClipWork]] = {}
        for work in self.work:
            number = work.position // size
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


class _Digests:
    """The digests of each clip's content; those of transcripts are computed when they are asked for.

    Parameters
    ----------
    clips
        The clips.
    media
        By clip id: SHA-256 of the media file.
    """

    def __init__(self, clips: Sequence[Clip], media: Mapping[str, str]) -> None:
        self._clips, self._media = clips, media

    def text(self, position: int) -> str:
        """Return the SHA-256 of a clip's transcript; empty without one."""
        text = self._clips[position].text
        return text_digest(text) if text and text.strip() else ""

    def media(self, position: int) -> str:
        """Return the SHA-256 of a clip's media file; empty without one."""
        return self._media.get(self._clips[position].id, "")

    def of(self, position: int) -> dict[str, str]:
        """Return both, by source."""
        return {"text": self.text(position), "media": self.media(position)}

    def of_stages(self, stages: Iterable[str]) -> dict[str, list[str]]:
        """Return the digests of all clips, by stage; stages that read the same parts of a clip share one list."""
        columns: dict[frozenset[str], list[str]] = {}
        for stage in stages:
            parts = sources(stage)
            if parts not in columns:
                one = {frozenset({"text"}): self.text, frozenset({"media"}): self.media}.get(parts)
                columns[parts] = [
                    one(position) if one else source_digest(stage, self.of(position))
                    for position in range(len(self._clips))
                ]
        return {stage: columns[sources(stage)] for stage in stages}


_OTHER_SETTINGS, _OTHER_CONTENT = 1, 2  # 0: no rows at all


@dataclass
class _Saved:
    """What one stage's shards have, by the clip's position in the manifest.

    Attributes
    ----------
    shards
        The shard with rows of the wanted settings and the clip's content.
    others
        Whether there are rows of other settings or of another content.
    """

    shards: list[Path | None]
    others: bytearray

    @classmethod
    def of(cls, count: int) -> _Saved:
        return cls([None] * count, bytearray(count))

    def add_other(self, position: int, same_settings: bool) -> None:
        """Note that there are rows of a clip that are not those that are wanted."""
        self.others[position] = max(
            self.others[position], _OTHER_CONTENT if same_settings else _OTHER_SETTINGS
        )


@dataclass(frozen=True)
class _Logged:
    """What the ledger explains."""

    failed: Mapping[tuple[str, str], Sequence[LedgerLine]]  # by stage and clip
    absent: frozenset[LedgerKey]
    notes: Mapping[LedgerKey, str]
    clips: frozenset[str]  # that any line is about

    @classmethod
    def gather(cls, ledger: Iterable[LedgerLine]) -> _Logged:
        failed: dict[tuple[str, str], list[LedgerLine]] = {}
        absent, notes, clips = set(), {}, set()
        for line in ledger:
            clips.add(line.clip_id)
            if line.outcome == "failed":
                failed.setdefault((line.stage, line.clip_id), []).append(line)
            elif line.outcome == "absent":
                absent.add(LedgerKey.of(line))
            elif line.detail:
                notes[LedgerKey.of(line)] = line.detail
        return cls(failed, frozenset(absent), notes, frozenset(clips))

    def failure(self, stage: str, clip: str, fingerprint: str, digest: str) -> LedgerLine | None:
        found = self.failed.get((stage, clip), ())
        return next((f for f in found if (f.fingerprint, f.digest) == (fingerprint, digest)), None)


def make_plan(
    manifest: Manifest,
    fingerprints: Mapping[str, str],
    media_digests: Mapping[str, str],
    shards: Mapping[str, Iterable[ShardClips]],
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
    shards, ledger
        The shards, by stage, read once; the ledger's lines. Only the shards decide what is done.
    stages
        The requested stages, upstream stages included, in the graph's order.
    clips
        Ids of the clips to plan for; None for all.
    retry_failed
        Plan failed clips again.
    """
    digests = _Digests(manifest.clips, media_digests)
    of_stages = digests.of_stages(stages)
    saved, unlisted = _gather(manifest.clips, fingerprints, of_stages, shards)
    planner = _Planner(
        fingerprints,
        saved,
        of_stages,
        _Logged.gather(ledger),
        retry_failed,
        {name: StagePlan() for name in stages},
    )
    work = []
    for position, clip in enumerate(manifest.clips):
        if clips is not None and clip.id not in clips:
            continue
        missing = planner.missing(position, clip)
        if missing:
            there = {name: shard for name in stages if (shard := saved[name].shards[position]) is not None}
            work.append(ClipWork(clip, missing, digests.of(position), there, position))
    return Plan(planner.plans, tuple(work), len(manifest.clips), unlisted)


def _gather(
    clips: Sequence[Clip],
    fingerprints: Mapping[str, str],
    digests: Mapping[str, Sequence[str]],
    shards: Mapping[str, Iterable[ShardClips]],
) -> tuple[dict[str, _Saved], frozenset[str]]:
    """Return what the shards have of each stage, and the clips in them that the manifest does not list."""
    positions = {clip.id: position for position, clip in enumerate(clips)}
    unlisted: set[str] = set()
    saved = {name: _Saved.of(len(clips)) for name in digests}
    for name, in_stage in shards.items():
        if name not in saved:
            unlisted.update(
                clip_id for shard in in_stage for clip_id in shard.ids if clip_id not in positions
            )
            continue
        found, wanted = saved[name], digests[name]
        for shard in in_stage:
            same_settings = shard.fingerprint == fingerprints[name]
            for clip_id, digest in zip(shard.ids, shard.digests, strict=True):
                position = positions.get(clip_id)
                if position is None:
                    unlisted.add(clip_id)
                elif not same_settings or digest != wanted[position]:
                    found.add_other(position, same_settings)
                elif found.shards[position] is None:
                    found.shards[position] = shard.shard
    return saved, frozenset(unlisted)


@dataclass
class _Planner:
    """Sorts clips into the lists of the stages."""

    fingerprints: Mapping[str, str]
    saved: Mapping[str, _Saved]
    digests: Mapping[str, Sequence[str]]
    logged: _Logged
    retry_failed: bool
    plans: Mapping[str, StagePlan]

    def missing(self, position: int, clip: Clip) -> tuple[str, ...]:
        """Put one clip into one of the four lists of every stage; return the stages that it is to be run in."""
        todo = []
        remarked = clip.id in self.logged.clips
        for name, plan in self.plans.items():
            done = self.saved[name].shards[position] is not None
            if done:
                plan.done.append(clip.id)
            if not done or remarked:
                self._explain(name, position, clip, done)
                if clip.id in plan.todo:
                    todo.append(name)
        return tuple(todo)

    def _explain(self, name: str, position: int, clip: Clip, done: bool) -> None:
        """Add the note of a stage that is done; find out why another one is not."""
        stage, plan = registered()[name], self.plans[name]
        digest = self.digests[name][position]
        key = LedgerKey(clip.id, name, self.fingerprints[name], digest)
        if done:
            if note := self.logged.notes.get(key):
                plan.notes[clip.id] = note
            return
        if (Input.TEXT in stage.reads and not (clip.text and clip.text.strip())) or key in self.logged.absent:
            plan.absent.append(clip.id)
            return
        failure = self.logged.failure(name, clip.id, self.fingerprints[name], digest)
        if failure is None:  # a failed stage has no rows for the stages that read it
            upstream = (self.plans[up] for up in stage.upstream if up in self.plans)
            failure = next((plan.failed[clip.id] for plan in upstream if clip.id in plan.failed), None)
        if failure and not self.retry_failed:
            plan.failed[clip.id] = failure
            return
        plan.todo[clip.id] = Why.FAILED_BEFORE if failure else self._why(name, position, clip.id)

    def _why(self, name: str, position: int, clip: str) -> Why:
        failed = self.logged.failed.get((name, clip), ())
        others = self.saved[name].others[position]
        if others == _OTHER_CONTENT or any(f.fingerprint == self.fingerprints[name] for f in failed):
            return Why.CLIP_CHANGED
        return Why.SETTINGS_CHANGED if others or failed else Why.NEW
