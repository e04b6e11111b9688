"""Many trainings: in parallel processes, each result saved, so that a killed experiment continues.

A job is one training of one system with one seed. `perform` trains the jobs whose results are not saved yet; only it
trains, measures the time and catches divergence. `run_jobs` saves each result as a JSON file whose name has
a key of everything that decides it: settings, seed, labels, data and code. A file with the right key is reused; others
are ignored.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from triptych.pipeline.atomic import remove_stale_temporaries, write_whole
from triptych.pipeline.documents import read_json
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import SentimentData, with_target
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks
from triptych.pipeline.trainer.runs.identity import code_digest, identity
from triptych.pipeline.trainer.runs.parallel import in_processes
from triptych.pipeline.trainer.runs.tensorboard import epoch_log
from triptych.pipeline.trainer.settings import SystemSettings, Task
from triptych.pipeline.trainer.systems import source_digest
from triptych.pipeline.trainer.training import Trained, represent, scores_of, train

Result = dict[str, Any]
Report = Callable[["Job", Result, bool], None]  # a job, its result, and whether that was saved before

RESULTS = "results"
SHOWN = 300  # clips whose representations a run's page shows


@dataclass(frozen=True)
class Job:
    """One training and the result to compute.

    Attributes
    ----------
    name
        The system's name.
    target
        The label that replaces M, in training and in evaluation.
    wanted
        ``test``: scores on the test split, which nothing has read before; ``valid``: those on the valid split,
        without reading the test split; ``representations``: R_t, R_a and R_v of the test split's clips.
    details
        Add to the result what the page of a run shows: the epochs, the predictions on the wanted split and,
        where the system has them, representations of at most `SHOWN` clips.
    log
        The folder for TensorBoard's event files; None for none.
    """

    name: str
    settings: SystemSettings
    seed: int
    target: Task = "M"
    wanted: Literal["test", "valid", "representations"] = "test"
    details: bool = False
    log: Path | None = None


class Destination(Protocol):
    """Where the result of one job is saved."""

    def find(self, job: Job, data: SentimentData) -> Result | None:
        """Return the result that an earlier run saved; None without one."""

    def save(self, trained: Trained | None, result: Result) -> None:
        """Save a result, and the model that it is of; without a model the training diverged."""


Work = tuple[Job, Destination]


@dataclass(frozen=True)
class ResultFile:
    """A job's result as a JSON file."""

    path: Path

    def find(self, job: Job, data: SentimentData) -> Result | None:
        """Read the file."""
        with suppress(OSError, ValueError):
            content = read_json(self.path.read_bytes())
            return content if isinstance(content, dict) else None
        return None

    def save(self, trained: Trained | None, result: Result) -> None:
        """Write the file."""
        write_whole(self.path, json.dumps(result).encode())


def run_jobs(
    jobs: Sequence[Job],
    data: SentimentData,
    folder: Path,
    processes: int,
    report: Report = lambda *_: None,
    device: str = "cpu",
) -> list[Result]:
    """Run the jobs whose results are not saved yet; return all results, in the jobs' order.

    Parameters
    ----------
    data
        Loaded with sequences where a system reads rows.
    folder
        Results are saved in it; it is created where missing.
    processes
        Number of processes, with one thread each; they share the clips in memory. With one, this process trains.
    report
        Called with each job when its result is computed or found.
    device
        Where models are trained.

    Raises
    ------
    WorkersDiedError
        A process was killed, usually because memory ran out; finished results are saved.
    """
    results = folder / RESULTS
    results.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(results)
    clips = identity(data)
    works: list[Work] = [
        (job, ResultFile(results / f"{job.name}-{job.seed}-{_key(job, clips, device)[:16]}.json"))
        for job in jobs
    ]
    return perform(works, data, folder, processes, report, device)


def perform(
    works: Sequence[Work],
    data: SentimentData,
    folder: Path,
    processes: int,
    report: Report = lambda *_: None,
    device: str = "cpu",
) -> list[Result]:
    """Train and save the jobs that have no saved result, the slowest first; return all results in order.

    Parameters and errors are those of `run_jobs`.
    """
    results: dict[int, Result] = {}
    for index, (job, destination) in enumerate(works):
        if (saved := destination.find(job, data)) is not None:
            results[index] = saved
            report(job, saved, True)
    missing = [index for index in range(len(works)) if index not in results]
    missing.sort(key=lambda index: -works[index][0].settings.cost)
    tasks = [(*works[index], device) for index in missing]
    for number, result in in_processes(_train_and_save, tasks, data, folder, processes):
        index = missing[number]
        results[index] = result
        report(works[index][0], result, False)
    return [results[index] for index in range(len(works))]


def _train_and_save(data: SentimentData, task: tuple[Job, Destination, str]) -> Result:
    """Train one system, evaluate it and save the result; a training that diverges has a result too."""
    job, destination, device = task
    start = time.perf_counter()
    data = with_target(data, job.target)
    trained = None
    try:
        with epoch_log(job.log, job.name, job.seed) as log:
            splits = data.split("train"), data.split("valid")
            trained = train(data, job.settings, job.seed, *splits, device, log.epoch)
            outcome = result_of(job, trained, data)
            log.scores(trained.best_epoch, outcome.get("test", {}))
    except FloatingPointError as error:
        outcome = {"diverged": str(error)}
    seconds = round(time.perf_counter() - start, 2)
    result = {**outcome, "name": job.name, "seed": job.seed, "seconds": seconds}
    destination.save(trained, result)
    return result


def result_of(job: Job, trained: Trained, data: SentimentData) -> Result:
    """Summarise a training, and compute what is wanted of its model."""
    if job.wanted == "representations":
        return {**trained.summary(), job.wanted: represent(trained, data, data.split("test"))}
    rows = data.split(job.wanted)
    predictions = trained.predict(data, rows)
    result = {**trained.summary(), job.wanted: scores_of(predictions, data, rows)}
    if job.details:
        result["history"] = [asdict(epoch) for epoch in trained.history]
        result["predictions"] = {task: values.tolist() for task, values in predictions.items()}
        if isinstance(trained.model, FusedSubnetworks):
            few = rows[:: -(-len(rows) // SHOWN)]  # every nth clip of a large split
            result["representations"] = represent(trained, data, few)
    return result


def _key(job: Job, clips: str, device: str = "cpu") -> str:
    """SHA-256 of everything that decides a result."""
    decisive = {
        "settings": job.settings.model_dump(mode="json"),
        "seed": job.seed,
        "target": job.target,
        "wanted": job.wanted,
        "data": clips,
        "code": code_digest(),
        "system": source_digest(type(job.settings)),
        "device": device,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def check_converged(results: Sequence[Result]) -> None:
    """Refuse results from which no table can be made.

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
