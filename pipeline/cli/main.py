"""The command line: each command only calls the pipeline. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
import signal
import sys
from json import dumps
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from triptych.extractors.registry import registry, stages
from triptych.pipeline import __version__
from triptych.pipeline.cli.exchange import export, import_
from triptych.pipeline.cli.experiment import experiment
from triptych.pipeline.cli.options import (
    AS_JSON,
    DAMAGED,
    FAILED,
    FEATURES,
    JOBS,
    SOME_FAILED,
    SOURCE,
    USAGE,
    words,
)
from triptych.pipeline.cli.trainer import predict, train, tune
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.recipe import NAMED, build_recipe, load_recipe, parse_assignments, to_toml
from triptych.pipeline.terminal.tables import print_table

INTERRUPTED = "interrupted; finished work is saved, and the same command continues from there"


def _stages(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    named = words(value)
    unknown = [name for name in named if name not in stages()]
    if unknown or not named:
        raise click.BadParameter(f"unknown stage {', '.join(unknown)!r}; choose from {', '.join(stages())}")
    return named


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "TRIPTYCH",
        "show_default": True,
        "max_content_width": 110,
    },
    epilog="Every option can also be set in the environment: TRIPTYCH_EXTRACT_JOBS=4 is extract --jobs 4.",
)
@click.version_option(__version__, prog_name="triptych")
def cli() -> None:
    """Extract text, audio and vision features from video clips, and train sentiment models on them."""


@cli.command()
@SOURCE
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of stdout.",
)
@click.option(
    "--split",
    metavar="TRAIN:VALID:TEST",
    help="Assign clips without a split by these ratios, such as 6:2:2.",
)
@click.option("--anew", is_flag=True, help="Ignore existing splits and assign all clips.")
@click.option("--seed", default=0, help="Seed of the random assignment.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the clips' relative paths start from on this machine.",
)
def manifest(
    source: Path, output: Path | None, split: str | None, anew: bool, seed: int, root: Path | None
) -> None:
    """List the clips of SOURCE: ids, paths, transcripts, splits, labels.

    SOURCE is a folder in CH-SIMS layout (label.csv and Raw/), any folder of videos with .txt transcripts
    beside them, or a CSV or JSONL manifest.
    """
    from triptych.pipeline.manifest.clips import load_manifest, write_manifest
    from triptych.pipeline.manifest.splits import assign_splits, parse_ratio

    if anew and not split:
        raise click.UsageError("--anew needs --split, such as --split 6:2:2 --anew")
    ratios = parse_ratio(split) if split else None
    found = load_manifest(source, root=root)
    if ratios:
        found = assign_splits(found.without_splits() if anew else found, ratios, seed)
    write_manifest(found, output or sys.stdout)
    if output:
        click.echo(f"{len(found.clips)} clips in {output}", err=True)


@cli.command()
@SOURCE
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The feature folder.")
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    help=f"Settings: {', '.join(NAMED)}, or a TOML file. [default: the folder's own, or paper]",
)
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_EXTRACT_SET",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="Change one setting; repeatable.",
)
@click.option(
    "--only",
    callback=_stages,
    metavar="STAGE,STAGE,...",
    help=f"Stages to extract, of {', '.join(stages())}; upstream stages are added. [default: the recipe's]",
)
@JOBS
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on the workers of this Dask scheduler, such as tcp://host:8786.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Extract only the first N clips.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the clips' relative paths start from on this machine.",
)
@click.option("--group-size", type=click.IntRange(min=1), show_default="up to 64", help="Clips per shard.")
@click.option(
    "--buffer-mib",
    type=click.IntRange(min=1),
    default=512,
    help="Memory for the decoded frames of one clip, per worker [MiB].",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Device for neural networks."
)
@click.option("--strict", is_flag=True, help="Let damaged clips fail: --set media.truncated=fail.")
@click.option("--retry-failed", is_flag=True, help="Retry clips that failed before.")
@click.option("--rehash", is_flag=True, help="Read every file again to detect changes.")
@click.option("--dry-run", is_flag=True, help="Print what would be extracted, and why; extract nothing.")
@AS_JSON
def extract(
    source: Path,
    output: Path,
    recipe: str | None,
    assignments: tuple[str, ...],
    only: tuple[str, ...] | None,
    jobs: int,
    scheduler: str | None,
    limit: int | None,
    root: Path | None,
    group_size: int | None,
    buffer_mib: int,
    device: str,
    strict: bool,
    retry_failed: bool,
    rehash: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Extract the features of SOURCE that are missing in the output folder.

    SOURCE is a folder of clips, or a CSV or JSONL manifest. An interrupted run continues with the same command.
    """
    from triptych.pipeline.cli.summary import print_dry_run, print_result
    from triptych.pipeline.environment.device import check_device
    from triptych.pipeline.run.extraction import prepare, run
    from triptych.pipeline.terminal.progress import RunProgress

    check_device(device)
    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)
    todo = prepare(
        source,
        output,
        recipe=recipe,
        assignments=(*assignments, "media.truncated=fail") if strict else assignments,
        only=only,
        root=root,
        limit=limit,
        retry_failed=retry_failed,
        rehash=rehash,
        dry_run=dry_run,
    )
    if dry_run:
        print_dry_run(todo, json)
        return
    for name in todo.plan.stages:
        if notice := stages()[name].notice(todo.recipe.section(name)):
            click.echo(notice, err=True)
    with RunProgress(len(todo.plan.work)) as progress:
        result = run(
            todo,
            jobs=jobs,
            scheduler=scheduler,
            group_size=group_size,
            buffer_mib=buffer_mib,
            device=device,
            watch=progress.update,
        )
    print_result(todo, result, json)
    if any(plan.failed or plan.todo for plan in result.plan.stages.values()):
        sys.exit(SOME_FAILED)


@cli.command()
@FEATURES
@click.option("-v", "--verbose", is_flag=True, help="Name every clip that failed, is absent or has a note.")
@AS_JSON
def status(features: Path, verbose: bool, json: bool) -> None:
    """Print which features of a folder are done, missing and failed. Reads nothing but the disk."""
    from triptych.pipeline.cli.summary import print_status
    from triptych.pipeline.run.extraction import survey

    print_status(survey(features), json, verbose)


@cli.command()
@FEATURES
@AS_JSON
def verify(features: Path, json: bool) -> None:
    """Check every shard of a feature folder: checksum, layout, numbers. Exit code 4 if one is damaged."""
    from triptych.pipeline.storage.shards import shard_files, verify_shard

    if not features.is_dir():
        raise InputError(f"{features}: folder not found. Name a feature folder that `triptych extract` made")
    shards = [(path, stage) for stage in stages() for path in shard_files(features / stage)]
    problems = {
        str(path.relative_to(features)): found
        for path, stage in shards
        if (found := verify_shard(path, stage))
    }
    if json:
        click.echo(dumps({"shards": len(shards), "problems": problems}, ensure_ascii=False))
    else:
        for problem in (problem for found in problems.values() for problem in found):
            click.echo(problem)
        click.echo(f"{len(shards)} shards, {len(problems)} damaged")
    if problems:
        sys.exit(DAMAGED)


@cli.command()
@click.option("--recipe", default="paper", metavar="NAME|FILE.toml", help="Check what this recipe needs.")
@click.option("--quick", is_flag=True, help="Only check what is installed; load and run nothing.")
@AS_JSON
def doctor(recipe: str, quick: bool, json: bool) -> None:
    """Check this machine: libraries, models, OpenFace on one test image, cores, GPU."""
    from triptych.pipeline.environment.doctor import examine

    findings = examine(build_recipe(load_recipe(recipe), where=recipe), quick=quick)
    if json:
        click.echo(dumps([finding.as_dict() for finding in findings], ensure_ascii=False))
    else:
        print_table(("what", "state", "detail"), [(f.what, f.state, f.detail) for f in findings])
    if any(finding.state == "missing" for finding in findings):
        sys.exit(FAILED)


@cli.command()
@click.argument("name", required=False, metavar="[NAME|FILE.toml]")
def recipes(name: str | None) -> None:
    """List the named recipes, or print one as TOML to start your own from."""
    if name is None:
        for known, settings in NAMED.items():
            changed = [
                f"{section}.{key}={value}"
                for section, keys in settings.items()
                for key, value in keys.items()
            ]
            click.echo(f"{known}: {', '.join(changed) or 'the defaults'}")
    else:
        click.echo(to_toml(build_recipe(load_recipe(name), where=name)), nl=False)


@cli.command("stages")
def stages_() -> None:
    """List the stages: what each reads, and the settings section it has."""
    print_table(
        ("stage", "default", "reads", "one row is"),
        [
            (name, "yes" if one.default else "no", ", ".join([*one.reads, *one.rows_of]), one.row)
            for name, one in stages().items()
        ],
    )
    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)


@cli.group()
def models() -> None:
    """Models that a recipe needs and that come with no package."""


@models.command("pull")
@click.option("--recipe", default="paper", metavar="NAME|FILE.toml", help="Download what this recipe needs.")
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_MODELS_PULL_SET",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="Change one setting; repeatable.",
)
def models_pull(recipe: str, assignments: tuple[str, ...]) -> None:
    """Download the models of a recipe's stages into the cache (HF_HOME), so that a run needs no network."""
    settings = build_recipe(load_recipe(recipe), parse_assignments(assignments), where=recipe)
    click.echo("downloading models that are not cached", err=True)
    from triptych.pipeline.environment.downloads import pull

    print_table(
        ("stage", "model", "revision", "folder"),
        [
            (stage, model.name, model.revision or None, model.folder)
            for stage, model in pull(settings).items()
        ],
    )


@cli.command()
@click.argument("out", type=click.Path(path_type=Path))
@JOBS
def demo(out: Path, jobs: int) -> None:
    """Generate clips, extract their features, train a model, and print a table of results."""
    from triptych.pipeline.demo.run import run_demo

    run_demo(out, jobs)


for _command in (train, tune, predict, experiment, export, import_):
    cli.add_command(_command)


def _show_variables(group: click.Group) -> None:
    """Name each option's environment variable in its help."""
    for command in group.commands.values():
        for option in command.params:
            if isinstance(option, click.Option):
                option.show_envvar = True
        if isinstance(command, click.Group):
            _show_variables(command)


_show_variables(cli)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    click.echo(INTERRUPTED, err=True)
    sys.exit(128 + number)


def main() -> None:
    """Run the command line: an expected error prints one message and sets the exit code."""
    from triptych.pipeline.processes.threads import ONE_THREAD

    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # A KeyboardInterrupt during the creation of a module's classes would end Python by the signal.
        signal.signal(signal.SIGINT, _interrupted)
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InputError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(USAGE)
    except OSError as error:
        click.echo(f"error: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
        sys.exit(FAILED)
    except Exception as error:
        click.echo(f"error: {_foreseen(error)}", err=True)
        sys.exit(FAILED)


def _foreseen(error: Exception) -> Any:
    """Return an expected error; raise any other one as it is."""
    from triptych.extractors.base import BackendMissingError
    from triptych.pipeline.run.recovery import WorkersDiedError
    from triptych.pipeline.storage.schema import ShardError

    if isinstance(error, BackendMissingError | ShardError | WorkersDiedError):
        return error
    raise error
