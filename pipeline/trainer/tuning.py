"""Grid search by binary accuracy on the validation split, as in the paper; the test split is left alone."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pipeline.atomic import write_whole
from pipeline.errors import InputError
from pipeline.trainer.experiments.document import Cell, Document, Grid, count, spread
from pipeline.trainer.experiments.runner import Job, Result, run_jobs
from pipeline.trainer.experiments.trainings import Trainings
from pipeline.trainer.settings import MODELS, ModelSettings, SystemSettings

SHOWN = 10  # points of the grid that the Markdown lists
BEST = "best.json"

Axes = Mapping[str, Sequence[Any]]  # the values to try of each setting, by its dotted name
Point = dict[str, Any]

RATES: Axes = {"learning_rate": (5e-4, 1e-3, 2e-3, 5e-3), "batch_size": (32, 64, 128)}
ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)


def default_axes(settings: SystemSettings) -> dict[str, Sequence[Any]]:
    """Learning rate and batch size, and alpha_i of every task where there are several."""
    tasks = settings.tasks if len(settings.tasks) > 1 else ()
    return {**RATES, **{f"task_weights.{task}": ALPHAS for task in tasks}}


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


def tune(
    model: str, trainings: Trainings, axes: Axes, points: Sequence[Point], seeds: Sequence[int]
) -> Document:
    """Train a system at points of a grid; write the best settings to ``best.json``.

    A point's score is Acc-2 of M on the valid split, mean over the seeds; of equal ones the one with the lower
    MAE is better. A point where a training diverges is out.

    Parameters
    ----------
    axes
        The grid that the points are of.

    Raises
    ------
    InputError
        A point is no settings of the system, or training diverged at all of them.
    """
    base = MODELS[model]
    cases = [at(base, point) for point in points]
    jobs = [Job(model, settings, seed, wanted="valid") for settings in cases for seed in seeds]
    results = iter(run_jobs(jobs, trainings.data, trainings.folder, trainings.processes, trainings.tell))
    scored = [
        (point, settings, [next(results) for _ in seeds])
        for point, settings in zip(points, cases, strict=True)
    ]
    whole = [one for one in scored if not any("diverged" in result for result in one[2])]
    if not whole:
        raise InputError(f"{model}: training diverged everywhere; try lower learning rates")
    ranked = sorted(whole, key=lambda one: (-_mean(one[2], "Acc-2"), _mean(one[2], "MAE")))
    best = ranked[0][1].model_dump(mode="json")
    trainings.folder.mkdir(parents=True, exist_ok=True)
    write_whole(trainings.folder / BEST, (json.dumps(best, indent=2) + "\n").encode())
    rows: list[tuple[Cell, ...]] = [
        (
            *map(str, point.values()),
            *(spread(_mean(found, m), _deviation(found, m)) for m in ("Acc-2", "MAE", "Corr")),
        )
        for point, _, found in ranked
    ]
    records: list[tuple[Cell, ...]] = [
        (*map(str, point.values()), *(round(100 * _mean(found, m), 4) for m in ("Acc-2", "MAE", "Corr")))
        for point, _, found in ranked
    ]
    header = (*axes, "Acc-2", "MAE", "Corr")
    size = int(np.prod([len(values) for values in axes.values()]))
    return Document(
        f"tune-{model}",
        f"Tuning {model}",
        trainings.about,
        (
            (
                f"The {min(SHOWN, len(rows))} best of {count(len(points), 'point')}:",
                Grid(header, tuple(rows[:SHOWN])),
            ),
        ),
        Grid(header, tuple(records)),
        (
            f"M on the valid split, mean over the seeds {', '.join(map(str, seeds))}, in hundredths; "
            "the test split was not read.",
            f"The grid has {count(size, 'point')}; {len(points) - len(whole)} of those tried diverged.",
            f"{BEST} holds the best settings: `triptych train FEATURES --model {model} --settings {BEST} -o RUN`.",
            "Early stopping watched the same split, so that these scores are a little better than new clips will give.",
        ),
    )


def _mean(results: Sequence[Result], metric: str) -> float:
    return float(np.mean([result["valid"]["M"][metric] for result in results]))


def _deviation(results: Sequence[Result], metric: str) -> float:
    values = [result["valid"]["M"][metric] for result in results]
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _names(settings: SystemSettings) -> list[str]:
    names = []
    for name, value in settings.model_dump().items():
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]
    return [name for name in names if name != "family"]
