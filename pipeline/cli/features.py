"""The commands about features: extract, status, verify, prune."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triptych.extractors.registry import registry, stages
from triptych.pipeline.cli.completion import complete_recipe, complete_stages
from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import (
    AS_JSON,
    DAMAGED,
    FEATURES,
    JOBS,
    LABEL_RANGE,
    RECIPE_SETTINGS,
    SOME_FAILED,
    SOURCES,
    USAGE,
    read_partition,
    read_stages,
)
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import LONGEST, shown
from triptych.pipeline.stages.recipe import NAMED
from triptych.pipeline.stages.stored import STORED
from triptych.pipeline.terminal.lines import print_json, print_line

if TYPE_CHECKING:
    from triptych.pipeline.run.partition import Partition
    from triptych.pipeline.storage.repair import Verified


@click.command(
    cls=Command,
    sections={
        "What": ("recipe", "assignments", "only", "limit", "root", "label_range", "strict"),
        "Again": ("retry_failed", "rehash", "dry_run", "no_wait"),
        "Workers": ("jobs", "scheduler", "device", "group_size", "buffer_mib", "clip_timeout"),
        "Printed": ("quiet", "verbose", "json"),
    },
    examples=(
        "triptych extract clips/ -o features/",
        "triptych extract clips/ -o features/ --only text,audio -j 4",
        "triptych extract clips.csv -o features/ --set vision.backend=facemesh",
        'triptych extract "a/*.mp4" b/ -o features/ --dry-run',
    ),
)
@SOURCES
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The feature folder.")
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=complete_recipe,
    help=f"Settings: {', '.join(NAMED)}, or a TOML file. [default: the folder's own, or paper]",
)
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_EXTRACT_SET",
    **RECIPE_SETTINGS,
    help="Change one setting; repeatable.",
)
@click.option(
    "--only",
    callback=read_stages,
    shell_complete=complete_stages,
    metavar="STAGE,STAGE,...",
    help=f"Stages, of {', '.join(stages())}; upstream stages are added. [default: the recipe's]",
)
@JOBS
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on the workers of this Dask scheduler, such as tcp://host:8786.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Extract only the first N clips.")
@click.option(
    "--partition",
    callback=read_partition,
    metavar="I/N",
    help="Extract only part I of N disjoint parts (by clip id), numbered from 1; parts may run at the same time.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the clips' relative paths start from on this machine.",
)
@LABEL_RANGE
@click.option(
    "--group-size", type=click.IntRange(min=1), metavar="N", show_default="up to 64", help="Clips per shard."
)
@click.option(
    "--buffer-mib",
    type=click.IntRange(min=1),
    metavar="MIB",
    default=512,
    help="Memory for the decoded frames of one clip, per worker [MiB].",
)
@click.option("--device", type=Choice(["cpu", "cuda"]), default="cpu", help="Device for neural networks.")
@click.option(
    "--strict",
    is_flag=True,
    help="Clips of which some is missing or corrupt fail, as with --set media.truncated=fail.",
)
@click.option(
    "--clip-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    show_default="600 s, and 30 s for each second of the clip",
    help="How long a stage may take for one clip before its worker is ended and the clip is run alone.",
)
@click.option("--no-wait", is_flag=True, help="Exit if another extract runs in the output folder.")
@click.option("--retry-failed", is_flag=True, help="Retry clips that failed before.")
@click.option("--rehash", is_flag=True, help="Read every file again to detect changes.")
@click.option("--dry-run", is_flag=True, help="Print what would be extracted, and why; extract nothing.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing but errors; with --json, only the last line."
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line at the end of every clip.")
@click.option("--json", is_flag=True, help="Print each event, and at last the result, as a line of JSON.")
def extract(
    sources: tuple[Path, ...],
    output: Path,
    recipe: str | None,
    assignments: tuple[str, ...],
    only: tuple[str, ...] | None,
    jobs: int,
    scheduler: str | None,
    limit: int | None,
    partition: Partition | None,
    root: Path | None,
    label_range: tuple[float, float] | None,
    group_size: int | None,
    buffer_mib: int,
    device: str,
    strict: bool,
    clip_timeout: float | None,
    no_wait: bool,
    retry_failed: bool,
    rehash: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    """Extract the features that are missing.

    SOURCE is a folder of clips, a data set, a table, a media file, or a pattern such as "clips/*.mp4"; there may be
    several. An interrupted run continues with the same command.
    """
    from triptych.pipeline.cli.summary import print_dry_run, print_failed, print_result
    from triptych.pipeline.environment.device import check_device
    from triptych.pipeline.run.extraction import prepare, run
    from triptych.pipeline.terminal.progress import RunProgress

    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other; give one of them")
    check_device(device)
    for problem in () if quiet else registry().problems:
        print_line(f"warning: {problem}", err=True)
    todo = prepare(
        sources,
        output,
        recipe=recipe,
        assignments=(*assignments, "media.truncated=fail") if strict else assignments,
        only=only,
        root=root,
        limit=limit,
        partition=partition,
        retry_failed=retry_failed,
        rehash=rehash,
        dry_run=dry_run,
        label_range=label_range,
    )
    if dry_run:
        print_dry_run(todo, json)
        return
    for name in todo.plan.stages:
        if not quiet and (notice := stages()[name].notice(todo.recipe.section(name))):
            click.echo(notice, err=True)
    with RunProgress(
        len(todo.plan.work), quiet=quiet, verbose=verbose, as_json=json, stages=list(todo.plan.stages)
    ) as progress:
        result = run(
            todo,
            jobs=jobs,
            scheduler=scheduler,
            group_size=group_size,
            buffer_mib=buffer_mib,
            device=device,
            clip_timeout=clip_timeout,
            wait=not no_wait,
            watch=progress.update,
        )
    if json or not quiet:
        print_result(todo, result, json)
    else:
        print_failed(result)
    if any(plan.failed or plan.todo for plan in result.plan.stages.values()):
        sys.exit(SOME_FAILED)


@click.command(cls=Command, examples=("triptych status features/", "triptych status -v features/"))
@FEATURES
@click.option("-v", "--verbose", is_flag=True, help="Name every clip that failed, is absent or has a note.")
@AS_JSON
def status(features: Path, verbose: bool, json: bool) -> None:
    """Print what is done, missing and failed, and why.

    Reads nothing but the disk.
    """
    from triptych.pipeline.cli.summary import print_status
    from triptych.pipeline.run.extraction import survey

    print_status(survey(features), json, verbose)


@click.command(cls=Command, examples=("triptych verify features/", "triptych verify features/ --repair"))
@FEATURES
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged shards into the folder `damaged`; the next extract makes their features again.",
)
@AS_JSON
def verify(features: Path, repair: bool, json: bool) -> None:
    """Check every shard: checksum, layout, numbers.

    The exit code is 4 if one is damaged.

    What is damaged is remembered: its clips count as missing, so that the next extract makes their features again.
    Files that triptych did not write are listed and left alone.
    """
    from triptych.pipeline.run.lock import FolderBusyError, only_run, overlapping
    from triptych.pipeline.stages.stored import stored_recipe
    from triptych.pipeline.storage.repair import set_aside, verify_folder

    if not features.is_dir():
        raise InputError(f"{features}: folder not found. Name a feature folder that `triptych extract` made")
    stored = stored_recipe(features)
    if repair:
        with only_run(features, wait=False):  # a run may be writing a damaged shard again
            if runs := overlapping(features, None):
                raise FolderBusyError(
                    f"{features}: an extract of {', '.join(runs)} runs here. Run this again when it has ended"
                )
            found = verify_folder(features)
            moved = set_aside(features, found.damaged)
    else:
        found, moved = verify_folder(features), {}
    if stored is None and not found.count:
        raise InputError(
            f"{features}: not a feature folder ({STORED} is missing). Make one with `triptych extract`"
        )
    if json:
        document = {
            "shards": found.count,
            "problems": {
                str(path.relative_to(features)): [str(problem) for problem in problems]
                for path, problems in found.damaged.items()
            },
            "newer": [str(path.relative_to(features)) for path in found.newer],
            "foreign": [str(path.relative_to(features)) for path in found.foreign],
            "set_aside": {
                str(old.relative_to(features)): str(new.relative_to(features)) for old, new in moved.items()
            },
        }
        print_json(document)
    else:
        _print_verified(features, found, moved)
    if found.damaged:
        sys.exit(DAMAGED)
    if found.newer:
        sys.exit(USAGE)


def _print_verified(features: Path, found: Verified, moved: Mapping[Path, Path]) -> None:
    for problem in (problem for problems in found.damaged.values() for problem in problems):
        print_line(shown(str(problem), 5 * LONGEST))
    for newer in found.newer.values():
        print_line(shown(str(newer), 5 * LONGEST))
    for path in found.foreign:
        print_line(f"not written by triptych, left alone: {path}")
    for old, new in moved.items():
        print_line(f"set aside: {old.relative_to(features)} is now {new.relative_to(features)}")
    newer_count = f", {len(found.newer)} of a newer schema" if found.newer else ""
    print_line(f"{found.count} shards, {len(found.damaged)} damaged{newer_count}")


@click.command(cls=Command, examples=("triptych prune features/",))
@FEATURES
@click.option("--yes", is_flag=True, help="Remove without asking.")
def prune(features: Path, yes: bool) -> None:
    """Remove what a feature folder no longer needs, after a yes.

    That is: features of clips that are no longer in the source, features of settings that were replaced, and damaged
    shards.
    """
    from triptych.pipeline.run.extraction import survey
    from triptych.pipeline.storage.prune import find_prunable
    from triptych.pipeline.storage.prune import prune as remove

    found = find_prunable(features, {clip.id for clip in survey(features).manifest.clips})
    for path in found.damaged:
        print_line(f"damaged: {path.relative_to(features)}")
    for path in found.superseded:
        print_line(f"settings replaced: {path.relative_to(features)}")
    for path, clips in found.vanished.items():
        print_line(
            f"no longer in the source: {', '.join(map(shown, sorted(clips)))} in {path.relative_to(features)}"
        )
    if not found:
        click.echo("nothing to remove")
    elif yes or _confirmed("Remove these?"):
        remove(found)
        click.echo("removed")


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, default=False)
    except click.Abort as error:  # the input has ended, as in a script
        click.echo(err=True)
        raise InputError("no answer, so nothing was removed; --yes removes without asking") from error
