"""Search of settings by binary accuracy on the validation split, as in the paper; the test split is left alone."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.experiments.document import Cell, Document, Grid, count, spread
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.metrics import mean_and_deviation
from triptych.pipeline.trainer.runs.jobs import Job, Result, run_jobs
from triptych.pipeline.trainer.settings import ModelSettings, SystemSettings
from triptych.pipeline.trainer.systems import MODELS

SHOWN = 10  # points of the grid that the Markdown lists

Axes = Mapping[str, Sequence[Any]]  # the values to try of each setting, by its dotted name
Point = dict[str, Any]
Tried = tuple[Point, list[Result]]  # a point, and what each seed's training gave

RATES: Axes = {"learning_rate": (5e-4, 1e-3, 2e-3, 5e-3), "batch_size": (32, 64, 128)}
ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)


def default_axes(settings: SystemSettings) -> dict[str, Sequence[Any]]:
    """Learning rate and batch size, and alpha_i of every task where there are several."""
    tasks = settings.tasks if len(settings.tasks) > 1 else ()
    return {**RATES, **{f"task_weights.{task}": ALPHAS for task in tasks}}


@dataclass(frozen=True)
class Search:
    """How settings are searched.

    Attributes
    ----------
    axes
        The names and values that points are made of.
    propose
        Gives the next points, of all that were tried before; none ends the search.
    points
        How many there will be.
    how
        A sentence for the reader.
    """

    axes: Axes
    propose: Callable[[Sequence[Tried]], list[Point]]
    points: int
    how: str


def over_grid(axes: Axes, trials: int) -> Search:
    """All points of a grid, or as many as asked for."""
    points = draw_points(axes, trials)
    size = int(np.prod([len(values) for values in axes.values()]))
    return Search(
        axes, lambda tried: points[len(tried) :], len(points), f"The grid has {count(size, 'point')}."
    )


def draw_points(axes: Axes, trials: int) -> list[Point]:
    """Points of the grid: all, or as many as asked for, drawn alike every time; fewer are the first of more."""
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    random.Random(0).shuffle(points)
    return points[:trials]


def at(settings: SystemSettings, point: Point) -> SystemSettings:
    """Settings moved to a point of the grid.

    Raises
    ------
    InputError
        There is no such setting, or it cannot have that value.
    """
    values = settings.model_dump()
    for name, value in point.items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None  # type: ignore[assignment]
        if not isinstance(place, dict) or last not in place:
            raise InputError(
                f"setting {name}: the system has no such one; there are {', '.join(_names(settings))}"
            )
        place[last] = value
    return validated(values, ", ".join(f"{name}={value}" for name, value in point.items()))


def validated(values: Any, where: str) -> SystemSettings:
    """Settings of any system, from plain values.

    Raises
    ------
    InputError
        They are wrong: every mistake.
    """
    try:
        settings: SystemSettings = TypeAdapter[SystemSettings](ModelSettings).validate_python(values)
    except ValidationError as error:
        raise InputError(
            [f"{where}: {'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        ) from error
    return settings


def read_settings(path: Path) -> SystemSettings:
    """Settings that `tune` found best, or that somebody wrote in the same form.

    Raises
    ------
    InputError
        The file is missing, no JSON, or its settings are wrong.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); `triptych tune` writes one") from error
    return validated(values, str(path))


def tune(model: str, trainings: Trainings, search: Search, seeds: Sequence[int]) -> Document:
    """Train a system with settings that a search proposes; write the best to ``best-<model>.json``.

    A point's score is Acc-2 of M on the valid split, mean over the seeds; of equal ones the one with the lower
    MAE is better. A point where a training diverges is out.

    Raises
    ------
    InputError
        A point is no settings of the system, or training diverged at all of them.
    """
    base, tried = MODELS[model], list[Tried]()
    while points := search.propose(tried):
        jobs = [Job(model, at(base, point), seed, wanted="valid") for point in points for seed in seeds]
        results = iter(run_jobs(jobs, trainings.data, trainings.folder, trainings.processes, trainings.tell))
        tried += [(point, [next(results) for _ in seeds]) for point in points]
    whole = [one for one in tried if not diverged(one[1])]
    if not whole:
        raise InputError(f"{model}: training diverged everywhere; try lower learning rates")
    ranked = best_first(whole)
    best = at(base, ranked[0][0]).model_dump(mode="json")
    trainings.folder.mkdir(parents=True, exist_ok=True)
    kept = trainings.folder / best_name(model)
    write_whole(kept, (json.dumps(best, indent=2) + "\n").encode())
    rows: list[tuple[Cell, ...]] = [
        (
            *map(str, point.values()),
            *(spread(*mean_and_deviation(_by_seed(found, m))) for m in ("Acc-2", "MAE", "Corr")),
        )
        for point, found in ranked
    ]
    records: list[tuple[Cell, ...]] = [
        (*map(str, point.values()), *(round(100 * mean(found, m), 4) for m in ("Acc-2", "MAE", "Corr")))
        for point, found in ranked
    ]
    header = (*search.axes, "Acc-2", "MAE", "Corr")
    return Document(
        f"tune-{model}",
        f"Tuning {model}",
        trainings.about,
        (
            (
                f"The {min(SHOWN, len(rows))} best of {count(len(tried), 'point')}:",
                Grid(header, tuple(rows[:SHOWN])),
            ),
        ),
        Grid(header, tuple(records)),
        (
            f"M on the valid split, mean over the seeds {', '.join(map(str, seeds))}, in hundredths; "
            "the test split was not read.",
            f"{search.how} {len(tried) - len(whole)} of those tried diverged.",
            f"{kept.name} holds the best settings: "
            f"`triptych train FEATURES --model {model} --settings {kept.name} -o RUN`.",
            "Early stopping watched the same split, so that these scores are a little better than new clips will give.",
        ),
    )


def best_name(model: str) -> str:
    """The file of a system's best settings."""
    return f"best-{model}.json"


def best_first(tried: Sequence[Tried]) -> list[Tried]:
    """Order points by Acc-2 of M on the valid split, equal ones by MAE."""
    return sorted(tried, key=lambda one: (-mean(one[1], "Acc-2"), mean(one[1], "MAE")))


def diverged(results: Sequence[Result]) -> bool:
    """Whether a training of a point came to nothing."""
    return any("diverged" in result for result in results)


def mean(results: Sequence[Result], metric: str) -> float:
    """A measure of M on the valid split, mean over a point's seeds."""
    return float(np.mean(_by_seed(results, metric)))


def _by_seed(results: Sequence[Result], metric: str) -> list[float]:
    return [result["valid"]["M"][metric] for result in results]


def _names(settings: SystemSettings) -> list[str]:
    names = []
    for name, value in settings.model_dump().items():
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]
    return [name for name in names if name != "family"]
