"""Trainings by the dozen: in parallel processes, each result kept, so that a killed experiment goes on.

A job is one training of one system with one seed. Its result is one JSON file whose name holds a key of all
that decides it: settings, seed, labels, data and code. A file with the right key is taken as it is; others
are left alone, and never read.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

import pipeline.trainer
from pipeline.atomic import alive, remove_stale_temporaries, write_whole
from pipeline.deaths import WorkersDiedError
from pipeline.errors import InputError
from pipeline.orphans import end_with
from pipeline.threads import ONE_THREAD
from pipeline.trainer.data import Rows, SentimentData
from pipeline.trainer.models.subnetworks import FusedSubnetworks
from pipeline.trainer.settings import TASKS, SystemSettings, Task
from pipeline.trainer.shared import identity, open_shared, write_shared
from pipeline.trainer.training import Trained, evaluate, train

Result = dict[str, Any]
Tell = Callable[["Job", Result, bool], None]  # a job, its result, and whether that was there before

# Systems of these families take longest; begun first, so that the processes end together.
SLOW_FIRST = ("transformer", "tensor-fusion", "memory-fusion", "early-fusion")
RESULTS = "results"
# Modules of the trainer that read, keep or tell; all others of it decide a result's numbers. A system's settings
# are in its results' keys, so that changed settings of one leave the others' results as they are.
NOT_DECISIVE = (
    "checkpoint",
    "crossval",
    "predicting",
    "run",
    "shared",
    "systems",
    "telling",
    "tuning",
    "tuning_tpe",
)


@dataclass(frozen=True)
class Job:
    """One training and what is wanted of it.

    Attributes
    ----------
    name
        What the system is called.
    target
        The label that stands in M's place, to learn and to be judged by.
    wanted
        ``test``: scores on the test split, which nothing has seen before; ``valid``: those on the valid split,
        the test split being left alone; ``representations``: R_t, R_a and R_v of the test split's clips.
    """

    name: str
    settings: SystemSettings
    seed: int
    target: Task = "M"
    wanted: Literal["test", "valid", "representations"] = "test"


def run_jobs(
    jobs: Sequence[Job], data: SentimentData, folder: Path, processes: int, tell: Tell = lambda *_: None
) -> list[Result]:
    """Run the jobs whose results are not there yet; give all results, in the jobs' order.

    Parameters
    ----------
    data
        Loaded with sequences where a system reads rows.
    folder
        Where results are kept; made where it is missing.
    processes
        Of one thread each; they share the clips in memory. With one, this process trains itself.
    tell
        Called with each job as its result comes, or is found.

    Raises
    ------
    InputError
        A training diverged; those that ended before are kept.
    WorkersDiedError
        A process was killed, mostly for want of memory; likewise.
    """
    kept = folder / RESULTS
    kept.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(kept)
    about = identity(data)
    paths = [kept / f"{job.name}-{job.seed}-{_key(job, about)[:16]}.json" for job in jobs]
    results: dict[int, Result] = {}
    for place, path in enumerate(paths):
        if (found := _read(path)) is not None:
            results[place] = found
            tell(jobs[place], found, True)
    waiting = sorted(set(range(len(jobs))) - results.keys(), key=lambda place: _slowness(jobs[place]))
    for place, result in _run(waiting, jobs, paths, data, folder, processes):
        results[place] = result
        tell(jobs[place], result, False)
    return [results[place] for place in range(len(jobs))]


def _run(
    waiting: Sequence[int],
    jobs: Sequence[Job],
    paths: Sequence[Path],
    data: SentimentData,
    folder: Path,
    processes: int,
) -> Iterator[tuple[int, Result]]:
    """Run jobs by their places, giving each with its result as it ends."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    if processes == 1:
        yield from ((place, _run_job(jobs[place], data, paths[place])) for place in waiting)
    if processes == 1 or not waiting:
        return
    with _shared(data, folder) as shared, warnings.catch_warnings():
        # A process that large systems have filled is ended and begun anew, which is as it should be.
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        pool = ProcessPoolExecutor(
            max_workers=min(processes, len(waiting)),
            initializer=end_with,
            initargs=(os.getpid(),),
            env=ONE_THREAD,
        )
        try:
            running = {
                pool.submit(_run_shared, jobs[place], shared, paths[place]): place for place in waiting
            }
            for future in as_completed(running):
                try:
                    yield running[future], future.result()
                except BrokenProcessPool as error:
                    raise WorkersDiedError(
                        "a process that trained was killed, mostly for want of memory; what was finished is kept: "
                        "the same command with fewer --jobs goes on"
                    ) from error
        finally:
            # Killed rather than asked: whoever leaves here early leaves no process behind.
            pool.shutdown(wait=True, kill_workers=True)


def _run_shared(job: Job, shared: Path, path: Path) -> Result:
    return _run_job(job, open_shared(shared), path)


def _run_job(job: Job, data: SentimentData, path: Path) -> Result:
    """Train one system and write its result."""
    began = time.perf_counter()
    result = _train(job, data)
    result |= {"name": job.name, "seed": job.seed, "seconds": round(time.perf_counter() - began, 2)}
    write_whole(path, json.dumps(result).encode())
    return result


def _train(job: Job, data: SentimentData) -> Result:
    data = with_target(data, job.target)
    try:
        trained = train(data, job.settings, job.seed, data.split("train"), data.split("valid"))
    except FloatingPointError as error:
        return {"diverged": str(error)}
    return {
        "epochs": {"best": trained.best_epoch, "run": len(trained.history)},
        "valid_loss": trained.history[trained.best_epoch - 1].valid_loss,
        job.wanted: _wanted(job, trained, data),
    }


def _wanted(job: Job, trained: Trained, data: SentimentData) -> Any:
    if job.wanted == "representations":
        return represent(trained, data, data.split("test"))
    return evaluate(trained, data, data.split(job.wanted))


def represent(trained: Trained, data: SentimentData, rows: Rows) -> dict[str, list[list[float]]]:
    """What the sub-networks make of some clips: R_t, R_a and R_v, under T, A and V, a list a clip."""
    model = trained.model
    if not isinstance(model, FusedSubnetworks):
        raise TypeError(f"{type(model).__name__} has no sub-networks")
    clips = trained.normaliser.apply(data, rows, trained.settings.view)
    with torch.no_grad():
        found = model.represent(*clips.inputs(torch.arange(len(clips))))  # type: ignore[arg-type]
    return {task: values.tolist() for task, values in found.items()}


def with_target(data: SentimentData, target: Task) -> SentimentData:
    """Put another label in M's place."""
    labels = data.labels.copy()
    labels[:, 0] = labels[:, TASKS.index(target)]
    return replace(data, labels=labels)


def _key(job: Job, about: str) -> str:
    """SHA-256 of all that decides a result."""
    decisive = {
        "settings": job.settings.model_dump(mode="json"),
        "seed": job.seed,
        "target": job.target,
        "wanted": job.wanted,
        "data": about,
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@cache
def _code(folder: Path = Path(pipeline.trainer.__file__).parent) -> str:
    """SHA-256 of what computes a result: the trainer's modules that do, and the libraries' versions."""
    files = sorted(file for file in folder.glob("*.py") if file.stem not in NOT_DECISIVE)
    files += sorted(folder.glob("models/*.py"))
    digest = hashlib.sha256(" ".join(version(name) for name in ("numpy", "scikit-learn", "torch")).encode())
    for file in files:
        digest.update(file.read_bytes())
    for function in (_train, _wanted, represent, with_target):
        digest.update(inspect.getsource(function).encode())
    return digest.hexdigest()


def _read(path: Path) -> Result | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else None
    return None


def _slowness(job: Job) -> int:
    family = getattr(job.settings, "family", "")
    return SLOW_FIRST.index(family) if family in SLOW_FIRST else len(SLOW_FIRST)


@contextmanager
def _shared(data: SentimentData, folder: Path) -> Iterator[Path]:
    """A folder of the clips for this run's processes, beside the results since a system's own may be memory."""
    for left in folder.glob("clips-*"):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"clips-{os.getpid()}-") as name:
        write_shared(data, Path(name))
        yield Path(name)


def check_converged(results: Sequence[Result]) -> None:
    """Refuse results of which a table cannot be made.

    Raises
    ------
    InputError
        A training diverged: every such one.
    """
    diverged = [
        f"{one['name']}: {one['diverged']}; lower its learning rate" for one in results if "diverged" in one
    ]
    if diverged:
        raise InputError(diverged)
