"""One command's worth of training: a feature folder in, a RUN folder of models and results out."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from triptych.pipeline import __version__
from triptych.pipeline.atomic import remove_stale_temporaries, write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.trainer.data.checks import check_data
from triptych.pipeline.trainer.data.clips import SentimentData, Store, load
from triptych.pipeline.trainer.metrics import METRICS, constant_answers, score, summarise
from triptych.pipeline.trainer.runs.checkpoint import checkpoint_bytes, load_checkpoint
from triptych.pipeline.trainer.runs.identity import code_digest, identity
from triptych.pipeline.trainer.runs.jobs import Job, Result, Tell, check_converged
from triptych.pipeline.trainer.runs.parallel import in_processes
from triptych.pipeline.trainer.settings import TASKS, SystemSettings
from triptych.pipeline.trainer.systems import MODELS
from triptych.pipeline.trainer.training import Trained, evaluate, train

# What of a recipe decides its models, and what another one is called.
DECISIVE = {
    "model": "another model",
    "settings": "other settings",
    "features": "other features",
    "clips": "other clips, labels or splits",
}


def run_training(
    features: Store,
    model: str,
    seeds: Sequence[int],
    out: Path,
    settings: SystemSettings | None = None,
    replace: bool = False,
    processes: int = 1,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """Train a system once a seed on the manifest's train split and judge it on its test split.

    Early stopping sees the valid split alone; the test split is read once a seed, after training.
    `out` then holds ``seed-<n>.pt``, ``recipe.json``, ``results.json`` and ``results.csv``, each written
    whole or not at all. The same training again, after it was killed, say, takes the models that are there.

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
    processes
        How many seeds are trained at a time.
    tell
        Called with each seed's training and result as it ends, or is found.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    InputError
        The model is unknown, features are missing, splits or labels do not suffice, or `out` holds models of
        another run: every such mistake. Or training diverged.
    WorkersDiedError
        A process was killed; the models that were ready are kept.
    """
    if model not in MODELS:
        raise InputError(f"model {model!r}: there are {', '.join(MODELS)}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds {list(seeds)}: give one or more, each once")
    settings = settings or MODELS[model]
    data = load(features, sequences=settings.needs_rows)
    check_data(data, settings)
    recipe = _recipe(model, settings, seeds, features, data)
    there = _make_room(out, recipe, seeds, replace)
    write_whole(out / "recipe.json", _json(recipe))
    fingerprints = dict(features.recipe["fingerprints"])
    works = [_Work(Job(model, settings, seed), out / f"seed-{seed}.pt", fingerprints) for seed in seeds]
    found: dict[int, Result] = {}
    for work in works:
        if work.path.name in there:
            with suppress(InputError):  # a damaged model is made anew
                found[work.job.seed] = _result(work, load_checkpoint(work.path), data)
                tell(work.job, found[work.job.seed], True)
    waiting = [work for work in works if work.job.seed not in found]
    for place, result in in_processes(_train_seed, waiting, data, out, processes):
        found[waiting[place].job.seed] = result
        tell(waiting[place].job, result, False)
    results = [found[seed] for seed in seeds]
    check_converged(results)
    document = _results(model, data, settings, results, features)
    write_whole(out / "results.csv", _csv(document["metrics"], seeds))
    write_whole(out / "results.json", _json(document))
    return document


@dataclass(frozen=True)
class _Work:
    """A seed's training, where its model is kept, and the fingerprints that are kept with it."""

    job: Job
    path: Path
    fingerprints: Mapping[str, str]


def _train_seed(data: SentimentData, work: _Work) -> Result:
    """Train one model, judge it and write it."""
    began = time.perf_counter()
    job = work.job
    try:
        trained = train(data, job.settings, job.seed, data.split("train"), data.split("valid"))
    except FloatingPointError as error:
        result: Result = {"name": job.name, "seed": job.seed, "diverged": str(error)}
    else:
        result = _result(work, trained, data)
        write_whole(work.path, checkpoint_bytes(trained, job.name, work.fingerprints))
    return {**result, "seconds": time.perf_counter() - began}


def _result(work: _Work, trained: Trained, data: SentimentData) -> Result:
    scores = evaluate(trained, data, data.split("test"))
    return {"name": work.job.name, "seed": work.job.seed, **trained.summary(), "test": scores}


def _make_room(out: Path, recipe: dict[str, Any], seeds: Sequence[int], replace: bool) -> set[str]:
    """Let the folder hold no model but this run's: one of another run would pass for it.

    Returns
    -------
    set of str
        The models that this run made before, by file name.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(out)
    models = sorted(out.glob("seed-*.pt"))
    if models and not replace:
        before, now = _kept_recipe(out) or {}, json.loads(_json(recipe))
        other = [what for name, what in DECISIVE.items() if before.get(name) != now[name]]
        foreign = [path.name for path in models if path.name not in {f"seed-{seed}.pt" for seed in seeds}]
        if other or foreign:
            why = f"of {' and '.join(other)}" if other else f"of other seeds ({', '.join(foreign)})"
            raise InputError(f"{out}: holds models {why}; name another folder after -o, or give --replace")
        replace = before.get("software") != now["software"]  # models of other software are made anew
    for path in [*(models if replace else ()), *(out / f"results.{ending}" for ending in ("json", "csv"))]:
        path.unlink(missing_ok=True)
    return {path.name for path in models if not replace}


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
    model: str, data: SentimentData, settings: SystemSettings, results: Sequence[Result], features: Store
) -> dict[str, Any]:
    rows = {name: data.split(name) for name in SPLITS}
    tasks = settings.tasks
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
        "epochs": {str(result["seed"]): result["epochs"] for result in results},
        "metrics": summarise({result["seed"]: result["test"] for result in results}),
        "baseline": baseline,
    }


def _recipe(
    model: str, settings: SystemSettings, seeds: Sequence[int], features: Store, data: SentimentData
) -> dict[str, Any]:
    packages = ("numpy", "scikit-learn", "torch")
    return {
        "model": model,
        "settings": settings.model_dump(mode="json"),
        "seeds": list(seeds),
        "features": dict(features.recipe),
        "clips": identity(data),
        "software": {
            "triptych": __version__,
            "trainer": code_digest(),
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
