"""`triptych experiment`: the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from triptych.pipeline.cli.options import EACH_SEED, FEATURES, JOBS, LARGEST_SEED, RESULTS, SOURCE, words
from triptych.pipeline.cli.training_progress import TrainingProgress, finish
from triptych.pipeline.trainer.systems import MODELS


@click.group()
def experiment() -> None:
    """Make a table or figure of the CH-SIMS paper anew: Markdown, CSV and PNG files in a folder."""


def _add_label_experiment(name: str, summary: str) -> None:
    @SOURCE
    @RESULTS
    def command(source: Path, output: Path) -> None:
        from triptych.pipeline.trainer.experiments import labels

        make: Callable[[Path], Any] = getattr(labels, name)
        finish(make(source), output)

    command.__doc__ = f"""{summary}

    SOURCE is whatever `triptych manifest` reads, a feature folder, or a CH-SIMS label table; videos may be missing.
    """
    experiment.command(name)(command)


_add_label_experiment("table1", "Statistics of a corpus.")
_add_label_experiment("table3", "Clips by split and class of sentiment, beside the paper's.")
_add_label_experiment("figure2", "Classes of each annotation, and how far the annotations differ.")


def _systems(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    systems = words(value)
    unknown = [system for system in systems if system not in MODELS]
    if unknown or not systems:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'}: systems are {', '.join(MODELS)}")
    return systems


@experiment.command()
@FEATURES
@RESULTS
@EACH_SEED
@click.option(
    "--models",
    default=",".join(MODELS),
    callback=_systems,
    metavar="NAME,...",
    help="The systems to compare.",
)
@JOBS
def table2(features: Path, output: Path, seeds: tuple[int, ...], models: tuple[str, ...], jobs: int) -> None:
    """The nine systems on the multimodal label, beside the paper's numbers."""
    from triptych.pipeline.trainer.experiments import tables
    from triptych.pipeline.trainer.experiments.trainings import Trainings

    systems = [MODELS[name] for name in models]
    trainings = Trainings.on(features, systems, output, jobs, TrainingProgress(len(models) * len(seeds)))
    finish(tables.table2(trainings, seeds, models), output)


@experiment.command()
@FEATURES
@RESULTS
@EACH_SEED
@JOBS
def table4(features: Path, output: Path, seeds: tuple[int, ...], jobs: int) -> None:
    """One modality alone, learning its own or the multimodal label."""
    from triptych.pipeline.trainer.experiments import tables
    from triptych.pipeline.trainer.experiments.trainings import Trainings

    trainings = Trainings.on(features, [tables.multi_task()], output, jobs, TrainingProgress(6 * len(seeds)))
    finish(tables.table4(trainings, seeds), output)


@experiment.command()
@FEATURES
@RESULTS
@EACH_SEED
@JOBS
def table5(features: Path, output: Path, seeds: tuple[int, ...], jobs: int) -> None:
    """MLF-DNN with each subset of its unimodal tasks."""
    from triptych.pipeline.trainer.experiments import tables
    from triptych.pipeline.trainer.experiments.trainings import Trainings

    total = len(tables.SUBSETS) * len(seeds)
    trainings = Trainings.on(features, [tables.multi_task()], output, jobs, TrainingProgress(total))
    finish(tables.table5(trainings, seeds), output)


@experiment.command()
@FEATURES
@RESULTS
@click.option("--seed", type=click.IntRange(0, LARGEST_SEED), default=1, help="Of the models.")
@JOBS
def figure4(features: Path, output: Path, seed: int, jobs: int) -> None:
    """t-SNE of the unimodal representations, single- against multi-task."""
    from triptych.pipeline.trainer.experiments import representations
    from triptych.pipeline.trainer.experiments.trainings import Trainings

    systems = [MODELS[name] for name in representations.SYSTEMS]
    trainings = Trainings.on(features, systems, output, jobs, TrainingProgress(len(systems)))
    finish(representations.figure4(trainings, seed), output)
