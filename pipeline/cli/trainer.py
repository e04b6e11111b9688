"""`triptych train`, `tune` and `predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triptych.pipeline.assignments import split_assignment
from triptych.pipeline.cli.completion import complete_training_setting
from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import (
    AS_JSON,
    COMPAT,
    DEVICE,
    EACH_SEED,
    FEATURES,
    JOBS,
    RECIPE_SETTINGS,
    RESULTS,
    SOME_FAILED,
    STREAM_OPTIONS,
    read_seeds,
    words,
)
from triptych.pipeline.cli.training_progress import finish
from triptych.pipeline.documents import read_json
from triptych.pipeline.environment.device import check_device
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.streams import ALIGNMENTS, Streams
from triptych.pipeline.terminal.lines import print_json
from triptych.pipeline.terminal.tables import print_table
from triptych.pipeline.terminal.training import TrainingProgress
from triptych.pipeline.trainer.settings import TASKS, SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS, read_settings

if TYPE_CHECKING:
    from triptych.pipeline.trainer.runs.prediction import Sentiment


MOST_SEEDS = 5  # whose metrics a table of 80 columns has room for

SETTINGS = click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_TRAIN_SET",
    multiple=True,
    metavar="NAME=VALUE",
    shell_complete=complete_training_setting,
    help="Change one setting of the system, as in learning_rate=1e-3 or dropout.text=0.1; repeatable.",
)


@click.command(
    cls=Command,
    sections={
        "Settings": ("settings", "assignments", "compat"),
        "Inputs": ("text", "audio", "vision", "align"),
        "Workers": ("device", "jobs"),
        "Written": ("replace", "tensorboard", "json"),
    },
    examples=(
        "triptych train features/ --model mlf-dnn -o run/",
        "triptych train features/ --model mfn --align words -o run/",
        "triptych train features/ --model lmf --set learning_rate=1e-3 -o run/",
        "triptych train features/ --model mult -o run/ --tensorboard logs/",
    ),
)
@FEATURES
@click.option("--model", type=Choice(list(SYSTEMS)), required=True, help="The system to train.")
@EACH_SEED
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@STREAM_OPTIONS
@click.option(
    "--align",
    type=Choice(list(ALIGNMENTS)),
    default="none",
    help="words: pool each stream to one row for each word, by the stage words.",
)
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file of settings, as `triptych tune` writes it. [default: the system's own]",
)
@SETTINGS
@COMPAT
@click.option("--replace", is_flag=True, help="Remove the checkpoints of another run from the run's folder.")
@click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write TensorBoard's event files into this folder, while training.",
)
@DEVICE
@JOBS
@AS_JSON
def train(
    features: Path,
    model: str,
    seeds: tuple[int, ...],
    output: Path,
    settings: Path | None,
    assignments: tuple[str, ...],
    compat: str | None,
    replace: bool,
    tensorboard: Path | None,
    device: str,
    jobs: int,
    json: bool,
    align: str,
    streams: Streams,
) -> None:
    """Train a system on a feature folder; print its metrics.

    By task: each seed, mean and standard deviation over the seeds.
    """
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    check_device(device)
    chosen = _settings(model, settings, assignments, compat)
    from triptych.pipeline.trainer.runs.run import as_json_text, run_training

    results = run_training(
        store,
        model,
        seeds,
        output,
        chosen,
        replace,
        jobs,
        TrainingProgress(len(seeds)),
        streams._replace(align=align),
        device,
        tensorboard,
    )
    if json:
        click.echo(as_json_text(results))
        return
    print_metrics(results["metrics"], seeds)
    click.echo(
        f"test split of {results['clips']['test']} clips; checkpoints, run.json and results.html in {output}"
    )


def _settings(
    system: str, file: Path | None, assignments: Sequence[str], compat: str | None
) -> SystemSettings:
    """Return a file's settings of a system, by default its own, with single ones changed."""
    from triptych.pipeline.trainer.overrides import with_assignments

    default = SYSTEMS[system]
    settings = read_settings(file) if file else default
    if (type(settings), settings.tasks) != (type(default), default.tasks):
        raise InputError(f"{file}: settings of another system than {system}; give that system's")
    settings = with_assignments(settings, assignments)
    return settings.as_mmsa() if compat else settings


def print_metrics(metrics: dict[str, dict[str, dict[str, Any]]], seeds: tuple[int, ...]) -> None:
    """Print mean and standard deviation of each task's metrics, and each seed's or, of many seeds, the range."""
    few = len(seeds) <= MOST_SEEDS
    rows = [
        (
            task,
            metric,
            spread["mean"],
            spread["std"],
            *(values if few else (min(values), max(values))),
        )
        for task, by_metric in metrics.items()
        for metric, spread in by_metric.items()
        for values in [tuple(spread["seeds"].values())]
    ]
    by_seed = [f"seed {seeds[0]}", *map(str, seeds[1:])] if few else ["lowest", "highest"]
    print_table(("task", "metric", "mean", "std", *by_seed), rows)


def _axis(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, list[Any]]:
    axes = {}
    for text in value:
        parts = split_assignment(text)
        try:
            values = [read_json(choice) for choice in words(parts[1])] if parts else []
        except ValueError:
            values = []
        if not parts or not values:
            raise click.BadParameter(
                f"{text!r}: expected a setting and values, such as learning_rate=5e-4,1e-3"
            )
        axes[".".join(parts[0])] = values
    return axes


@click.command(
    cls=Command,
    examples=(
        "triptych tune features/ --model lmf -o tuned/",
        "triptych tune features/ --model lmf --grid learning_rate=5e-4,1e-3 -o tuned/",
    ),
)
@FEATURES
@click.option("--model", type=Choice(list(SYSTEMS)), required=True, help="The system to tune.")
@RESULTS
@click.option(
    "--grid",
    multiple=True,
    callback=_axis,
    metavar="SETTING=N,N,...",
    help="Values of one setting to try; repeatable. [default: learning_rate, batch_size, task_weights.*]",
)
@click.option(
    "--search",
    type=Choice(["grid", "tpe"]),
    default="grid",
    help="Random points of the grid, or optuna's proposals between its smallest and largest values.",
)
@click.option("--trials", type=click.IntRange(min=1), default=50, help="Points to try.")
@click.option(
    "--seeds",
    default="1",
    callback=read_seeds,
    metavar="N,N,...",
    help="Seeds to train with, one training each at every point.",
)
@COMPAT
@STREAM_OPTIONS
@DEVICE
@JOBS
def tune(
    features: Path,
    model: str,
    output: Path,
    grid: dict[str, list[Any]],
    search: str,
    trials: int,
    seeds: tuple[int, ...],
    compat: str | None,
    device: str,
    jobs: int,
    streams: Streams,
) -> None:
    """Search settings by accuracy on the valid split.

    The test split is not read.
    """
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    check_device(device)
    from triptych.pipeline.trainer.experiments.trainings import Trainings
    from triptych.pipeline.trainer.search.grid import default_axes, over_grid
    from triptych.pipeline.trainer.search.grid import tune as run
    from triptych.pipeline.trainer.search.tpe import by_tpe

    base = SYSTEMS[model].as_mmsa() if compat else SYSTEMS[model]
    axes = grid or default_axes(base)
    proposals = (by_tpe if search == "tpe" else over_grid)(axes, trials)
    progress = TrainingProgress(proposals.points * len(seeds))
    systems = [base]
    if "padding" in axes:  # counted padding needs rows
        systems.append(SYSTEMS[model].as_mmsa())
    trainings = Trainings.on(store, systems, output, jobs, progress, streams, device)
    finish(run(model, trainings, proposals, seeds, base), output)


@click.command(
    cls=Command,
    examples=(
        "triptych predict run/ clip.mp4 --transcript 很好",
        "triptych predict run/ features/ --json",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", metavar="CLIP_OR_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="The folder to save features in. [default: a temporary folder]",
)
@click.option("--transcript", help="The transcript of a single clip. [default: the file beside it]")
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_PREDICT_SET",
    **RECIPE_SETTINGS,
    help="Change the run's recipe, as in text.model=FOLDER; repeatable.",
)
@DEVICE
@JOBS
@AS_JSON
def predict(
    run: Path,
    source: Path,
    features: Path | None,
    transcript: str | None,
    assignments: tuple[str, ...],
    device: str,
    jobs: int,
    json: bool,
) -> None:
    """Predict the sentiment of clips with trained models.

    RUN is the folder that `triptych train` wrote.

    CLIP_OR_FOLDER is one video, any source of `triptych manifest`, or a feature folder. Features are made with
    the run's own recipe and stages; other features are refused. Values are the mean over the run's checkpoints. If a
    stage fails for a clip, the clip is predicted from the other stages, the reason is printed, and the exit code is 3.
    """
    from triptych.pipeline.trainer.runs.folder import find_checkpoints

    find_checkpoints(run)
    if not source.exists():
        raise InputError(f"{source}: not found; check the path")
    check_device(device)
    from triptych.pipeline.trainer.runs.prediction import predict as predict_all

    sentiments = predict_all(
        run, source, features, text=transcript, assignments=assignments, jobs=jobs, device=device
    )
    if json:
        for one in sentiments:
            line = {
                "clip": one.clip_id,
                "split": one.split,
                "values": one.values,
                "classes": {task: one.class_of(task) for task in one.values},
                "missing": one.missing,
                "failures": {
                    failure.stage: {"reason": failure.reason, "detail": failure.detail}
                    for failure in one.failures
                },
            }
            print_json(line)
    else:
        _print_sentiments(sentiments)
    if any(one.failures for one in sentiments):
        sys.exit(SOME_FAILED)


def _print_sentiments(sentiments: Sequence[Sentiment]) -> None:
    tasks = [task for task in TASKS if any(task in one.values for one in sentiments)]
    splits = any(one.split for one in sentiments)
    rows = [
        (
            one.clip_id,
            *([one.split] if splits else []),
            *(
                f"{one.values[task]:+.3f} {one.class_of(task)}" if task in one.values else None
                for task in tasks
            ),
            ", ".join(one.missing) or None,
        )
        for one in sentiments
    ]
    print_table(("clip", *(["split"] if splits else []), *tasks, "missing"), rows)
    failures = [
        (line.clip_id, line.stage, line.reason, line.detail) for one in sentiments for line in one.failures
    ]
    if failures:
        click.echo()
        print_table(("failed clip", "stage", "reason", "detail"), failures)
