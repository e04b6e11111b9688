"""Trainings by the dozen: in parallel processes, each result kept, so that a killed experiment goes on.

A job is one training of one system with one seed. Its result is one JSON file whose name holds a key of all
that decides it: settings, seed, labels, data and code. A file with the right key is taken as it is; others
are left alone, and never read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triptych.pipeline.atomic import remove_stale_temporaries, write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import SentimentData, with_target
from triptych.pipeline.trainer.runs.identity import code_digest, identity
from triptych.pipeline.trainer.runs.parallel import in_processes
from triptych.pipeline.trainer.settings import SystemSettings, Task
from triptych.pipeline.trainer.training import Trained, evaluate, represent, train

Result = dict[str, Any]
Tell = Callable[["Job", Result, bool], None]  # a job, its result, and whether that was there before

# Systems of these families take longest; begun first, so that the processes end together.
SLOW_FIRST = ("transformer", "tensor-fusion", "memory-fusion", "early-fusion")
RESULTS = "results"


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
    clips = identity(data)
    paths = [kept / f"{job.name}-{job.seed}-{_key(job, clips)[:16]}.json" for job in jobs]
    results: dict[int, Result] = {}
    for place, path in enumerate(paths):
        if (found := _read(path)) is not None:
            results[place] = found
            tell(jobs[place], found, True)
    waiting = sorted(set(range(len(jobs))) - results.keys(), key=lambda place: _slowness(jobs[place]))
    work = [(jobs[place], paths[place]) for place in waiting]
    for number, result in in_processes(_run_job, work, data, folder, processes):
        place = waiting[number]
        results[place] = result
        tell(jobs[place], result, False)
    return [results[place] for place in range(len(jobs))]


def _run_job(data: SentimentData, waiting: tuple[Job, Path]) -> Result:
    """Train one system and write its result."""
    job, path = waiting
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
    return {**trained.summary(), job.wanted: _wanted(job, trained, data)}


def _wanted(job: Job, trained: Trained, data: SentimentData) -> Any:
    if job.wanted == "representations":
        return represent(trained, data, data.split("test"))
    return evaluate(trained, data, data.split(job.wanted))


def _key(job: Job, clips: str) -> str:
    """SHA-256 of all that decides a result."""
    decisive = {
        "settings": job.settings.model_dump(mode="json"),
        "seed": job.seed,
        "target": job.target,
        "wanted": job.wanted,
        "data": clips,
        "code": code_digest(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Result | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else None
    return None


def _slowness(job: Job) -> int:
    family = getattr(job.settings, "family", "")
    return SLOW_FIRST.index(family) if family in SLOW_FIRST else len(SLOW_FIRST)


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
