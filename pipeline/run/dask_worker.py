"""What runs on the workers of a Dask cluster: the check before the first group, and the groups."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.extractors.base import BackendMissingError
from triptych.pipeline.errors import InputError
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.events import to_json
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import fingerprints, resolve
from triptych.pipeline.stages.graph import with_upstream
from triptych.pipeline.storage.ledger import LedgerLine

if TYPE_CHECKING:
    from distributed import Worker

TOKEN_SECONDS = 2.0  # a network file system may show a new file later

_checked: set[str] = set()  # topics of the runs for which this worker was checked


def run_reported(task: GroupTask, topic: str) -> list[LedgerLine]:
    """Run a group; every event is sent to the run.

    Raises
    ------
    InputError
        This worker joined after the run has checked the others, and cannot do the work.
    """
    from distributed import get_worker

    from triptych.pipeline.run.group import run_group

    worker = get_worker()
    if topic not in _checked and (found := problems(task, *needed([task]), topic, worker)):
        raise InputError([f"worker {worker.address}, which joined later: {each}" for each in found])
    about = {"key": worker.get_current_task(), "worker": worker.address}
    return run_group(task, lambda event: worker.log_event(topic, {**to_json(event), **about}))


def in_hand(dask_worker: Worker) -> dict[str, bool]:
    """Return the tasks that this worker has and has not finished, by key; whether each of them is running."""
    tasks = dask_worker.state.tasks.values()
    unfinished = [task for task in tasks if task.state not in ("memory", "error", "released", "forgotten")]
    return {str(task.key): task.state == "executing" for task in unfinished}


def answer(dask_worker: Worker) -> str:
    """Show that this worker runs."""
    return str(dask_worker.address)


def needed(tasks: Sequence[GroupTask]) -> tuple[list[str], list[str]]:
    """Return the folders that tasks read clips from, and the stages that they need."""
    works = [work for task in tasks for work in task.clips]
    stages = with_upstream(stage for work in works for stage in work.stages)
    return sorted({work.clip.root for work in works}), list(stages)


def problems(
    task: GroupTask, roots: Sequence[str], stages: Sequence[str], topic: str, dask_worker: Worker
) -> list[str]:
    """Return what prevents a worker from doing this work, as far as that can be checked in advance.

    Parameters
    ----------
    task
        A task of the run.
    roots, stages
        What the run needs, from `needed`.
    topic
        The run, which has written its token into the feature folder. The worker writes its own beside it.
    """
    os.environ.update(ONE_THREAD)  # numpy and other libraries read it when the first group imports them
    found = []
    if (threads := dask_worker.state.nthreads) != 1:
        found.append(f"has {threads} threads; start it with --nthreads 1")
    found += [
        f"does not see the clips in {root}; have them at one path everywhere, or say where with --root"
        for root in roots
        if not os.access(root, os.R_OK)
    ]
    if problem := folder_problem(task.folder, topic, worker_token(topic, dask_worker.id)):
        found.append(problem)
    left_alone = {name: print_ for name, print_ in task.fingerprints.items() if name not in stages}
    try:
        here = fingerprints(resolve(task.recipe, stages), stages, left_alone)
    except (InputError, BackendMissingError) as error:
        return [*found, str(error)]
    if other := [stage for stage in stages if here[stage] != task.fingerprints[stage]]:
        found.append(
            f"has another fingerprint of {', '.join(other)}: have the same triptych, model and OpenFace there"
        )
    if not found:
        _checked.add(topic)
    return found


def run_token(topic: str) -> str:
    """Return the name of the file in the feature folder that shows workers that it is the run's folder."""
    return f"{topic}.token"


def worker_token(topic: str, worker: str) -> str:
    """Return the name of the file that shows the run that a worker writes into the same folder."""
    return f"{topic}-{''.join(c if c.isalnum() else '-' for c in worker)}.token"


def folder_problem(folder: Path, topic: str, own: str) -> str | None:
    """Return why this machine's folder at the path is not the run's, or cannot be written; None if all is well.

    Parameters
    ----------
    folder
        The path of the feature folder.
    own
        The name of the file that this worker writes there.
    """
    if not folder.is_dir():
        return f"does not see the folder {folder}; put it where all machines have it, at one path"
    if not appears(folder / run_token(topic)):
        return (
            f"has another folder at {folder} than this run (the run's file {run_token(topic)} is not in it); "
            "mount the same folder there"
        )
    try:
        (folder / own).write_text(topic)
    except OSError as error:
        return f"cannot write in {folder} ({error.strerror}); allow it there"
    return None


def appears(file: Path) -> bool:
    """Wait a moment for a file that another machine has written; return whether it is there."""
    deadline = time.monotonic() + TOKEN_SECONDS
    while True:
        with suppress(OSError):
            file.stat()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
