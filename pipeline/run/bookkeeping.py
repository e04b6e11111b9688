"""What a run writes besides features: absences, digests that were wrong, settings whose features are complete."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages as registered
from triptych.extractors.stage import Input
from triptych.pipeline.atomic import locked
from triptych.pipeline.stages.stored import release_superseded, superseded_fingerprints
from triptych.pipeline.storage.index import FeatureIndex
from triptych.pipeline.storage.ledger import LedgerKey, LedgerLine, read_remarks

if TYPE_CHECKING:
    from triptych.pipeline.run.extraction import Extraction


def hash_again(extraction: Extraction, clips: Collection[str]) -> None:
    """Read the files of clips that seemed to change: the digest of the index may have been wrong, not the file."""
    if not clips:
        return
    with FeatureIndex(extraction.folder) as index:
        for clip in extraction.manifest.clips:
            if clip.id in clips:
                with suppress(OSError):
                    index.digest_of(clip.file, rehash=True)


def release_complete(extraction: Extraction) -> None:
    """Let the new features of a stage replace the old ones once every clip with old ones has been run."""
    old = superseded_fingerprints(extraction.folder)
    if not old:
        return
    known = {clip.id for clip in extraction.manifest.clips}
    complete = set()
    with FeatureIndex(extraction.folder) as index:
        for stage in old.keys() & extraction.plan.stages.keys():
            plan = extraction.plan.stages[stage]
            clips = {one.clip_id for one in index.holdings(stage) if one.fingerprint == old[stage]} & known
            if plan.done and clips <= {*plan.done, *plan.failed, *plan.absent}:
                complete.add(stage)
    with locked(extraction.folder):
        release_superseded(extraction.folder, complete)


def absences(extraction: Extraction) -> list[LedgerLine]:
    """Return ledger lines for clips without the input of a stage, unless these were logged before."""
    without_text = {clip.id for clip in extraction.manifest.clips if not clip.text}
    lines = [
        LedgerLine(
            clip_id=clip,
            stage=stage,
            outcome="absent",
            reason=Reason.NO_TRANSCRIPT,
            detail="",
            seconds=0.0,
            fingerprint=extraction.fingerprints[stage],
            digest="",
        )
        for stage, plan in extraction.plan.stages.items()
        if Input.TEXT in registered()[stage].reads
        for clip in plan.absent
        if clip in without_text
    ]
    logged = read_remarks(extraction.folder) if lines else {}
    return [line for line in lines if LedgerKey.of(line) not in logged]
