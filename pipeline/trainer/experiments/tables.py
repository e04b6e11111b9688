"""Tables 2, 4 and 5: systems trained with several seeds, on the test split, beside the paper's numbers.

Every number is in hundredths, as in the paper. Each training reads the test split once, at its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triptych.pipeline.trainer.experiments import figures as pictures
from triptych.pipeline.trainer.experiments import published
from triptych.pipeline.trainer.experiments.document import Cell, Document, Grid, count, spread
from triptych.pipeline.trainer.experiments.trainings import Spread, Trainings, spread_of
from triptych.pipeline.trainer.metrics import METRICS
from triptych.pipeline.trainer.runs.jobs import Job, Result
from triptych.pipeline.trainer.settings import (
    TASK_OF_MODALITY,
    LateFusionSettings,
    SubnetworkSettings,
    Task,
    UnimodalSettings,
)
from triptych.pipeline.trainer.systems import MODELS

TWINS = {"mlf-dnn": "lf-dnn", "mtfn": "tfn", "mlmf": "lmf"}  # a multi-task system, and the one it extends
TABLE_2_ORDER = ("ef-lstm", "mfn", "mult", "lf-dnn", "mlf-dnn", "tfn", "mtfn", "lmf", "mlmf")
TITLES = {"mult": "MulT"} | {name: name.upper() for name in MODELS if name != "mult"}
BETTER_LOW = ("MAE",)
SUBSETS: tuple[tuple[Task, ...], ...] = (
    ("M",),
    ("M", "T"),
    ("M", "A"),
    ("M", "V"),
    ("M", "T", "A"),
    ("M", "T", "V"),
    ("M", "A", "V"),
    ("M", "T", "A", "V"),
)

F1_NOTE = (
    "F1 is weighted by the labels' classes. F1 (paper) has its two arguments swapped, as the paper's has: "
    "a constant answer looks good in it."
)
MTFN_NOTE = "MTFN is trained with alpha_A = 0.2; the authors' 0 would leave its audio head untrained."
MISSING_NOTE = (
    "The paper's numbers are given as far as they could be confirmed; the others are missing, not zero."
)


def multi_task() -> SubnetworkSettings:
    """The system that Tables 4 and 5 take apart, MLF-DNN."""
    settings = MODELS["mlf-dnn"]
    assert isinstance(settings, LateFusionSettings)
    return settings


def table2(trainings: Trainings, seeds: Sequence[int], systems: Sequence[str] = TABLE_2_ORDER) -> Document:
    """Systems on the multimodal label, each multi-task one with its difference to its twin."""
    names = [name for name in TABLE_2_ORDER if name in systems]
    results = _by_name(trainings, {name: Job(name, MODELS[name], 0) for name in names}, seeds)
    spreads = {name: spread_of(found) for name, found in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        twin = TWINS.get(name, "")
        rows.append((TITLES[name], "ours", *_cells(spreads[name])))
        if twin in spreads:
            rows.append((f"Δ to {TITLES[twin]}", "ours", *_differences(spreads[name], spreads[twin])))
        for whose, numbers in (("paper", published.TABLE_2), ("repository", published.REPOSITORY)):
            if name in numbers:
                rows.append(("", whose, *_published(numbers[name])))
            if {name, twin} <= numbers.keys():
                rows.append((f"Δ to {TITLES[twin]}", whose, *_published_difference(numbers, name)))
    alone: list[tuple[Cell, ...]] = [
        (TITLES[name], task, *_cells(spread_of(results[name], task)))
        for name in names
        for task in MODELS[name].tasks
        if task != "M"
    ]
    tables = [("The multimodal label, M:", Grid(("system", "whose", *METRICS), tuple(rows)))]
    if alone:
        tables.append(
            (
                "The multi-task systems on T, A and V, each by its own label:",
                Grid(("system", "label", *METRICS), tuple(alone)),
            )
        )
    notes = [
        _seeds_note(seeds),
        F1_NOTE,
        *([MTFN_NOTE] if "mtfn" in names else []),
        "repository: what the authors' github.com/thuiar/MMSA reports in results/result-stat.md of its own runs.",
        MISSING_NOTE,
        published.CORR_NOTE,
        *(_comparison(results, name, seeds) for name in names if TWINS.get(name) in names),
    ]
    return Document(
        "table2",
        "Table 2: the systems on the multimodal label",
        trainings.about,
        tuple(tables),
        _records("system", results, seeds, {name: published.TABLE_2.get(name, {}) for name in names}),
        tuple(notes),
        pictures.measures(
            {TITLES[name]: spread for name, spread in spreads.items()},
            ["multi-task" if name in TWINS else "single-task" for name in names],
            trainings.about,
        ),
    )


def table4(trainings: Trainings, seeds: Sequence[int]) -> Document:
    """One modality alone, learning and judged by its own label or by the multimodal one."""
    cases: dict[tuple[str, Task], Job] = {}
    for modality, task in TASK_OF_MODALITY.items():
        settings = UnimodalSettings.alone(multi_task(), modality)  # type: ignore[arg-type]
        for target in (task, "M"):
            cases[modality, target] = Job(f"{modality}-by-{target}", settings, 0, target)  # type: ignore[arg-type]
    results = _by_name(trainings, cases, seeds)
    spreads = {case: spread_of(found) for case, found in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for (modality, target), found in spreads.items():
        rows.append((modality, target, "ours", *_cells(found)))
        if (modality, target) in published.TABLE_4:
            rows.append(("", "", "paper", *_published(published.TABLE_4[modality, target])))
    named = {f"{modality} by {target}": found for (modality, target), found in results.items()}
    papers = {f"{modality} by {target}": numbers for (modality, target), numbers in published.TABLE_4.items()}
    return Document(
        "table4",
        "Table 4: one modality alone",
        trainings.about,
        (("", Grid(("modality", "label", "whose", *METRICS), tuple(rows))),),
        _records("modality by label", named, seeds, papers, {case: case[-1] for case in named}),
        (
            _seeds_note(seeds),
            "Each model is MLF-DNN's sub-network and head of that modality; it learns one label and is judged by it.",
            F1_NOTE,
            MISSING_NOTE,
        ),
        pictures.measures(
            {f"{modality} by {target}": spread for (modality, target), spread in spreads.items()},
            ["multimodal label" if target == "M" else "own label" for _, target in spreads],
            trainings.about,
        ),
    )


def table5(trainings: Trainings, seeds: Sequence[int]) -> Document:
    """MLF-DNN with some of its tasks, on the multimodal label."""
    cases = {
        tasks: Job(
            "mlf-dnn" if len(tasks) == 4 else f"mlf-dnn-{''.join(tasks)}", with_tasks(multi_task(), tasks), 0
        )
        for tasks in SUBSETS
    }
    results = _by_name(trainings, cases, seeds)
    spreads = {tasks: spread_of(found) for tasks, found in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for tasks, found in spreads.items():
        rows.append((", ".join(tasks), "ours", *_cells(found)))
        if tasks in published.TABLE_5:
            rows.append(("", "paper", *_published(published.TABLE_5[tasks])))
    named = {", ".join(tasks): found for tasks, found in results.items()}
    return Document(
        "table5",
        "Table 5: MLF-DNN with some of its tasks",
        trainings.about,
        (("The multimodal label, M:", Grid(("tasks", "whose", *METRICS), tuple(rows))),),
        _records(
            "tasks", named, seeds, {", ".join(tasks): numbers for tasks, numbers in published.TABLE_5.items()}
        ),
        (_seeds_note(seeds), F1_NOTE, MISSING_NOTE, published.CORR_NOTE),
        pictures.measures(
            {", ".join(tasks): spread for tasks, spread in spreads.items()},
            [f"{len(tasks)} task{'s' * (len(tasks) > 1)}" for tasks in spreads],
            trainings.about,
        ),
    )


def with_tasks(settings: SubnetworkSettings, tasks: Sequence[Task]) -> SubnetworkSettings:
    """A multi-task system with some of its tasks; all its other numbers stay."""
    values = settings.model_dump()
    for name in ("task_weights", "head_widths"):
        values[name] = {task: value for task, value in values[name].items() if task in tasks}
    return type(settings).model_validate(values)


def _by_name(trainings: Trainings, cases: Mapping[Any, Job], seeds: Sequence[int]) -> dict[Any, list[Result]]:
    """Run every case with every seed; results by case, in the seeds' order."""
    jobs = [replace(job, seed=seed) for job in cases.values() for seed in seeds]
    results = iter(trainings.run(jobs))
    return {case: [next(results) for _ in seeds] for case in cases}


def _cells(spreads: Spread) -> tuple[Cell, ...]:
    return tuple(spread(*spreads[metric]) for metric in METRICS)


def _published(numbers: Mapping[str, float]) -> tuple[Cell, ...]:
    return tuple(f"{numbers[metric]:.2f}" if metric in numbers else None for metric in METRICS)


def _differences(ours: Spread, twin: Spread) -> tuple[Cell, ...]:
    return tuple(_arrow(100 * (ours[metric][0] - twin[metric][0])) for metric in METRICS)


def _published_difference(numbers: Mapping[str, Mapping[str, float]], name: str) -> tuple[Cell, ...]:
    ours, twin = numbers[name], numbers[TWINS[name]]
    return tuple(
        _arrow(ours[metric] - twin[metric]) if metric in ours.keys() & twin.keys() else None
        for metric in METRICS
    )


def _arrow(difference: float) -> str:
    if difference != difference:
        return "–"
    return f"{'↑' if difference >= 0 else '↓'}{abs(difference):.2f}"


def _comparison(results: Mapping[str, Sequence[Result]], name: str, seeds: Sequence[int]) -> str:
    """How often a multi-task system is better than its twin, seed by seed."""
    told = []
    for metric in ("MAE", "Corr"):
        ours, twin = ([one["test"]["M"][metric] for one in results[system]] for system in (name, TWINS[name]))
        sign = -1 if metric in BETTER_LOW else 1
        gain = 100 * sign * (sum(ours) - sum(twin)) / len(seeds)
        wins = sum(sign * (a - b) > 0 for a, b in zip(ours, twin, strict=True))
        better = f"{'better' if gain > 0 else 'worse'} by {abs(gain):.2f}"
        won = f"{better} (better with {wins} of {count(len(seeds), 'seed')})"
        told.append(f"{metric} {'undefined' if math.isnan(gain) else won}")
    return f"{TITLES[name]} against {TITLES[TWINS[name]]} on M: {', '.join(told)}."


def _seeds_note(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds))
    return (
        f"Mean ± standard deviation over the seeds {shown}, in hundredths."
        if len(seeds) > 1
        else f"Seed {shown} alone, in hundredths."
    )


def _records(
    what: str,
    results: Mapping[str, Sequence[Result]],
    seeds: Sequence[int],
    papers: Mapping[str, Mapping[str, float]],
    target: Mapping[str, str] | None = None,
) -> Grid:
    """Every number of a table, in hundredths: one line a case, label and measure.

    A case's target is the label that stands in M's place in its results.
    """
    rows: list[tuple[Cell, ...]] = []
    for case, found in results.items():
        for task in found[0]["test"]:
            for metric, (mean, deviation) in spread_of(found, task).items():
                values = [round(100 * one["test"][task][metric], 4) for one in found]
                paper = papers.get(case, {}).get(metric) if task == "M" else None
                label = target[case] if target else task
                rows.append(
                    (case, label, metric, *values, round(100 * mean, 4), round(100 * deviation, 4), paper)
                )
    header = (what, "label", "measure", *(f"seed {seed}" for seed in seeds), "mean", "std", "paper")
    return Grid(header, tuple(rows))
