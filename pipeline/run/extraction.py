"""A run of `extract`: compare a source with its feature folder, and make what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages as registered
from triptych.extractors.stage import Input
from triptych.pipeline.atomic import locked, remove_stale_temporaries
from triptych.pipeline.environment.device import check_device
from triptych.pipeline.environment.doctor import import_opencv
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.label_range import LabelRange
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.bookkeeping import absences, hash_again, release_complete
from triptych.pipeline.run.events import Report, StagePreparing, reported
from triptych.pipeline.run.folder import layered_recipe, left_alone, plan_folder
from triptych.pipeline.run.lock import only_run
from triptych.pipeline.run.merging import Merged, manifest_stamp, merge_source
from triptych.pipeline.run.partition import Partition, selected, within_part
from triptych.pipeline.run.plan import GROUPS_AT_LEAST, Plan
from triptych.pipeline.run.task import GroupTask, group_tasks
from triptych.pipeline.stages.fingerprints import fingerprints, resolve
from triptych.pipeline.stages.graph import sources, with_upstream
from triptych.pipeline.stages.recipe import Recipe, build_recipe
from triptych.pipeline.stages.stored import (
    STORED,
    store_recipe,
    stored_recipe,
)
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter

BUFFER_MIB = 512  # decoded frames of one clip that a worker buffers for its later stages


@dataclass(frozen=True, repr=False)
class Extraction:
    """The inputs and the plan of one run.

    Attributes
    ----------
    folder
        The feature folder.
    given, manifest
        The source's clips; the same merged into the clips that the folder already had.
    fingerprints
        The fingerprint of each stage under `recipe`.
    plan
        What is missing in the requested stages.
    damaged
        Shards that cannot be read, each with what is wrong; their clips count as missing.
    clips
        The clips that the plan is limited to; None for all.
    missing
        Of a dry run: what a run would stop for, such as a model that is not on this machine.
    moved
        Clips of the folder that were moved or renamed, and the path of each file now.
    vanished
        Clips with features that the folder's manifest no longer lists.
    listed
        Stamp of the folder's manifest file if it listed exactly `manifest` when this was planned.
    partition
        The part that the run is limited to; None for all.
    """

    folder: Path
    given: Manifest
    manifest: Manifest
    recipe: Recipe
    fingerprints: dict[str, str]
    plan: Plan
    damaged: tuple[str, ...] = ()
    clips: frozenset[str] | None = None
    missing: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()
    listed: tuple[int, ...] = ()
    partition: Partition | None = None

    def __repr__(self) -> str:
        counts = [
            f"{stage} {len(plan.done)} done, {len(plan.absent)} absent, {len(plan.failed)} failed, "
            f"{len(plan.todo)} to do"
            for stage, plan in self.plan.stages.items()
        ]
        return f"Extraction({str(self.folder)!r}, {len(self.manifest.clips)} clips: {'; '.join(counts)})"


def prepare(
    source: Path | Sequence[Path],
    folder: Path,
    *,
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    only: Iterable[str] | None = None,
    root: Path | None = None,
    limit: int | None = None,
    partition: Partition | None = None,
    retry_failed: bool = False,
    rehash: bool = False,
    dry_run: bool = False,
    label_range: LabelRange | None = None,
) -> Extraction:
    """Plan a run. Only the index of the folder is written, and that of a dry run only where the folder exists.

    Parameters
    ----------
    source
        Any sources that `manifest.load_manifest` reads; they are merged by id into the clips that the folder already
        has.
    recipe
        A named recipe or a TOML file; by default the folder's own, or `paper` in a new one.
    assignments
        ``section.name=value``, laid over the recipe.
    only
        Stages wanted, by default the recipe's; those that they read from are added.
    root
        The folder that the clips' paths start from on this machine, if it differs from the manifest's.
    limit, partition
        Only the first clips; of these, only the clips of one part.
    dry_run
        A model that is missing is no error: it is named in `Extraction.missing`.
    label_range
        Lowest and highest possible label; by default the source's own, else one that the labels fit.

    Raises
    ------
    InputError
        The source or a setting is wrong; every problem found.
    triptych.extractors.base.BackendMissingError
        A model or library is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, but features need a folder. Name another path after -o")
    given = load_manifest(source, root=root, label_range=label_range)
    stored = stored_recipe(folder)
    if stored is not None and "imported" in stored["recipe"]:
        raise InputError(
            f"{folder}: imported from {stored['recipe']['imported']['file']}, so clips cannot be extracted into "
            "it. Name another folder after -o"
        )
    if stored is not None:
        build_recipe(
            stored["recipe"], where=str(folder / STORED)
        )  # names the file, if a setting in it is wrong
    asked = layered_recipe(stored, recipe, assignments)
    wanted = tuple(asked.stages if only is None else only)
    if unknown := [name for name in wanted if name not in registered()]:
        raise InputError(f"unknown stage {', '.join(unknown)}; choose from {', '.join(registered())}")
    stages = with_upstream(wanted)
    merged = merge_source(folder, given)
    manifest = merged.manifest
    missing: list[str] = []
    needed = [name for name in stages if not without_transcripts(name, manifest)]
    resolved = resolve(asked, needed, missing if dry_run else None)
    if any("media" in sources(stage) for stage in stages):
        import_opencv()
    untouched = left_alone(stored, resolved, stages)
    prints = fingerprints(resolved, {*resolved.stages, *stages, *untouched}, untouched)
    clips = selected((clip.id for clip in merged.given.clips), limit, partition)
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)  # so that digests of files are saved as they are computed
    plan, damaged, vanished = plan_folder(
        folder, manifest, prints, stages, clips, retry_failed=retry_failed, rehash=rehash
    )
    return Extraction(
        folder,
        merged.given,
        manifest,
        resolved,
        prints,
        plan,
        damaged,
        clips,
        tuple(missing),
        merged.moved,
        tuple(sorted({*vanished, *merged.vanished})),
        merged.listed,
        partition,
    )


def without_transcripts(stage: str, manifest: Manifest) -> bool:
    """Return whether a stage reads transcripts and no clip has one, so that its model is not needed."""
    return Input.TEXT in registered()[stage].reads and not any(clip.text for clip in manifest.clips)


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
            f"{folder}: not a feature folder (manifest.csv or recipe.json is missing). Make one with `triptych extract`"
        )
    manifest = load_manifest(folder / "manifest.csv", check_files=False)
    prints = stored["fingerprints"]
    # Imported features have no settings.
    recipe = (
        Recipe()
        if "imported" in stored["recipe"]
        else build_recipe(stored["recipe"], where=str(folder / STORED))
    )
    plan, damaged, vanished = plan_folder(
        folder, manifest, prints, tuple(stage for stage in registered() if stage in prints)
    )
    return Extraction(folder, manifest, manifest, recipe, prints, plan, damaged, vanished=vanished)


def run(
    extraction: Extraction,
    *,
    jobs: int,
    scheduler: str | None = None,
    group_size: int | None = None,
    buffer_mib: int = BUFFER_MIB,
    device: str = "cpu",
    clip_timeout: float | None = None,
    wait: bool = True,
    watch: Report = lambda event: None,
) -> Extraction:
    """Extract the missing features; a run can be stopped at any moment and started again.

    Parameters
    ----------
    jobs
        Worker processes on this machine; 0 computes in this process, where a crash is not isolated.
    scheduler
        Address of a Dask scheduler; its workers are used instead of processes on this machine.
    device
        Where torch computes, ``cpu`` or ``cuda``; not part of any fingerprint, as the numbers agree.
    clip_timeout
        How long a stage may take for one clip [s]; by default from the clip's length.
    wait
        Wait for another run that extracts into the folder.

    Returns
    -------
    Extraction
        The same, with the plan after the run.

    Raises
    ------
    InputError
        This machine does not have the device.
    FolderBusyError
        Another run extracts into the folder, and `wait` is false.
    """
    if scheduler is None:
        check_device(device)
    extraction.folder.mkdir(parents=True, exist_ok=True)
    with only_run(extraction.folder, wait=wait, partition=extraction.partition) as waited:
        extraction = _stored(extraction, again=waited)
        plan = extraction.plan
        if extraction.partition:
            plan = within_part(plan, extraction.manifest.clips, extraction.clips)
        workers = GROUPS_AT_LEAST if scheduler else max(jobs, 1)
        tasks = group_tasks(
            plan,
            group_size,
            workers,
            GroupTask(
                extraction.folder.absolute(),
                extraction.recipe,
                extraction.fingerprints,
                (),
                buffer_mib * 2**20,
                device,
            ),
        )
        with LedgerWriter(extraction.folder) as ledger:
            for line in absences(extraction):
                ledger.write(line)
            if tasks:
                results = _results(extraction, tasks, jobs, scheduler, clip_timeout, watch)
                extraction = _logged(extraction, reported(results, watch), ledger)
        release_complete(extraction)
    return extraction


def _stored(extraction: Extraction, again: bool) -> Extraction:
    """Write the folder's manifest and recipe; plan again if another run has changed the folder."""
    folder = extraction.folder
    for stage in extraction.fingerprints:
        (folder / stage).mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder / stage)
    with locked(folder):  # a run on a file system without locks may have added its clips in the meantime
        if extraction.listed and manifest_stamp(folder) == extraction.listed:
            merged = Merged(extraction.given, extraction.manifest)
        else:
            merged = merge_source(folder, extraction.given)
            write_manifest(merged.manifest, folder / "manifest.csv")
        store_recipe(folder, extraction.recipe, extraction.fingerprints)
    if again or merged.given != extraction.given:  # that run has made features, or taken some of the ids
        extraction = _planned_again(extraction, merged)
    return extraction


def _logged(extraction: Extraction, results: Iterable[list[LedgerLine]], ledger: LedgerWriter) -> Extraction:
    """Write the results of the tasks to the ledger, and plan again after the last one."""
    changed = set()
    for line in (line for lines in results for line in lines):
        ledger.write(line)
        if line.reason == Reason.FILE_CHANGED:
            changed.add(line.clip_id)
    hash_again(extraction, changed)
    stages = tuple(extraction.plan.stages)
    plan, damaged, _ = plan_folder(
        extraction.folder, extraction.manifest, extraction.fingerprints, stages, extraction.clips
    )
    return replace(extraction, plan=plan, damaged=damaged)


def _planned_again(extraction: Extraction, merged: Merged) -> Extraction:
    ids = dict(
        zip(
            (clip.id for clip in extraction.given.clips),
            (clip.id for clip in merged.given.clips),
            strict=True,
        )
    )
    clips = None if extraction.clips is None else frozenset(ids[id] for id in extraction.clips)
    stages = tuple(extraction.plan.stages)
    plan, _, _ = plan_folder(extraction.folder, merged.manifest, extraction.fingerprints, stages, clips)
    return replace(extraction, given=merged.given, manifest=merged.manifest, plan=plan, clips=clips)


def _results(
    extraction: Extraction,
    tasks: list[GroupTask],
    jobs: int,
    scheduler: str | None,
    clip_timeout: float | None,
    watch: Report,
) -> Iterable[list[LedgerLine]]:
    """Run the tasks on the engine that was asked for."""
    from triptych.pipeline.run.dask_engine import run_groups_on_cluster
    from triptych.pipeline.run.in_process import run_groups_in_process
    from triptych.pipeline.run.local_engine import run_groups

    if scheduler:
        return run_groups_on_cluster(tasks, scheduler, watch, clip_timeout)
    if jobs == 0:
        return run_groups_in_process(tasks, watch)
    for stage in with_upstream({name for work in extraction.plan.work for name in work.stages}):
        watch(StagePreparing(stage))
        registered()[stage].prepare(extraction.recipe.section(stage), tasks[0].device)
    return run_groups(tasks, jobs, watch, clip_timeout)
