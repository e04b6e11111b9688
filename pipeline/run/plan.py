"""Manifest x recipe x what is on disk: which clips are missing, stage by stage, and why. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from triptych.extractors.base import Reason
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.stages.fingerprints import STAGES
from triptych.pipeline.storage.index import Holding, text_digest
from triptych.pipeline.storage.ledger import LedgerLine

LARGEST_GROUP = 64
SMALLEST_SPREAD = 16  # a small manifest is cut into about this many groups, so that several workers share it


class Why(StrEnum):
    """Why a clip is to be run through a stage."""

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
    held
        By stage: the shard in which an upstream stage's rows already lie.
    """

    clip: Clip
    stages: tuple[str, ...]
    digests: Mapping[str, str]
    held: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class StagePlan:
    """What is known of one stage: clip ids, in the manifest's order."""

    done: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failed: dict[str, LedgerLine] = field(default_factory=dict)
    todo: dict[str, Why] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All stages' plans, and the work that they add up to."""

    stages: Mapping[str, StagePlan]
    work: tuple[ClipWork, ...]
    positions: Mapping[str, int]

    def groups(self, size: int | None = None) -> list[tuple[ClipWork, ...]]:
        """Cut the work into groups, each to become one shard a stage.

        A group is a stretch of the manifest, never of what happens to be missing: however often a run was
        stopped, and whatever the number of workers, the same sentences share a batch and give the same bits.
        (Only a group that loses a clip which killed its worker embeds the rest in another batch.)

        Parameters
        ----------
        size
            Clips to a group; by default 64, and fewer where the manifest is small.
        """
        size = size or max(1, min(LARGEST_GROUP, -(-len(self.positions) // SMALLEST_SPREAD)))
        groups: dict[int, list[ClipWork]] = {}
        for work in self.work:
            groups.setdefault(self.positions[work.clip.id] // size, []).append(work)
        return [tuple(group) for _, group in sorted(groups.items())]


@dataclass(frozen=True)
class _Known:
    """What is on disk and in the ledger, by stage and clip."""

    held: Mapping[tuple[str, str], Sequence[Holding]]
    told: Mapping[tuple[str, str], Sequence[LedgerLine]]

    @classmethod
    def gather(cls, holdings: Mapping[str, Iterable[Holding]], ledger: Iterable[LedgerLine]) -> _Known:
        held: dict[tuple[str, str], list[Holding]] = {}
        for stage, of_stage in holdings.items():
            for holding in of_stage:
                held.setdefault((stage, holding.clip_id), []).append(holding)
        told: dict[tuple[str, str], list[LedgerLine]] = {}
        for line in ledger:
            # A file that was not there may be there now: only looking again tells.
            if line.outcome == "failed" and line.reason != Reason.FILE_MISSING:
                told.setdefault((line.stage, line.clip_id), []).append(line)
        return cls(held, told)

    def holding(self, stage: str, clip: str, fingerprint: str, digest: str) -> Holding | None:
        found = self.held.get((stage, clip), ())
        return next((h for h in found if (h.fingerprint, h.digest) == (fingerprint, digest)), None)

    def failure(self, stage: str, clip: str, fingerprint: str, digest: str) -> LedgerLine | None:
        found = self.told.get((stage, clip), ())
        return next((f for f in found if (f.fingerprint, f.digest) == (fingerprint, digest)), None)

    def why(self, stage: str, clip: str, fingerprint: str) -> Why:
        before: list[Holding | LedgerLine] = [
            *self.held.get((stage, clip), ()),
            *self.told.get((stage, clip), ()),
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
    stages: Sequence[str] = tuple(STAGES),
    clips: Collection[str] | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Compare what is wanted with what is there.

    Parameters
    ----------
    manifest
        The clips wanted.
    fingerprints
        By stage, of the recipe wanted.
    media_digests
        By clip id: SHA-256 of the media file, empty where it is missing.
    holdings, ledger
        By stage, what shards hold; what runs said. Completed work is judged by the shards alone.
    stages
        Which ones, upstream stages included, in the graph's order.
    clips
        Ids of the clips to plan for, where not all are wanted.
    retry_failed
        Plan failed clips again.
    """
    known = _Known.gather(holdings, ledger)
    plans = {name: StagePlan() for name in stages}
    work = []
    for clip in manifest.clips:
        if clips is not None and clip.id not in clips:
            continue
        spoken = clip.text is not None and bool(clip.text.strip())
        digests = {
            "text": text_digest(clip.text) if spoken and clip.text else "",
            "media": media_digests.get(clip.id, ""),
        }
        held: dict[str, Path] = {}
        for name in stages:
            _place(plans, name, clip, digests, fingerprints[name], known, held, retry_failed)
        missing = tuple(name for name in stages if clip.id in plans[name].todo)
        if missing:
            work.append(ClipWork(clip, missing, digests, held))
    positions = {clip.id: position for position, clip in enumerate(manifest.clips)}
    return Plan(plans, tuple(work), positions)


def _place(
    plans: Mapping[str, StagePlan],
    name: str,
    clip: Clip,
    digests: Mapping[str, str],
    fingerprint: str,
    known: _Known,
    held: dict[str, Path],
    retry_failed: bool,
) -> None:
    """Put one clip into one of the four lists of one stage."""
    stage, plan = STAGES[name], plans[name]
    digest = digests[stage.source]
    if stage.source == "text" and not digest:
        plan.absent.append(clip.id)
        return
    holding = known.holding(name, clip.id, fingerprint, digest)
    if holding:
        plan.done.append(clip.id)
        held[name] = holding.shard
        return
    failure = known.failure(name, clip.id, fingerprint, digest)
    if failure is None:  # what a stage reads from is not to be had, so neither is the stage
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
