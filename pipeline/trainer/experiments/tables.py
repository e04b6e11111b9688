"""Tables 2, 4 and 5: systems trained with several seeds, on the test split, beside the paper's numbers.

Every number is in hundredths, as in the paper. Each training reads the test split once, at its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triptych.pipeline.manifest.label_range import DEFAULT
from triptych.pipeline.terminal.grid import Cell, Grid
from triptych.pipeline.trainer.experiments import figures, published
from triptych.pipeline.trainer.experiments.document import Document, count, spread
from triptych.pipeline.trainer.experiments.published import Numbers
from triptych.pipeline.trainer.experiments.trainings import Spread, Trainings, spread_of
from triptych.pipeline.trainer.metrics import METRICS, metrics_of
from triptych.pipeline.trainer.models.subnetworks import SubnetworkSettings
from triptych.pipeline.trainer.models.unimodal import UnimodalSettings
from triptych.pipeline.trainer.runs.jobs import Job, Result
from triptych.pipeline.trainer.settings import TASK_OF_MODALITY, SystemSettings, Task
from triptych.pipeline.trainer.systems import SYSTEMS, title_of, twin_of

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
    "a constant prediction scores well in it."
)
MTFN_NOTE = "MTFN is trained with alpha_A = 0.2; the authors' 0 would leave its audio head untrained."
MISSING_NOTE = "The paper gives Acc-2, F1, MAE and Corr in this table, and no deviations."
DEFAULTS_NOTE = (
    "The default settings are the reference's, which were chosen on the test split of CH-SIMS. `triptych tune` chooses "
    "settings on the valid split; `experiment table2 --tuned FOLDER` trains with them."
)


def multi_task() -> SubnetworkSettings:
    """Return the settings of MLF-DNN, whose parts Tables 4 and 5 compare."""
    settings = SYSTEMS["mlf-dnn"]
    assert isinstance(settings, SubnetworkSettings)
    return settings


def table2(
    trainings: Trainings,
    seeds: Sequence[int],
    systems: Sequence[str] | None = None,
    chosen: Mapping[str, SystemSettings] | None = None,
) -> Document:
    """Compare systems on the multimodal label, each multi-task one with the single-task one that it extends.

    Parameters
    ----------
    systems
        Names of systems, by default all; rows are in the order of the registry, which is the paper's.
    chosen
        Settings of systems, by name, that replace the defaults.
    """
    chosen = chosen or {}
    names = [name for name in SYSTEMS if systems is None or name in systems]
    results = _by_name(
        trainings, {name: Job(name, chosen.get(name, SYSTEMS[name]), 0) for name in names}, seeds
    )
    spreads = {name: spread_of(by_seed) for name, by_seed in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        twin = twin_of(name)
        rows.append((title_of(name), "ours", *_cells(spreads[name])))
        if twin and twin in spreads:
            rows.append((f"Δ to {title_of(twin)}", "ours", *_differences(spreads[name], spreads[twin])))
        for source, numbers in _of_sims(trainings, paper=published.TABLE_2, repository=published.REPOSITORY):
            if name in numbers:
                deviations = published.TABLE_2_DEVIATIONS[name] if source == "paper" else {}
                rows.append(("", source, *_published(numbers[name], deviations)))
            if twin and {name, twin} <= numbers.keys():
                difference = _published_difference(numbers[name], numbers[twin])
                rows.append((f"Δ to {title_of(twin)}", source, *difference))
    alone: list[tuple[Cell, ...]] = [
        (title_of(name), task, *_cells(spread_of(results[name], task)))
        for name in names
        for task in SYSTEMS[name].tasks
        if task != "M"
    ]
    metrics = metrics_of(trainings.data.label_range)
    tables = [("The multimodal label, M:", Grid(("system", "source", *metrics), tuple(rows)))]
    if alone:
        tables.append(
            (
                "The multi-task systems on T, A and V, each on its own label:",
                Grid(("system", "label", *metrics), tuple(alone)),
            )
        )
    notes = [
        _seeds_note(seeds),
        F1_NOTE,
        *([MTFN_NOTE] if "mtfn" in names else []),
        "repository: numbers of the authors' github.com/thuiar/MMSA, results/result-stat.md, of its own runs.",
        DEFAULTS_NOTE if not chosen else f"Settings that were given: {', '.join(map(title_of, chosen))}.",
        published.CORR_NOTE,
        *(_comparison(results, name, twin, seeds) for name in names if (twin := twin_of(name)) in results),
    ]
    return Document(
        "table2",
        "Table 2: the systems on the multimodal label",
        trainings.about,
        tuple(tables),
        _records("system", results, seeds, {name: published.TABLE_2.get(name, {}) for name in names}),
        tuple(notes),
        figures.measures(
            {title_of(name): spread for name, spread in spreads.items()},
            ["multi-task" if len(SYSTEMS[name].tasks) > 1 else "single-task" for name in names],
            trainings.about,
        ),
    )


def table4(trainings: Trainings, seeds: Sequence[int]) -> Document:
    """Train one modality alone, on its own label or on the multimodal one, and evaluate it on the same label."""
    cases: dict[tuple[str, Task], Job] = {}
    for modality, task in TASK_OF_MODALITY.items():
        settings = UnimodalSettings.alone(multi_task(), modality)  # type: ignore[arg-type]
        for target in (task, "M"):
            cases[modality, target] = Job(f"{modality}-by-{target}", settings, 0, target)  # type: ignore[arg-type]
    results = _by_name(trainings, cases, seeds)
    spreads = {case: spread_of(by_seed) for case, by_seed in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for (modality, target), spreads_of_case in spreads.items():
        rows.append((modality, target, "ours", *_cells(spreads_of_case)))
        if (modality, target) in published.TABLE_4 and _of_sims(trainings, paper=published.TABLE_4):
            rows.append(("", "", "paper", *_published(published.TABLE_4[modality, target])))
    named = {f"{modality} by {target}": by_seed for (modality, target), by_seed in results.items()}
    papers = {f"{modality} by {target}": numbers for (modality, target), numbers in published.TABLE_4.items()}
    return Document(
        "table4",
        "Table 4: one modality alone",
        trainings.about,
        (("", Grid(("modality", "label", "source", *metrics_of(trainings.data.label_range)), tuple(rows))),),
        _records("modality by label", named, seeds, papers, {case: case[-1] for case in named}),
        (
            _seeds_note(seeds),
            "Each model is MLF-DNN's sub-network and head of that modality, trained and evaluated on one label.",
            F1_NOTE,
            MISSING_NOTE,
            DEFAULTS_NOTE,
        ),
        figures.measures(
            {f"{modality} by {target}": spread for (modality, target), spread in spreads.items()},
            ["multimodal label" if target == "M" else "own label" for _, target in spreads],
            trainings.about,
        ),
    )


def table5(trainings: Trainings, seeds: Sequence[int]) -> Document:
    """Train MLF-DNN with some of its tasks, and evaluate it on the multimodal label."""
    cases = {
        tasks: Job(
            "mlf-dnn" if len(tasks) == 4 else f"mlf-dnn-{''.join(tasks)}", with_tasks(multi_task(), tasks), 0
        )
        for tasks in SUBSETS
    }
    results = _by_name(trainings, cases, seeds)
    spreads = {tasks: spread_of(by_seed) for tasks, by_seed in results.items()}
    rows: list[tuple[Cell, ...]] = []
    for tasks, spreads_of_case in spreads.items():
        rows.append((", ".join(tasks), "ours", *_cells(spreads_of_case)))
        if tasks in published.TABLE_5 and _of_sims(trainings, paper=published.TABLE_5):
            rows.append(("", "paper", *_published(published.TABLE_5[tasks])))
    named = {", ".join(tasks): by_seed for tasks, by_seed in results.items()}
    metrics = metrics_of(trainings.data.label_range)
    return Document(
        "table5",
        "Table 5: MLF-DNN with some of its tasks",
        trainings.about,
        (
            (
                "The multimodal label, M:",
                Grid(("tasks", "source", *metrics), tuple(rows)),
            ),
        ),
        _records(
            "tasks", named, seeds, {", ".join(tasks): numbers for tasks, numbers in published.TABLE_5.items()}
        ),
        (_seeds_note(seeds), F1_NOTE, MISSING_NOTE, DEFAULTS_NOTE, published.CORR_NOTE),
        figures.measures(
            {", ".join(tasks): spread for tasks, spread in spreads.items()},
            [f"{len(tasks)} task{'s' * (len(tasks) > 1)}" for tasks in spreads],
            trainings.about,
        ),
    )


def with_tasks(settings: SubnetworkSettings, tasks: Sequence[Task]) -> SubnetworkSettings:
    """Reduce a multi-task system to some of its tasks; all other settings stay."""
    values = settings.model_dump()
    for name in ("task_weights", "head_widths"):
        values[name] = {task: value for task, value in values[name].items() if task in tasks}
    return type(settings).model_validate(values)


def _by_name(trainings: Trainings, cases: Mapping[Any, Job], seeds: Sequence[int]) -> dict[Any, list[Result]]:
    """Run every case with every seed; return results by case, in the seeds' order."""
    jobs = [replace(job, seed=seed) for job in cases.values() for seed in seeds]
    results = iter(trainings.run(jobs))
    return {case: [next(results) for _ in seeds] for case in cases}


def _of_sims(
    trainings: Trainings, **numbers: Mapping[Any, Numbers]
) -> list[tuple[str, Mapping[Any, Numbers]]]:
    """Return published numbers by source; none for labels in another range than that of CH-SIMS."""
    return list(numbers.items()) if trainings.data.label_range == DEFAULT else []


def _cells(spreads: Spread) -> tuple[Cell, ...]:
    return tuple(spread(*both) for both in spreads.values())


def _published(
    numbers: Mapping[str, float], deviations: Mapping[str, float] | None = None
) -> tuple[Cell, ...]:
    deviations = deviations or {}
    return tuple(
        f"{numbers[metric]:.2f}" + (f" ± {deviations[metric]:.1f}" if metric in deviations else "")
        if metric in numbers
        else None
        for metric in METRICS
    )


def _differences(ours: Spread, twin: Spread) -> tuple[Cell, ...]:
    return tuple(_arrow(100 * (ours[metric][0] - twin[metric][0])) for metric in ours)


def _published_difference(numbers: Mapping[str, float], twin: Mapping[str, float]) -> tuple[Cell, ...]:
    return tuple(
        _arrow(numbers[metric] - twin[metric]) if metric in numbers.keys() & twin.keys() else None
        for metric in METRICS
    )


def _arrow(difference: float) -> str:
    if difference != difference:
        return "–"
    return f"{'↑' if difference >= 0 else '↓'}{abs(difference):.2f}"


def _comparison(
    results: Mapping[str, Sequence[Result]], name: str, twin: str | None, seeds: Sequence[int]
) -> str:
    """Say how often a multi-task system is better than the single-task one that it extends, seed by seed."""
    assert twin is not None
    parts = []
    for metric in ("MAE", "Corr"):
        ours, others = ([one["test"]["M"][metric] for one in results[system]] for system in (name, twin))
        sign = -1 if metric in BETTER_LOW else 1
        gain = 100 * sign * (sum(ours) - sum(others)) / len(seeds)
        wins = sum(sign * (a - b) > 0 for a, b in zip(ours, others, strict=True))
        better = f"{'better' if gain > 0 else 'worse'} by {abs(gain):.2f}"
        won = f"{better} (better with {wins} of {count(len(seeds), 'seed')})"
        parts.append(f"{metric} {'undefined' if math.isnan(gain) else won}")
    return f"{title_of(name)} against {title_of(twin)} on M: {', '.join(parts)}."


def _seeds_note(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds))
    return (
        f"Mean ± standard deviation over the seeds {shown}, in hundredths."
        if len(seeds) > 1
        else f"Seed {shown} alone, in hundredths."
    )


def _records(
    case_name: str,
    results: Mapping[str, Sequence[Result]],
    seeds: Sequence[int],
    papers: Mapping[str, Mapping[str, float]],
    target: Mapping[str, str] | None = None,
) -> Grid:
    """List every number of a table, in hundredths: one line for each case, label and metric.

    A case's target is the label that replaces M in its results.
    """
    rows: list[tuple[Cell, ...]] = []
    for case, by_seed in results.items():
        for task in by_seed[0]["test"]:
            for metric, (mean, std) in spread_of(by_seed, task).items():
                values = [round(100 * one["test"][task][metric], 4) for one in by_seed]
                paper = papers.get(case, {}).get(metric) if task == "M" else None
                label = target[case] if target else task
                rows.append((case, label, metric, *values, round(100 * mean, 4), round(100 * std, 4), paper))
    header = (case_name, "label", "measure", *(f"seed {seed}" for seed in seeds), "mean", "std", "paper")
    return Grid(header, tuple(rows))
