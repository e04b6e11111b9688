"""The training of one command: reads a feature folder, writes a RUN folder of checkpoints and results."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
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
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.terminal.grid import Cell, Grid
from triptych.pipeline.trainer.data.checks import check_data
from triptych.pipeline.trainer.data.clips import SentimentData, load
from triptych.pipeline.trainer.data.source import Store
from triptych.pipeline.trainer.metrics import constant_answers, score, summarise
from triptych.pipeline.trainer.runs.checkpoint import Origin, checkpoint_bytes, load_checkpoint
from triptych.pipeline.trainer.runs.folder import RUN, checkpoint_name, find_run, remove_old_run
from triptych.pipeline.trainer.runs.identity import code_digest, identity
from triptych.pipeline.trainer.runs.jobs import (
    Job,
    Report,
    Result,
    Work,
    check_converged,
    perform,
    result_of,
)
from triptych.pipeline.trainer.runs.results_page import NAME, results_page
from triptych.pipeline.trainer.runs.tensorboard import check_tensorboard, epoch_log
from triptych.pipeline.trainer.settings import TASKS, SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS, source_digest
from triptych.pipeline.trainer.training import Trained

# The parts of run.json that decide its models, and how a message names another value of each.
DECISIVE = {
    "model": "another system",
    "settings": "other settings",
    "features": "other features",
    "streams": "other stages as its streams, or another alignment",
    "clips": "other clips, labels or splits",
}


def run_training(
    features: Store,
    system: str,
    seeds: Sequence[int],
    out: Path,
    settings: SystemSettings | None = None,
    replace: bool = False,
    processes: int = 1,
    report: Report = lambda *_: None,
    streams: Streams = Streams(),  # noqa: B008 - immutable
    device: str = "cpu",
    log: Path | None = None,
) -> dict[str, Any]:
    """Train a system once for each seed on the manifest's train split and evaluate it on its test split.

    Early stopping reads the valid split alone; the test split is read once for each seed, after training.
    `out` then has ``seed-<n>.pt``, ``run.json``, ``results.json``, ``results.csv`` and ``results.html``, each written
    atomically. The same training again, for example after it was killed, reuses the checkpoints in `out`.

    Parameters
    ----------
    features
        The feature folder, opened.
    system
        A key of `systems.SYSTEMS`.
    out
        The RUN folder; created where missing.
    settings
        Settings to use instead of the system's defaults.
    replace
        Remove the checkpoints of another run from `out`, instead of refusing it.
    processes
        Number of seeds that are trained at a time.
    report
        Called with each seed's job and result when it is trained or found.
    streams
        The stage that each modality is read from, and whether rows are pooled to words.
    device
        Where models are trained.
    log
        A folder for TensorBoard's event files.

    Returns
    -------
    dict
        The content of `results.json`.

    Raises
    ------
    InputError
        The system is unknown, features are missing, splits or labels do not suffice, or `out` has checkpoints
        of another run: every such problem. Or training diverged.
    WorkersDiedError
        A process was killed; finished checkpoints are saved.
    """
    if system not in SYSTEMS:
        raise InputError(f"system {system!r} is unknown; systems are {', '.join(SYSTEMS)}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds {list(seeds)}: give one or more, each once")
    if log is not None:
        check_tensorboard()
    settings = settings or SYSTEMS[system]
    if streams.align != "none":
        settings = settings.for_aligned()
    data = load(features, sequences=settings.needs_rows, streams=streams)
    check_data(data, settings)
    record = _record(system, settings, seeds, features, data, streams, device)
    reusable = _prepare_folder(out, record, seeds, replace)
    write_whole(out / RUN, _json(record))
    origin = Origin(system, dict(features.recipe["fingerprints"]), streams)
    works: list[Work] = [
        (
            Job(system, settings, seed, details=True, log=log),
            _checkpoint_file(out, seed, origin, reusable),
        )
        for seed in seeds
    ]
    results = perform(works, data, out, processes, report, device)
    check_converged(results)
    document = _results(system, data, settings, results, features, streams)
    write_whole(out / "results.csv", _csv(document["metrics"], seeds))
    write_whole(out / NAME, results_page(document, results, data).encode())
    write_whole(out / "results.json", _json(document))
    return document


@dataclass(frozen=True)
class CheckpointFile:
    """A job's model as a checkpoint, from which its result is computed again.

    Attributes
    ----------
    reusable
        Whether a checkpoint at the path is of the same run.
    """

    path: Path
    origin: Origin
    reusable: bool

    def find(self, job: Job, data: SentimentData) -> Result | None:
        """Evaluate the checkpoint of an earlier run; a damaged one counts as missing."""
        if self.reusable:
            with suppress(InputError):
                trained = load_checkpoint(self.path)
                outcome = result_of(job, trained, data)
                with epoch_log(job.log, job.name, job.seed) as log:
                    log.training(trained.history, trained.best_epoch, outcome["test"])
                return {**outcome, "name": job.name, "seed": job.seed}
        return None

    def save(self, trained: Trained | None, result: Result) -> None:
        """Write the checkpoint; a diverged training leaves none."""
        if trained is not None:
            write_whole(self.path, checkpoint_bytes(trained, self.origin))


def _checkpoint_file(out: Path, seed: int, origin: Origin, reusable: set[str]) -> CheckpointFile:
    name = checkpoint_name(seed)
    return CheckpointFile(out / name, origin, name in reusable)


def _prepare_folder(out: Path, record: dict[str, Any], seeds: Sequence[int], replace: bool) -> set[str]:
    """Make sure that the folder has no checkpoint of another run, which could be taken for one of this run.

    Returns
    -------
    set of str
        The checkpoints that this run wrote before, by file name.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(out)
    checkpoints = sorted(out.glob("seed-*.pt"))
    if checkpoints and not replace:
        before, now = find_run(out) or {}, json.loads(_json(record))
        other = [what for name, what in DECISIVE.items() if before.get(name) != now[name]]
        names = {checkpoint_name(seed) for seed in seeds}
        foreign = [path.name for path in checkpoints if path.name not in names]
        if other or foreign:
            why = f"of {' and '.join(other)}" if other else f"of other seeds ({', '.join(foreign)})"
            raise InputError(f"{out}: has checkpoints {why}; name another folder after -o, or give --replace")
        replace = before.get("software") != now["software"]  # of other software: train again
    if replace:
        remove_old_run(out)
    for path in [*(checkpoints if replace else ()), out / "results.json", out / "results.csv", out / NAME]:
        path.unlink(missing_ok=True)
    return {path.name for path in checkpoints if not replace}


def _results(
    system: str,
    data: SentimentData,
    settings: SystemSettings,
    results: Sequence[Result],
    features: Store,
    streams: Streams,
) -> dict[str, Any]:
    rows = {name: data.split(name) for name in SPLITS}
    tasks = settings.tasks
    baseline = {}
    for task in tasks:
        column = TASKS.index(task)
        majority, median = constant_answers(data.labels[rows["train"], column])
        labels = data.labels[rows["test"], column]
        baseline[task] = {
            "Acc-2": score(np.full(len(labels), majority), labels, data.label_range)["Acc-2"],
            "MAE": score(np.full(len(labels), median), labels, data.label_range)["MAE"],
        }
    return {
        "model": system,
        "streams": streams.described,
        "vision_backend": vision_backend(features, streams),
        "label_range": list(data.label_range),
        "clips": {name: len(clips) for name, clips in rows.items()},
        "test_labels": {
            task: int((~np.isnan(data.labels[rows["test"], TASKS.index(task)])).sum()) for task in tasks
        },
        "absent": data.absent,
        "left_out": list(data.left_out),
        "epochs": {str(result["seed"]): result["epochs"] for result in results},
        "metrics": summarise({result["seed"]: result["test"] for result in results}),
        "baseline": baseline,
    }


def vision_backend(features: Store, streams: Streams) -> str | None:
    """Return the program that the vision stream was made with; None for a stage without such a setting."""
    backend = features.recipe["recipe"].get(streams.vision, {}).get("backend")
    return None if backend is None else str(backend)


def _record(
    system: str,
    settings: SystemSettings,
    seeds: Sequence[int],
    features: Store,
    data: SentimentData,
    streams: Streams,
    device: str,
) -> dict[str, Any]:
    """Make the content of run.json."""
    packages = ("numpy", "scikit-learn", "torch")
    return {
        "model": system,
        "settings": settings.model_dump(mode="json"),
        "seeds": list(seeds),
        "streams": streams.described,
        "features": dict(features.recipe),
        "label_range": list(data.label_range),
        "clips": identity(data),
        "software": {
            "triptych": __version__,
            "trainer": code_digest(),
            "system": source_digest(type(settings)),
            "device": device,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }


def _csv(metrics: dict[str, dict[str, dict[str, Any]]], seeds: Sequence[int]) -> bytes:
    """Return one line for each task and metric: its value by seed, mean and standard deviation."""
    rows: list[tuple[Cell, ...]] = [
        (
            task,
            metric,
            *by_metric[metric]["seeds"].values(),
            by_metric[metric]["mean"],
            by_metric[metric]["std"],
        )
        for task, by_metric in metrics.items()
        for metric in by_metric
    ]
    return Grid(("task", "metric", *(f"seed {seed}" for seed in seeds), "mean", "std"), tuple(rows)).csv()


def as_json_text(document: Any) -> str:
    """Return JSON, with null for an undefined number (JSON has no NaN)."""
    return json.dumps(_without_nan(document), indent=2, ensure_ascii=False, allow_nan=False)


def _json(document: Any) -> bytes:
    return (as_json_text(document) + "\n").encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
