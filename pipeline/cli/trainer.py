"""`triptych train`, `tune` and `predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triptych.pipeline.cli.options import (
    AS_JSON,
    EACH_SEED,
    FEATURES,
    JOBS,
    RESULTS,
    SOME_FAILED,
    read_seeds,
    words,
)
from triptych.pipeline.cli.training_progress import TrainingProgress, finish
from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.tables import print_table
from triptych.pipeline.trainer.settings import TASKS
from triptych.pipeline.trainer.systems import MODELS

if TYPE_CHECKING:
    from triptych.pipeline.trainer.runs.prediction import Sentiment


@click.command()
@FEATURES
@click.option("--model", type=click.Choice(list(MODELS)), required=True, help="The system to train.")
@EACH_SEED
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file of settings, as `triptych tune` writes it. [default: the paper's]",
)
@click.option(
    "--compat",
    type=click.Choice(["mmsa"]),
    help="Pad as MMSA does: zeros behind a clip's end count as rows, and MFN pools instead of aligning.",
)
@click.option("--replace", is_flag=True, help="Remove the models of another run from the run's folder.")
@JOBS
@AS_JSON
def train(
    features: Path,
    model: str,
    seeds: tuple[int, ...],
    output: Path,
    settings: Path | None,
    compat: str | None,
    replace: bool,
    jobs: int,
    json: bool,
) -> None:
    """Train a model on a feature folder; print each task's metrics by seed, mean and deviation."""
    from triptych.pipeline.storage.store import FeatureStore
    from triptych.pipeline.trainer.runs.run import as_json_text, run_training
    from triptych.pipeline.trainer.search.grid import read_settings

    numbers = read_settings(settings) if settings else MODELS[model]
    if (type(numbers), numbers.tasks) != (type(MODELS[model]), MODELS[model].tasks):
        raise InputError(f"{settings}: settings of another system than {model}; give that system's")
    if compat:
        numbers = numbers.as_mmsa()
    progress = TrainingProgress(len(seeds))
    results = run_training(FeatureStore(features), model, seeds, output, numbers, replace, jobs, progress)
    if json:
        click.echo(as_json_text(results))
        return
    _print_metrics(results["metrics"], seeds)
    click.echo(
        f"test split of {results['clips']['test']} clips; checkpoints with normaliser, recipe and results in {output}"
    )


def _print_metrics(metrics: dict[str, dict[str, dict[str, Any]]], seeds: tuple[int, ...]) -> None:
    rows = [
        (task, metric, *spread["seeds"].values(), spread["mean"], spread["std"])
        for task, by_metric in metrics.items()
        for metric, spread in by_metric.items()
    ]
    print_table(("task", "metric", *(f"seed {seed}" for seed in seeds), "mean", "std"), rows)


def _axis(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, list[Any]]:
    axes = {}
    for word in value:
        name, equals, choices = word.partition("=")
        try:
            axes[name.strip()] = [loads(choice) for choice in words(choices)]
        except ValueError:
            equals = ""
        if not equals or not axes[name.strip()]:
            raise click.BadParameter(f"{word!r}: give a setting and numbers, as in learning_rate=5e-4,1e-3")
    return axes


@click.command()
@FEATURES
@click.option("--model", type=click.Choice(list(MODELS)), required=True, help="The system to tune.")
@RESULTS
@click.option(
    "--grid",
    multiple=True,
    callback=_axis,
    metavar="SETTING=N,N,...",
    help="Values to try of one setting; may be given often. [default: learning_rate, batch_size, task_weights.*]",
)
@click.option(
    "--search",
    type=click.Choice(["grid", "tpe"]),
    default="grid",
    help="Points of the grid, drawn at random; or optuna's proposals between its ends, for a search beyond it.",
)
@click.option("--trials", type=click.IntRange(min=1), default=50, help="Points to try.")
@click.option(
    "--seeds", default="1", callback=read_seeds, metavar="N,N,...", help="One training each, at every point."
)
@JOBS
def tune(
    features: Path,
    model: str,
    output: Path,
    grid: dict[str, list[Any]],
    search: str,
    trials: int,
    seeds: tuple[int, ...],
    jobs: int,
) -> None:
    """Search settings by binary accuracy on the valid split; the test split is not read."""
    from triptych.pipeline.trainer.experiments.trainings import Trainings
    from triptych.pipeline.trainer.search.grid import default_axes, over_grid
    from triptych.pipeline.trainer.search.grid import tune as run
    from triptych.pipeline.trainer.search.tpe import by_tpe

    axes = grid or default_axes(MODELS[model])
    proposals = (by_tpe if search == "tpe" else over_grid)(axes, trials)
    progress = TrainingProgress(proposals.points * len(seeds))
    systems = [MODELS[model], *([MODELS[model].as_mmsa()] if "padding" in axes else [])]  # which reads rows
    trainings = Trainings.on(features, systems, output, jobs, progress)
    finish(run(model, trainings, proposals, seeds), output)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", metavar="CLIP_OR_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="Keep the features here. [default: a temporary folder]",
)
@click.option("--text", help="The transcript of a single clip. [default: the .txt file beside it]")
@click.option(
    "--set",
    "assignments",
    envvar="TRIPTYCH_PREDICT_SET",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="Change the run's recipe, as in text.model=/where/it/is; may be given often.",
)
@JOBS
@AS_JSON
def predict(
    run: Path,
    source: Path,
    features: Path | None,
    text: str | None,
    assignments: tuple[str, ...],
    jobs: int,
    json: bool,
) -> None:
    """Predict the sentiment of raw clips by the models of RUN, the folder that `triptych train` wrote.

    CLIP_OR_FOLDER is one video, whatever `triptych manifest` reads, or a feature folder. Features are made by
    the run's own recipe; others are refused. Values are the mean of the run's models. A clip of which a stage
    failed is predicted from the others; why it failed is said, and the exit code is 3.
    """
    from triptych.pipeline.trainer.runs.prediction import predict as predict_all

    found = predict_all(run, source, features, text=text, assignments=assignments, jobs=jobs)
    if json:
        for one in found:
            told = {
                "clip": one.clip_id,
                "values": one.values,
                "classes": {task: one.class_of(task) for task in one.values},
                "missing": one.missing,
                "failures": {
                    line.stage: {"reason": line.reason, "detail": line.detail} for line in one.failures
                },
            }
            click.echo(dumps(told, ensure_ascii=False))
    else:
        _print_sentiments(found)
    if any(one.failures for one in found):
        sys.exit(SOME_FAILED)


def _print_sentiments(found: Sequence[Sentiment]) -> None:
    tasks = [task for task in TASKS if any(task in one.values for one in found)]
    rows = [
        (
            one.clip_id,
            *(
                f"{one.values[task]:+.3f} {one.class_of(task)}" if task in one.values else None
                for task in tasks
            ),
            ", ".join(one.missing) or None,
        )
        for one in found
    ]
    print_table(("clip", *tasks, "without"), rows)
    failures = [
        (line.clip_id, line.stage, line.reason, line.detail) for one in found for line in one.failures
    ]
    if failures:
        click.echo()
        print_table(("failed clip", "stage", "reason", "detail"), failures)
