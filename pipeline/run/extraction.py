"""A run of `extract`: what a source wants, compared with what its feature folder holds, and made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import Reason
from triptych.pipeline.atomic import locked, remove_stale_temporaries
from triptych.pipeline.environment.device import check_device
from triptych.pipeline.environment.doctor import import_opencv
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest, load_manifest, write_manifest
from triptych.pipeline.run.plan import Plan, make_plan
from triptych.pipeline.stages.fingerprints import STAGES, fingerprints, resolve, same_settings, with_upstream
from triptych.pipeline.stages.recipe import (
    Recipe,
    build_recipe,
    load_recipe,
    parse_assignments,
    store_recipe,
    stored_recipe,
)
from triptych.pipeline.storage.index import FeatureIndex, Holding
from triptych.pipeline.storage.ledger import LedgerKey, LedgerLine, LedgerWriter, read_ledger

if TYPE_CHECKING:
    from triptych.pipeline.run.worker import GroupTask

BUFFER_MIB = 512  # decoded frames of one clip that a worker keeps for its later stages


@dataclass(frozen=True)
class Extraction:
    """Everything that one run is about.

    Attributes
    ----------
    folder
        The feature folder.
    given, manifest
        The source's clips; these and what the folder had.
    fingerprints
        By stage, of `recipe`.
    plan
        What is missing of the stages asked for.
    damaged
        Shards that cannot be read, each with what is wrong; their clips count as missing.
    clips
        The plan is about these alone, where not all are wanted.
    """

    folder: Path
    given: Manifest
    manifest: Manifest
    recipe: Recipe
    fingerprints: dict[str, str]
    plan: Plan
    damaged: tuple[str, ...] = ()
    clips: frozenset[str] | None = None


def prepare(
    source: Path,
    folder: Path,
    *,
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    only: Iterable[str] = tuple(STAGES),
    root: Path | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    rehash: bool = False,
) -> Extraction:
    """Find out what a run would do; writes nothing but the index of a folder that is there.

    Parameters
    ----------
    source
        What `manifest.load_manifest` reads; merged by id into the clips that the folder already has.
    recipe
        A named recipe or a TOML file; by default the folder's own, or `paper` in a new one.
    assignments
        ``section.name=value``, laid over the recipe.
    only
        Stages wanted; those that they read from are added.
    root
        Where the clips' paths begin here, if not where they did when the manifest was made.

    Raises
    ------
    InputError
        The source or a setting is wrong; every mistake found.
    triptych.extractors.base.BackendMissingError
        A model or library is not to be had.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; features need a folder: name another one after -o")
    given = load_manifest(source, root=root)
    stages = with_upstream(only)
    stored = stored_recipe(folder)
    if stored is not None and "imported" in stored["recipe"]:
        raise InputError(
            f"{folder}: imported from {stored['recipe']['imported']['file']}, so clips cannot be extracted into "
            "it; name another folder after -o"
        )
    resolved = resolve(_layered(stored, recipe, assignments), stages)
    if set(stages) - {"text"}:
        import_opencv()
    prints = fingerprints(resolved, _kept(stored, resolved, stages))
    clips = None if limit is None else frozenset(clip.id for clip in given.clips[:limit])
    manifest = _with_stored(folder, given)
    plan, damaged = _plan(folder, manifest, prints, stages, clips, retry_failed=retry_failed, rehash=rehash)
    return Extraction(folder, given, manifest, resolved, prints, plan, damaged, clips)


def survey(folder: Path) -> Extraction:
    """Compare a feature folder with its own manifest and recipe, for `status`.

    Raises
    ------
    InputError
        The folder holds no features.
    """
    stored = stored_recipe(folder)
    if stored is None or not (folder / "manifest.csv").is_file():
        raise InputError(
            f"{folder}: no feature folder (manifest.csv or recipe.json missing); `triptych extract` makes one"
        )
    manifest = load_manifest(folder / "manifest.csv", check_files=False)
    prints = stored["fingerprints"]
    # Imported features have no settings, and no faces.
    recipe = Recipe() if "imported" in stored["recipe"] else build_recipe(stored["recipe"])
    plan, damaged = _plan(folder, manifest, prints, tuple(stage for stage in STAGES if stage in prints))
    return Extraction(folder, manifest, manifest, recipe, prints, plan, damaged)


def run(
    extraction: Extraction,
    *,
    jobs: int,
    scheduler: str | None = None,
    group_size: int | None = None,
    buffer_mib: int = BUFFER_MIB,
    device: str = "cpu",
    watch: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Extraction:
    """Make what is missing; safe to stop at any moment and to begin again.

    Parameters
    ----------
    jobs
        Worker processes on this machine.
    scheduler
        Address of a Dask scheduler, whose workers take the place of processes here.
    device
        Where torch computes text and faces, ``cpu`` or ``cuda``; of no fingerprint, as the numbers agree.

    Returns
    -------
    Extraction
        The same, with the plan as it stands afterwards.

    Raises
    ------
    InputError
        There is no such device here.
    """
    from triptych.pipeline.run.dask_engine import run_groups_on_cluster

    if scheduler is None:
        check_device(device)
    from triptych.pipeline.run.local_engine import run_groups
    from triptych.pipeline.run.worker import GroupTask

    folder = extraction.folder
    for stage in STAGES:
        (folder / stage).mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder / stage)
    with locked(folder):  # another run may have added its clips since this one looked
        write_manifest(_with_stored(folder, extraction.given), folder / "manifest.csv")
    store_recipe(folder, extraction.recipe, extraction.fingerprints)
    tasks = [
        GroupTask(
            folder.absolute(), extraction.recipe, extraction.fingerprints, group, buffer_mib * 2**20, device
        )
        for group in extraction.plan.groups(group_size)
    ]
    tasks.sort(key=_bytes, reverse=True)  # the longest first, so that the workers end together
    with LedgerWriter(folder) as ledger:
        for line in _absences(extraction):
            ledger.write(line)
        if not tasks:
            return extraction
        groups = (
            run_groups_on_cluster(tasks, scheduler, watch) if scheduler else run_groups(tasks, jobs, watch)
        )
        for lines in groups:
            for line in lines:
                ledger.write(line)
    stages = tuple(extraction.plan.stages)
    plan, damaged = _plan(folder, extraction.manifest, extraction.fingerprints, stages, extraction.clips)
    return replace(extraction, plan=plan, damaged=damaged)


def _absences(extraction: Extraction) -> list[LedgerLine]:
    """Ledger lines of the clips that have nothing to make features of, as far as not yet told."""
    told = read_ledger(extraction.folder)
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
        for clip in plan.absent
    ]
    return [line for line in lines if LedgerKey.of(line) not in told]


def _bytes(task: GroupTask) -> int:
    return sum(work.clip.file.stat().st_size for work in task.clips if work.clip.file.is_file())


def _with_stored(folder: Path, given: Manifest) -> Manifest:
    stored = folder / "manifest.csv"
    return load_manifest(stored, check_files=False).merged(given) if stored.is_file() else given


def _kept(stored: dict[str, Any] | None, recipe: Recipe, wanted: Sequence[str]) -> dict[str, str]:
    """Fingerprints of stages that this run leaves alone and whose settings stay: their features are not undone."""
    if stored is None:
        return {}
    before = build_recipe(stored["recipe"])
    return {
        name: fingerprint
        for name, fingerprint in stored["fingerprints"].items()
        if name not in wanted and same_settings(name, before, recipe)
    }


def _layered(stored: dict[str, Any] | None, recipe: str | None, assignments: Sequence[str]) -> Recipe:
    own = stored["recipe"] if stored else {}
    if recipe is None:
        base = own
    else:
        # What `auto` was once found to be in this folder stays so, until --set says otherwise.
        base = load_recipe(recipe)
        backend = own.get("vision", {}).get("backend")
        if backend and base.get("vision", {}).get("backend", "auto") == "auto":
            base["vision"] = {**base.get("vision", {}), "backend": backend}
        text = base.get("text", {})
        if "revision" not in text and "model" in text and text["model"] == own.get("text", {}).get("model"):
            base["text"] = {**text, "revision": own["text"]["revision"]}
    return build_recipe(base, parse_assignments(assignments), where=recipe or "recipe")


def _plan(
    folder: Path,
    manifest: Manifest,
    prints: dict[str, str],
    stages: tuple[str, ...],
    clips: frozenset[str] | None = None,
    *,
    retry_failed: bool = False,
    rehash: bool = False,
) -> tuple[Plan, tuple[str, ...]]:
    with FeatureIndex(folder) as index:
        holdings = {stage: list(index.holdings(stage)) for stage in STAGES}
        digests = _media_digests(manifest, index, holdings, rehash)
        damaged = tuple(map(str, index.damaged.values()))
    ledger = read_ledger(folder).values()
    plan = make_plan(
        manifest, prints, digests, holdings, ledger, stages=stages, clips=clips, retry_failed=retry_failed
    )
    return plan, damaged


def _media_digests(
    manifest: Manifest, index: FeatureIndex, holdings: Mapping[str, Iterable[Holding]], rehash: bool
) -> dict[str, str]:
    """SHA-256 of each clip's file; of one that is gone or cannot be read, what its features were made from."""
    media = [name for name, stage in STAGES.items() if stage.source == "media"]
    held = {holding.clip_id: holding.digest for name in media for holding in holdings[name]}
    digests = {}
    for clip in manifest.clips:
        try:
            digests[clip.id] = index.digest_of(clip.file, rehash=rehash)
        except OSError:  # the worker says why, clip by clip
            digests[clip.id] = held.get(clip.id, "")
    return digests
