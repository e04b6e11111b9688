"""What a feature folder has: its recipe under new settings, and what is missing in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages as registered
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.processes.collection import collection_paused
from triptych.pipeline.run.plan import Plan, make_plan
from triptych.pipeline.stages.fingerprints import same_settings
from triptych.pipeline.stages.graph import sources
from triptych.pipeline.stages.recipe import Recipe, build_recipe, load_recipe, parse_assignments
from triptych.pipeline.storage.index import FeatureIndex, part_digest
from triptych.pipeline.storage.ledger import LedgerLine, read_remarks


def left_alone(stored: dict[str, Any] | None, recipe: Recipe, wanted: Sequence[str]) -> dict[str, str]:
    """Return the fingerprints of unrequested stages with unchanged settings: their features remain valid."""
    if stored is None:
        return {}
    before = build_recipe(stored["recipe"])
    return {
        name: fingerprint
        for name, fingerprint in stored["fingerprints"].items()
        if name not in wanted and same_settings(name, before, recipe)
    }


def layered_recipe(stored: dict[str, Any] | None, recipe: str | None, assignments: Sequence[str]) -> Recipe:
    """Merge the recipe and the single settings into the folder's own recipe."""
    own = stored["recipe"] if stored else {}
    if recipe is None:
        base = own
    else:
        # Settings that were resolved in this folder stay, unless a new setting replaces them.
        base = load_recipe(recipe)
        for name, stage in registered().items():
            section = base.get(name, {})
            if isinstance(section, Mapping) and (resolved := stage.keep_resolved(own.get(name, {}), section)):
                base[name] = {**section, **resolved}
    return build_recipe(base, parse_assignments(assignments), where=recipe or "recipe")


@collection_paused()
def plan_folder(
    folder: Path,
    manifest: Manifest,
    prints: dict[str, str],
    stages: tuple[str, ...],
    clips: frozenset[str] | None = None,
    *,
    retry_failed: bool = False,
    rehash: bool = False,
) -> tuple[Plan, tuple[str, ...], tuple[str, ...]]:
    """Return the plan, the damaged shards, and the clips of intact shards that the manifest does not list."""
    with FeatureIndex(folder) as index:
        index.refuse_newer()
        # The parts of a run on several machines would otherwise each read every file.
        planned = [clip for clip in manifest.clips if clips is None or clip.id in clips]
        digests = _media_digests(planned, index, tuple(prints), rehash)
        plan = make_plan(
            manifest,
            prints,
            digests,
            {stage: index.shards(stage) for stage in prints},
            _current_remarks(folder, manifest),
            stages=stages,
            clips=clips,
            retry_failed=retry_failed,
        )
        damaged = tuple(map(str, index.damaged.values()))
    return plan, damaged, tuple(sorted(plan.unlisted))


def _current_remarks(folder: Path, manifest: Manifest) -> list[LedgerLine]:
    """Return the ledger's lines without those of files that were missing and exist now: such a clip has not failed."""
    remarks = read_remarks(folder).values()
    missing = {line.clip_id for line in remarks if line.reason == Reason.FILE_MISSING}
    found = {clip.id for clip in manifest.clips if missing and clip.id in missing and clip.file.is_file()}
    return [line for line in remarks if line.reason != Reason.FILE_MISSING or line.clip_id not in found]


def _media_digests(
    clips: Iterable[Clip], index: FeatureIndex, stages: Sequence[str], rehash: bool
) -> dict[str, str]:
    """Return the SHA-256 of each clip's file, or the one in its features if the file cannot be read."""
    media = [name for name in stages if "media" in sources(name)]
    if not media:
        return {}
    digests, unreadable = {}, set()
    for clip in clips:
        try:
            digest = index.digest_of(f"{clip.root}/{clip.path}", rehash=rehash)
            digests[clip.id] = part_digest(digest, clip.part)
        except (OSError, ValueError):  # the worker reports the reason for each clip
            digests[clip.id] = ""
            unreadable.add(clip.id)
    if unreadable:
        for holding in (holding for name in media for holding in index.holdings(name)):
            if holding.clip_id in unreadable:
                digests[holding.clip_id] = holding.digest.partition(":")[0]
    return digests
