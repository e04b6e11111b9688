"""The command line: each command only calls the pipeline. Heavy modules are imported when a command runs."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import click

from triptych.extractors.registry import registry, stages
from triptych.pipeline import __version__
from triptych.pipeline.cli.compact import compact
from triptych.pipeline.cli.completion import complete_recipe, complete_stages
from triptych.pipeline.cli.cut import cut
from triptych.pipeline.cli.exchange import export, import_, openface_csv
from triptych.pipeline.cli.experiment import experiment
from triptych.pipeline.cli.features import extract, prune, status, verify
from triptych.pipeline.cli.help import Group, usage_message
from triptych.pipeline.cli.init import init
from triptych.pipeline.cli.inspect import inspect
from triptych.pipeline.cli.manifest import manifest
from triptych.pipeline.cli.options import (
    AS_JSON,
    DEVICE,
    FAILED,
    JOBS,
    RECIPE_CHECKED,
    RECIPE_SETTINGS,
    USAGE,
    read_stages,
)
from triptych.pipeline.cli.report import report
from triptych.pipeline.cli.trainer import predict, train, tune
from triptych.pipeline.cli.transcribe import transcribe
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.recipe import NAMED, build_recipe, load_recipe, parse_assignments, to_toml
from triptych.pipeline.terminal.lines import escape_warnings, print_json, print_line
from triptych.pipeline.terminal.tables import print_table

INTERRUPTED = "interrupted; finished work is saved, and the same command continues from there"
FULL = ". Free some space there; finished work is saved, and the same command continues from there"


@click.group(
    cls=Group,
    sections={
        "features": (
            "init",
            "cut",
            "transcribe",
            "manifest",
            "extract",
            "status",
            "report",
            "inspect",
            "verify",
            "compact",
            "prune",
        ),
        "training": ("train", "tune", "predict", "experiment"),
        "exchange": ("export", "import", "openface-csv"),
        "setup": ("doctor", "models", "recipes", "stages", "demo"),
    },
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "TRIPTYCH",
        "show_default": True,
        "max_content_width": 110,
    },
    epilog="""
    Every option can also be set in the environment:
    TRIPTYCH_EXTRACT_JOBS=4 is extract --jobs 4.

    `triptych COMMAND -h` shows a command's options and examples.
    """,
)
@click.version_option(__version__, prog_name="triptych")
def cli() -> None:
    """Extract features from video clips, and train sentiment models on them."""


@cli.command(examples=("triptych doctor", "triptych doctor --recipe authors-code --quick"))
@click.option("--recipe", **RECIPE_CHECKED, help="Check what this recipe needs.")
@click.option("--quick", is_flag=True, help="Only check what is installed; load and run nothing.")
@AS_JSON
def doctor(recipe: str, quick: bool, json: bool) -> None:
    """Check this machine: libraries, models, OpenFace, cores, GPU."""
    from triptych.pipeline.environment.doctor import examine

    findings = examine(build_recipe(load_recipe(recipe), where=recipe), quick=quick)
    if json:
        print_json([finding.as_dict() for finding in findings])
    else:
        rows = [(f.what, f.state, f.detail) for f in findings]
        print_table(("what", "state", "detail"), rows, longest=None)
    if any(finding.state == "missing" for finding in findings):
        sys.exit(FAILED)


@cli.command(examples=("triptych recipes", "triptych recipes paper > own.toml"))
@click.argument("name", required=False, metavar="[NAME|FILE.toml]", shell_complete=complete_recipe)
def recipes(name: str | None) -> None:
    """List the recipes, or print one as TOML to start your own from."""
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


@cli.command("stages", examples=("triptych stages",))
def stages_() -> None:
    """List the stages: what each reads, and what a row is."""
    print_table(
        ("stage", "default", "reads", "one row is"),
        [
            (name, "yes" if one.default else "no", ", ".join([*one.reads, *one.rows_of]), one.row)
            for name, one in stages().items()
        ],
    )
    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)


@cli.group(cls=Group)
def models() -> None:
    """Download the models that a recipe needs."""


@models.command("pull", examples=("triptych models pull --only text",))
@click.option("--recipe", **RECIPE_CHECKED, help="Download what this recipe needs.")
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_MODELS_PULL_SET",
    **RECIPE_SETTINGS,
    help="Change one setting; repeatable.",
)
@click.option(
    "--only",
    callback=read_stages,
    shell_complete=complete_stages,
    metavar="STAGE,STAGE,...",
    help="Only the models of these stages. [default: the recipe's]",
)
def models_pull(recipe: str, assignments: tuple[str, ...], only: tuple[str, ...] | None) -> None:
    """Download the models of a recipe's stages.

    They are saved in the caches (HF_HOME, TRIPTYCH_CACHE), so that a run needs no network.
    """
    settings = build_recipe(load_recipe(recipe), parse_assignments(assignments), where=recipe)
    click.echo("downloading models that are not cached", err=True)
    from triptych.pipeline.environment.downloads import pull

    print_table(
        ("stage", "model", "revision", "folder"),
        [
            (stage, model.name, model.revision or None, model.folder)
            for stage, model in pull(settings, only or ()).items()
        ],
        longest=None,
    )


@cli.command(examples=("triptych demo triptych-demo",))
@click.argument("out", type=click.Path(path_type=Path))
@DEVICE
@JOBS
def demo(out: Path, jobs: int, device: str) -> None:
    """Generate clips, extract features, train, and print results."""
    from triptych.pipeline.environment.device import check_device

    check_device(device)
    from triptych.pipeline.demo.run import run_demo

    run_demo(out, jobs, device)


for _command in (
    init,
    manifest,
    extract,
    status,
    inspect,
    verify,
    prune,
    compact,
    cut,
    transcribe,
    report,
    train,
    tune,
    predict,
    experiment,
    export,
    import_,
    openface_csv,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line: an expected error prints one message and sets the exit code."""
    from triptych.pipeline.processes.signals import end_if_interrupted, end_on_signals, ignore_signals
    from triptych.pipeline.processes.threads import ONE_THREAD

    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    escape_warnings()
    end_on_signals(INTERRUPTED)
    try:
        _run()
    finally:
        end_if_interrupted(INTERRUPTED)
        ignore_signals()


def _run() -> None:
    try:
        cli.main(prog_name="triptych", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        print_line(f"error: {usage_message(error)}", err=True)
        sys.exit(error.exit_code)
    except InputError as error:
        for problem in error.problems:
            print_line(f"error: {problem}", err=True)
        sys.exit(USAGE)
    except OSError as error:
        remedy = FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        print_line(
            f"error: {error.filename or 'input or output'}: {error.strerror or error}{remedy}", err=True
        )
        sys.exit(FAILED)
    except Exception as error:
        print_line(f"error: {_foreseen(error)}", err=True)
        sys.exit(FAILED)


def _foreseen(error: Exception) -> Any:
    """Return an expected error; raise any other one as it is."""
    from triptych.extractors.base import BackendMissingError
    from triptych.pipeline.run.lock import FolderBusyError
    from triptych.pipeline.run.recovery import WorkersDiedError
    from triptych.pipeline.storage.schema import ShardError

    if isinstance(error, BackendMissingError | FolderBusyError | ShardError | WorkersDiedError):
        return error
    raise error
