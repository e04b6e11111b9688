"""One command's worth of training: a feature folder in, a RUN folder of models and results out."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.atomic import write_whole
from pipeline.errors import InputError
from pipeline.manifest import SPLITS
from pipeline.trainer.checkpoint import checkpoint_bytes
from pipeline.trainer.data import SentimentData, Store, load
from pipeline.trainer.metrics import METRICS, TaskScores, constant_answers, score, summarise
from pipeline.trainer.settings import TASKS, SystemSettings
from pipeline.trainer.systems import MODELS
from pipeline.trainer.training import Trained, evaluate, train

LABEL_COLUMNS = dict(zip(TASKS, ("label", "label_T", "label_A", "label_V"), strict=True))
LEAST = {"train": 2, "valid": 1, "test": 1}  # clips with a label M, below which a split is of no use


@dataclass(frozen=True)
class Run:
    """What a training gave: the models by seed, and the document that `results.json` holds."""

    models: dict[int, Trained]
    results: dict[str, Any]


def run_training(
    features: Store,
    model: str,
    seeds: Sequence[int],
    out: Path,
    settings: SystemSettings | None = None,
    replace: bool = False,
    progress: Callable[[int, Trained, TaskScores], None] = lambda seed, trained, scores: None,
) -> Run:
    """Train a system once a seed on the manifest's train split and judge it on its test split.

    Early stopping sees the valid split alone; the test split is read once a seed, after training.
    `out` then holds ``seed-<n>.pt``, ``recipe.json``, ``results.json`` and ``results.csv``, each written
    whole or not at all.

    Parameters
    ----------
    features
        The feature folder, opened.
    model
        A key of `systems.MODELS`.
    out
        The RUN folder; made where it is missing.
    settings
        Numbers to use instead of the named system's own.
    replace
        Remove what another run has left in `out`, instead of refusing it.
    progress
        Called after each seed with its model and test scores.

    Raises
    ------
    InputError
        The model is unknown, features are missing, splits or labels do not suffice, or `out` holds models of
        another run: every such mistake.
    """
    if model not in MODELS:
        raise InputError(f"model {model!r}: there are {', '.join(MODELS)}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds {list(seeds)}: give one or more, each once")
    settings = settings or MODELS[model]
    data = load(features, sequences=settings.needs_rows)
    check_data(data, settings)
    recipe = _recipe(model, settings, seeds, features)
    _make_room(out, recipe, seeds, replace)
    write_whole(out / "recipe.json", _json(recipe))
    train_rows, valid_rows, test_rows = (data.split(name) for name in SPLITS)
    models: dict[int, Trained] = {}
    by_seed: dict[int, TaskScores] = {}
    fingerprints = dict(features.recipe["fingerprints"])
    for seed in seeds:
        models[seed] = train(data, settings, seed, train_rows, valid_rows)
        by_seed[seed] = evaluate(models[seed], data, test_rows)
        write_whole(out / f"seed-{seed}.pt", checkpoint_bytes(models[seed], model, fingerprints))
        progress(seed, models[seed], by_seed[seed])
    results = _results(model, data, models, by_seed, features)
    write_whole(out / "results.csv", _csv(results["metrics"], seeds))
    write_whole(out / "results.json", _json(results))
    return Run(models, results)


def check_data(data: SentimentData, settings: SystemSettings) -> None:
    """Refuse data that cannot train and judge a system.

    Raises
    ------
    InputError
        Splits or labels do not suffice: all that is lacking.
    """
    if not any(data.splits):
        raise InputError(
            "the manifest assigns no clip to a split; F being the feature folder, "
            "`triptych manifest F/manifest.csv --split 6:2:2 -o F/manifest.csv` assigns them"
        )
    known = {name: (~np.isnan(data.labels[data.split(name)])).sum(axis=0) for name in SPLITS}
    mistakes = [
        f"{known[name][0]} clips with features and a label in split {name}, at least {least} needed; "
        "`triptych manifest SOURCE --split 6:2:2` assigns splits anew"
        for name, least in LEAST.items()
        if known[name][0] < least
    ]
    mistakes += [
        f"no clip in split train has a {LABEL_COLUMNS[task]} (task {task}); "
        f"fill in {LABEL_COLUMNS[task]} in the manifest, or train a single-task system such as lf-dnn, "
        "which needs label alone"
        for task in settings.tasks
        if task != "M" and not known["train"][TASKS.index(task)]
    ]
    if mistakes:
        raise InputError(mistakes)


def _make_room(out: Path, recipe: dict[str, Any], seeds: Sequence[int], replace: bool) -> None:
    """Let the folder hold no model but this run's: one of another run would pass for it.

    The same run again, after it was killed, say, finds its own models and writes them anew.
    """
    out.mkdir(parents=True, exist_ok=True)
    models = sorted(out.glob("seed-*.pt"))
    if models and not replace:
        before, now = _kept_recipe(out) or {}, json.loads(_json(recipe))
        other = [name for name in ("model", "settings", "features") if before.get(name) != now[name]]
        foreign = [path.name for path in models if path.name not in {f"seed-{seed}.pt" for seed in seeds}]
        if other or foreign:
            why = f"of another {' and '.join(other)}" if other else f"of other seeds ({', '.join(foreign)})"
            raise InputError(f"{out}: holds models {why}; name another folder after -o, or give --replace")
    for path in [*(models if replace else ()), *(out / f"results.{ending}" for ending in ("json", "csv"))]:
        path.unlink(missing_ok=True)


def read_recipe(out: Path) -> dict[str, Any]:
    """Read a RUN folder's ``recipe.json``: model, settings, seeds, and the features' own recipe.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    kept = _kept_recipe(out)
    if kept is None:
        raise InputError(f"{out}/recipe.json: missing or damaged; `triptych train` writes it: train again")
    return kept


def _kept_recipe(out: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads((out / "recipe.json").read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and {"model", "settings", "features"} <= kept.keys() else None


def _results(
    model: str,
    data: SentimentData,
    models: dict[int, Trained],
    by_seed: dict[int, TaskScores],
    features: Store,
) -> dict[str, Any]:
    rows = {name: data.split(name) for name in SPLITS}
    tasks = next(iter(models.values())).settings.tasks
    baseline = {}
    for task in tasks:
        column = TASKS.index(task)
        majority, median = constant_answers(data.labels[rows["train"], column])
        labels = data.labels[rows["test"], column]
        baseline[task] = {
            "Acc-2": score(np.full(len(labels), majority), labels)["Acc-2"],
            "MAE": score(np.full(len(labels), median), labels)["MAE"],
        }
    return {
        "model": model,
        "vision_backend": features.recipe["recipe"]["vision"]["backend"],
        "clips": {name: len(found) for name, found in rows.items()},
        "test_labels": {
            task: int((~np.isnan(data.labels[rows["test"], TASKS.index(task)])).sum()) for task in tasks
        },
        "absent": data.absent,
        "left_out": list(data.left_out),
        "epochs": {
            str(seed): {"best": trained.best_epoch, "run": len(trained.history)}
            for seed, trained in models.items()
        },
        "metrics": summarise(by_seed),
        "baseline": baseline,
    }


def _recipe(model: str, settings: SystemSettings, seeds: Sequence[int], features: Store) -> dict[str, Any]:
    packages = ("numpy", "scikit-learn", "torch")
    return {
        "model": model,
        "settings": settings.model_dump(mode="json"),
        "seeds": list(seeds),
        "features": dict(features.recipe),
        "software": {
            "triptych": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }


def _csv(metrics: dict[str, dict[str, dict[str, Any]]], seeds: Sequence[int]) -> bytes:
    """One line per task and measure: its value by seed, mean and deviation; an undefined one is empty."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["task", "metric", *(f"seed {seed}" for seed in seeds), "mean", "std"])
    for task, by_metric in metrics.items():
        for metric in METRICS:
            spread = by_metric[metric]
            values = [*spread["seeds"].values(), spread["mean"], spread["std"]]
            writer.writerow([task, metric, *("" if math.isnan(value) else repr(value) for value in values)])
    return lines.getvalue().encode()


def as_json_text(document: Any) -> str:
    """JSON, with null for an undefined number (JSON has no NaN)."""
    return json.dumps(_without_nan(document), indent=2, ensure_ascii=False, allow_nan=False)


def _json(document: Any) -> bytes:
    return (as_json_text(document) + "\n").encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
