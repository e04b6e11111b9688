"""`results.html` of a run: its metrics, learning curves, confusion matrices and predictions, in one file.

The page needs no network and runs no script. `results.html.j2` is its layout, `results.css` its style sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from triptych.pipeline.manifest.label_range import LabelRange
from triptych.pipeline.manifest.splits import CLASS_NAMES
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.metrics import ACC5_EDGES, classes, from_unit
from triptych.pipeline.trainer.runs.jobs import Result
from triptych.pipeline.trainer.runs.svg import Axis, lines, scatter
from triptych.pipeline.trainer.settings import TASK_OF_MODALITY, TASKS

NAME = "results.html"
MOST_POINTS = 3000  # of one plot of predictions


@dataclass(frozen=True)
class Confusion:
    """How often each class was predicted for each true class.

    Attributes
    ----------
    counts
        Row by true class, column by predicted class; all seeds together.
    """

    task: str
    counts: list[list[int]]

    @property
    def most(self) -> int:
        """The largest count."""
        return max(map(max, self.counts))


def results_page(document: Mapping[str, Any], results: Sequence[Result], data: SentimentData) -> str:
    """Return the page of a run as HTML.

    Parameters
    ----------
    document
        The content of ``results.json``.
    results
        What each seed's job returned, with details.
    data
        The clips that were trained on.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "–" if value is None or value != value else f"{value:.3f}"
    style = (Path(__file__).parent / "results.css").read_text(encoding="utf-8")
    return environment.get_template("results.html.j2").render(
        style=Markup(style),
        document=document,
        seeds=[result["seed"] for result in results],
        curves=learning_curves(results),
        confusions=confusions(results, data),
        class_names=CLASS_NAMES,
        predictions=prediction_plots(results, data),
        embedding=embedding_plot(results[0]),
    )


def learning_curves(results: Sequence[Result]) -> list[Markup]:
    """Draw the objective in training, and each task's error in validation, by epoch: one line for each seed."""
    best = {f"seed {result['seed']}": float(result["epochs"]["best"]) for result in results}

    def chart(title: str, quantity: str, values: dict[str, list[float]]) -> Markup:
        numbered = {name: list(enumerate(of_seed, start=1)) for name, of_seed in values.items()}
        longest = max(map(len, values.values()))
        y = Axis.around(quantity, [value for of_seed in values.values() for value in of_seed])
        return lines(title, Axis("epoch", 0, longest + 1), y, numbered, best)

    by_seed = {f"seed {result['seed']}": result["history"] for result in results}
    training = {name: [epoch["train_loss"] for epoch in history] for name, history in by_seed.items()}
    charts = [chart("Objective in training", "objective", training)]
    for task in TASKS:
        errors = {
            name: [epoch["by_task"][task] for epoch in history if task in epoch["by_task"]]
            for name, history in by_seed.items()
        }
        if all(errors.values()):
            charts.append(chart(f"Task {task}: error in validation", "MAE, labels -1 to 1", errors))
    return charts


def confusions(results: Sequence[Result], data: SentimentData) -> list[Confusion]:
    """Count true and predicted classes of the test split, by task, over all seeds."""
    found = []
    for task, true, predicted in _tested(results, data):
        counts = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), dtype=int)
        for values in predicted.values():
            np.add.at(counts, (classes(true, ACC5_EDGES), classes(values, ACC5_EDGES)), 1)
        found.append(Confusion(task, counts.tolist()))
    return found


def prediction_plots(results: Sequence[Result], data: SentimentData) -> list[Markup]:
    """Draw predictions against labels of the test split, by task; one colour for each seed."""
    low, high = data.label_range
    margin = 0.05 * (high - low)
    plots = []
    for task, true, predicted in _tested(results, data):
        every = -(-len(true) * len(predicted) // MOST_POINTS)
        points = {
            f"seed {seed}": list(
                zip(
                    _own(true, data.label_range)[::every],
                    _own(np.clip(values, -1, 1), data.label_range)[::every],
                    strict=True,
                )
            )
            for seed, values in predicted.items()
        }
        x, y = (Axis(name, low - margin, high + margin) for name in ("label", "prediction"))
        plots.append(scatter(f"Task {task}", x, y, points, diagonal=True))
    return plots


def embedding_plot(result: Result) -> Markup | None:
    """Draw t-SNE of one seed's representations of the test split, by modality; None for a system without them."""
    representations = result.get("representations")
    if not representations or len(representations["T"]) < 3:
        return None
    from triptych.pipeline.trainer.embedding import embed, side_by_side

    joined, _ = side_by_side(representations)
    positions = np.split(embed(joined, result["seed"]), len(TASK_OF_MODALITY))
    groups = {
        modality: [(float(x), float(y)) for x, y in points]
        for modality, points in zip(TASK_OF_MODALITY, positions, strict=True)
    }
    x, y = (
        Axis.around(name, [point[index] for points in groups.values() for point in points])
        for index, name in enumerate(("t-SNE 1", "t-SNE 2"))
    )
    return scatter(f"Seed {result['seed']}", x, y, groups)


def _tested(
    results: Sequence[Result], data: SentimentData
) -> list[tuple[str, np.ndarray[Any, Any], dict[int, np.ndarray[Any, Any]]]]:
    """Return each task's labels and predictions of the labelled clips of the test split, by seed, from -1 to 1."""
    rows = data.split("test")
    found = []
    for task in results[0]["predictions"]:
        labels = data.labels[rows, TASKS.index(task)]
        known = ~np.isnan(labels)
        if known.any():
            predicted = {
                result["seed"]: np.array(result["predictions"][task], dtype=np.float32)[known]
                for result in results
            }
            found.append((task, labels[known], predicted))
    return found


def _own(values: np.ndarray[Any, Any], label_range: LabelRange) -> list[float]:
    return [round(float(value), 4) for value in from_unit(values, label_range)]
