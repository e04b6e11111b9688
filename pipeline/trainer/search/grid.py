"""Search of settings by binary accuracy on the validation split, as in the paper; the test split is not read."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.grid import Cell, Grid
from triptych.pipeline.trainer.experiments.document import Document, count, spread
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.metrics import mean_and_std
from triptych.pipeline.trainer.overrides import changed
from triptych.pipeline.trainer.runs.jobs import Job, Result
from triptych.pipeline.trainer.settings import SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS, read_settings

SHOWN = 10  # points of the grid that the Markdown lists

Axes = Mapping[str, Sequence[Any]]  # the values to try of each setting, by its dotted name
Point = dict[str, Any]
Tried = tuple[Point, list[Result]]  # a point, and each seed's result

RATES: Axes = {"learning_rate": (5e-4, 1e-3, 2e-3, 5e-3), "batch_size": (32, 64, 128)}
ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)


def default_axes(settings: SystemSettings) -> dict[str, Sequence[Any]]:
    """Learning rate and batch size, and alpha_i of every task where there are several."""
    tasks = settings.tasks if len(settings.tasks) > 1 else ()
    return {**RATES, **{f"task_weights.{task}": ALPHAS for task in tasks}}


@dataclass(frozen=True)
class Search:
    """A search strategy for settings.

    Attributes
    ----------
    axes
        The names and values that points are made of.
    propose
        Returns the next points, given all that were tried before; no points end the search.
    points
        Number of points in all.
    description
        A sentence for the reader.
    """

    axes: Axes
    propose: Callable[[Sequence[Tried]], list[Point]]
    points: int
    description: str


def over_grid(axes: Axes, trials: int) -> Search:
    """Search a grid: all its points, or the first ones of a random order."""
    points = draw_points(axes, trials)
    size = int(np.prod([len(values) for values in axes.values()]))
    return Search(
        axes, lambda tried: points[len(tried) :], len(points), f"The grid has {count(size, 'point')}."
    )


def draw_points(axes: Axes, trials: int) -> list[Point]:
    """Draw points of the grid in a fixed random order; fewer trials are the first of more."""
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    random.Random(0).shuffle(points)
    return points[:trials]


def at(settings: SystemSettings, point: Point) -> SystemSettings:
    """Change settings to those of a point of the grid.

    Raises
    ------
    InputError
        A setting is unknown, or its value is invalid.
    """
    return changed(settings, point)


def tune(
    system: str,
    trainings: Trainings,
    search: Search,
    seeds: Sequence[int],
    base: SystemSettings | None = None,
) -> Document:
    """Train a system with settings that a search proposes; write the best to ``best-<system>.json``.

    All settings that the search does not propose are those of `base`, by default the system's own. A point's score is
    Acc-2 of M on the valid split, mean over the seeds; of equal ones the one with the lower
    MAE is better. A point where a training diverges is left out.

    Raises
    ------
    InputError
        A point has invalid settings, or training diverged at all points.
    """
    base, tried = base or SYSTEMS[system], list[Tried]()
    while points := search.propose(tried):
        jobs = [Job(system, at(base, point), seed, wanted="valid") for point in points for seed in seeds]
        results = iter(trainings.results(jobs))
        tried += [(point, [next(results) for _ in seeds]) for point in points]
    converged = [one for one in tried if not diverged(one[1])]
    if not converged:
        raise InputError(f"{system}: training diverged at every point; try lower learning rates")
    ranked = best_first(converged)
    best = at(base, ranked[0][0]).model_dump(mode="json")
    trainings.folder.mkdir(parents=True, exist_ok=True)
    best_file = trainings.folder / best_name(system)
    write_whole(best_file, (json.dumps(best, indent=2) + "\n").encode())
    return _report(system, trainings.about, search, seeds, ranked, len(tried), best_file.name)


def _report(
    system: str,
    about: str,
    search: Search,
    seeds: Sequence[int],
    ranked: Sequence[Tried],
    tried: int,
    best_file: str,
) -> Document:
    """Make the document of a search: its points from the best to the worst."""
    rows: list[tuple[Cell, ...]] = [
        (
            *map(str, point.values()),
            *(spread(*mean_and_std(_by_seed(results, m))) for m in ("Acc-2", "MAE", "Corr")),
        )
        for point, results in ranked
    ]
    records: list[tuple[Cell, ...]] = [
        (*map(str, point.values()), *(round(100 * mean(results, m), 4) for m in ("Acc-2", "MAE", "Corr")))
        for point, results in ranked
    ]
    header = (*search.axes, "Acc-2", "MAE", "Corr")
    return Document(
        f"tune-{system}",
        f"Tuning {system}",
        about,
        (
            (
                f"The {min(SHOWN, len(rows))} best of {count(tried, 'point')}:",
                Grid(header, tuple(rows[:SHOWN])),
            ),
        ),
        Grid(header, tuple(records)),
        (
            f"M on the valid split, mean over the seeds {', '.join(map(str, seeds))}, in hundredths; "
            "the test split was not read.",
            f"{search.description} Of the points tried, {tried - len(ranked)} diverged.",
            f"{best_file} has the best settings: "
            f"`triptych train FEATURES --model {system} --settings {best_file} -o RUN`.",
            "Early stopping used the same split, so these scores are slightly better than those of new clips.",
        ),
    )


def tuned_settings(folder: Path, systems: Iterable[str]) -> dict[str, SystemSettings]:
    """Read the best settings that `tune` has found, by system; systems without any are left out.

    Raises
    ------
    InputError
        There are none, or a file is invalid or has settings of another system.
    """
    found = {}
    for system in systems:
        file = folder / best_name(system)
        if file.is_file():
            settings, default = read_settings(file), SYSTEMS[system]
            if (type(settings), settings.tasks) != (type(default), default.tasks):
                raise InputError(f"{file}: settings of another system than {system}; tune it again")
            found[system] = settings
    if not found:
        raise InputError(
            f"{folder}: no best-NAME.json of {', '.join(systems)}; `triptych tune FEATURES --model NAME -o {folder}` "
            "writes them"
        )
    return found


def best_name(system: str) -> str:
    """Return the file name of a system's best settings."""
    return f"best-{system}.json"


def best_first(tried: Sequence[Tried]) -> list[Tried]:
    """Order points by Acc-2 of M on the valid split, equal ones by MAE."""
    return sorted(tried, key=lambda one: (-mean(one[1], "Acc-2"), mean(one[1], "MAE")))


def diverged(results: Sequence[Result]) -> bool:
    """Return whether a training of a point diverged."""
    return any("diverged" in result for result in results)


def mean(results: Sequence[Result], metric: str) -> float:
    """Return a metric of M on the valid split, mean over a point's seeds."""
    return float(np.mean(_by_seed(results, metric)))


def _by_seed(results: Sequence[Result], metric: str) -> list[float]:
    return [result["valid"]["M"][metric] for result in results]
