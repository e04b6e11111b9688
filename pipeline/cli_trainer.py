"""Commands that train: one system, or the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli_options import AS_JSON, EACH_SEED, FEATURES, SOURCE
from pipeline.console import print_table
from pipeline.trainer.settings import MODELS

RESULTS = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A folder for the results.",
)


@click.command()
@FEATURES
@click.option("--model", type=click.Choice(list(MODELS)), required=True, help="The system to train.")
@EACH_SEED
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@AS_JSON
def train(features: Path, model: str, seeds: tuple[int, ...], output: Path, json: bool) -> None:
    """Train a model on a feature folder; print each task's metrics by seed, mean and deviation."""
    from pipeline.store import FeatureStore
    from pipeline.trainer.run import as_json_text, run_training

    results = run_training(FeatureStore(features), model, seeds, output).results
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


@click.group()
def experiment() -> None:
    """Make a table or figure of the CH-SIMS paper anew: Markdown, CSV and PNG files in a folder."""


def _finish(document: Any, output: Path) -> None:
    written = document.write(output)
    click.echo(document.markdown(), nl=False)
    click.echo(f"written: {', '.join(map(str, written))}", err=True)


def _add_label_experiment(name: str, summary: str) -> None:
    @SOURCE
    @RESULTS
    def command(source: Path, output: Path) -> None:
        from pipeline.trainer.experiments import labels

        make: Callable[[Path], Any] = getattr(labels, name)
        _finish(make(source), output)

    command.__doc__ = f"""{summary}

    SOURCE is whatever `triptych manifest` reads, a feature folder, or a CH-SIMS label table; videos may be missing.
    """
    experiment.command(name)(command)


_add_label_experiment("table1", "Statistics of a corpus.")
_add_label_experiment("table3", "Clips by split and class of sentiment, beside the paper's.")
_add_label_experiment("figure2", "Classes of each annotation, and how far the annotations differ.")
