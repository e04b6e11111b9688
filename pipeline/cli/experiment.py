"""`triptych experiment`: the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triptych.pipeline.cli.completion import complete_systems
from triptych.pipeline.cli.help import Group
from triptych.pipeline.cli.options import (
    COMPAT,
    DEVICE,
    EACH_SEED,
    FEATURES,
    JOBS,
    LARGEST_SEED,
    RESULTS,
    SOURCE,
    STREAM_OPTIONS,
    unknown_names,
    words,
)
from triptych.pipeline.cli.training_progress import finish
from triptych.pipeline.environment.device import check_device
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.terminal.training import TrainingProgress
from triptych.pipeline.trainer.systems import SYSTEMS

if TYPE_CHECKING:
    from triptych.pipeline.trainer.experiments.trainings import Trainings
    from triptych.pipeline.trainer.settings import SystemSettings


@click.group(cls=Group)
def experiment() -> None:
    """Reproduce a table or figure of the CH-SIMS paper.

    Each writes Markdown, CSV and PNG files into a folder.
    """


def _add_label_experiment(name: str, summary: str) -> None:
    @SOURCE
    @RESULTS
    def command(source: Path, output: Path) -> None:
        from triptych.pipeline.trainer.experiments import labels

        make: Callable[[Path], Any] = getattr(labels, name)
        finish(make(source), output)

    command.__doc__ = f"""{summary}

    SOURCE is any source of `triptych manifest`, a feature folder, or a CH-SIMS label table; videos may be missing.
    """
    experiment.command(name)(command)


_add_label_experiment("table1", "Statistics of a data set.")
_add_label_experiment("table3", "Number of clips by split and sentiment class, with the paper's numbers.")
_add_label_experiment("figure2", "Classes of each annotation, and how the annotations differ.")


def _trained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of every experiment that trains, without its seeds."""
    for add in (DEVICE, JOBS, STREAM_OPTIONS, RESULTS, FEATURES):
        command = add(command)
    return command


def _open(
    features: Path,
    systems: Callable[[], Iterable[SystemSettings]],
    output: Path,
    jobs: int,
    total: int,
    device: str,
    streams: Streams,
) -> Trainings:
    """Check folder and device before torch and the systems are imported; read the clips."""
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    check_device(device)
    from triptych.pipeline.trainer.experiments.trainings import Trainings

    report = TrainingProgress(total)
    return Trainings.on(store, systems(), output, jobs, report, streams, device)


def _systems(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    systems = words(value)
    unknown = [system for system in systems if system not in SYSTEMS]
    if unknown or not systems:
        raise click.BadParameter(unknown_names("system", unknown, SYSTEMS))
    return systems


@experiment.command()
@_trained
@EACH_SEED
@click.option(
    "--models",
    default=",".join(SYSTEMS),
    callback=_systems,
    shell_complete=complete_systems,
    metavar="NAME,...",
    help="The systems to compare.",
)
@click.option(
    "--tuned",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of `triptych tune`: systems with a best-NAME.json in it are trained with those settings.",
)
@COMPAT
def table2(
    features: Path,
    output: Path,
    seeds: tuple[int, ...],
    models: tuple[str, ...],
    tuned: Path | None,
    compat: str | None,
    jobs: int,
    device: str,
    streams: Streams,
) -> None:
    """Compare the systems on the multimodal label, with the paper's numbers."""
    chosen: dict[str, SystemSettings] = {}

    def systems() -> list[SystemSettings]:
        from triptych.pipeline.trainer.search.grid import tuned_settings

        found = tuned_settings(tuned, models) if tuned else {}
        if compat:
            found = {name: found.get(name, SYSTEMS[name]).as_mmsa() for name in models}
        chosen.update(found)
        return [chosen.get(name, SYSTEMS[name]) for name in models]

    trainings = _open(features, systems, output, jobs, len(models) * len(seeds), device, streams)
    from triptych.pipeline.trainer.experiments import tables

    finish(tables.table2(trainings, seeds, models, chosen), output)


@experiment.command()
@_trained
@EACH_SEED
def table4(
    features: Path, output: Path, seeds: tuple[int, ...], jobs: int, device: str, streams: Streams
) -> None:
    """One modality alone, trained on its own or on the multimodal label."""
    trainings = _open(features, _multi_task, output, jobs, 6 * len(seeds), device, streams)
    from triptych.pipeline.trainer.experiments import tables

    finish(tables.table4(trainings, seeds), output)


@experiment.command()
@_trained
@EACH_SEED
def table5(
    features: Path, output: Path, seeds: tuple[int, ...], jobs: int, device: str, streams: Streams
) -> None:
    """MLF-DNN with each subset of its unimodal tasks."""
    trainings = _open(features, _multi_task, output, jobs, 8 * len(seeds), device, streams)
    from triptych.pipeline.trainer.experiments import tables

    finish(tables.table5(trainings, seeds), output)


@experiment.command()
@_trained
@click.option("--seed", type=click.IntRange(0, LARGEST_SEED), default=1, help="Seed of the models.")
def figure4(features: Path, output: Path, seed: int, jobs: int, device: str, streams: Streams) -> None:
    """t-SNE of the unimodal representations, single-task against multi-task systems."""

    def systems() -> list[SystemSettings]:
        from triptych.pipeline.trainer.experiments.representations import SHOWN

        return [SYSTEMS[name] for name in SHOWN]

    trainings = _open(features, systems, output, jobs, 6, device, streams)
    from triptych.pipeline.trainer.experiments import representations

    finish(representations.figure4(trainings, seed), output)


def _multi_task() -> list[SystemSettings]:
    from triptych.pipeline.trainer.experiments import tables

    return [tables.multi_task()]
