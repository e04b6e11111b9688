"""Run groups of clips on a Dask cluster, whose workers see clips and feature folder at the same paths."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import BackendMissingError, Reason
from triptych.pipeline.errors import InputError
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.events import Report, StageStarted, from_json, to_json
from triptych.pipeline.run.recovery import (
    POLL_SECONDS,
    Running,
    WorkerExit,
    WorkersDiedError,
    divide,
    separate,
)
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import fingerprints, resolve
from triptych.pipeline.stages.graph import with_upstream
from triptych.pipeline.storage.ledger import LedgerLine

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

CONNECT_SECONDS = 30.0
UNSTARTED_TRIES = 3


def run_groups_on_cluster(
    tasks: Sequence[GroupTask], scheduler: str, watch: Report, clip_timeout: float | None = None
) -> Iterator[list[LedgerLine]]:
    """Run groups on a Dask cluster; yield each group's ledger lines when it ends, in any order.

    A group whose worker is lost is run again by Dask on another one, as often as the scheduler's
    ``allowed-failures`` allows. After that the clips that were being processed are run alone; a clip that kills
    its worker when alone fails in that stage, as in `local_engine.run_groups`.

    Parameters
    ----------
    scheduler
        Its address, ``tcp://host:8786``.
    watch
        Called with every event that the workers report.
    clip_timeout
        How long a stage may take for a clip before its worker is restarted [s]; by default from the clip's length.

    Raises
    ------
    WorkersDiedError
        No worker is left.
    InputError
        There is no scheduler or no worker, or workers cannot do this work (every one is listed with its remedy), or
        such a worker joined later. Shards written before that stay.
    """
    client = _connect(scheduler)
    topic = f"triptych-{uuid.uuid4().hex}"
    try:
        _check_workers(client, tasks, topic)
        yield from _Run(client, topic, watch, clip_timeout).groups(tasks)
    finally:
        client.close()


class _Run:
    """The tasks of a run on a cluster."""

    def __init__(self, client: Client, topic: str, watch: Report, clip_timeout: float | None) -> None:
        self._client, self._topic, self._watch, self._clip_timeout = client, topic, watch, clip_timeout
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._tasks: dict[str, tuple[Future, GroupTask]] = {}  # by Dask's key
        self._running: dict[str, tuple[Running, str]] = {}  # by Dask's key: the stage, and on which worker
        self._alive = time.monotonic()
        self._unstarted: Counter[tuple[str, ...]] = (
            Counter()
        )  # by ids: how often it was lost before it started
        client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))

    def groups(self, tasks: Sequence[GroupTask]) -> Iterator[list[LedgerLine]]:
        from distributed import TimeoutError as NoneFinished
        from distributed import wait

        try:
            for task in tasks:
                self._submit(task)
            while self._tasks:
                with suppress(NoneFinished):
                    wait(
                        [future for future, _ in self._tasks.values()],
                        timeout=POLL_SECONDS,
                        return_when="FIRST_COMPLETED",
                    )
                self._read()
                ended = [key for key, (future, _) in self._tasks.items() if future.done()]
                for key in ended:
                    yield from self._take(key)
                for key, limit in self._overdue().items():
                    yield from self._restart(key, limit)
                if self._lost():
                    raise WorkersDiedError("the cluster has lost all its workers; start new ones")
        finally:
            self._client.cancel([future for future, _ in self._tasks.values()])
            self._client.unsubscribe_topic(self._topic)

    def _submit(self, task: GroupTask) -> None:
        # Impure: the same group may have to be run again.
        future = self._client.submit(_run_reported, task, self._topic, pure=False)
        self._tasks[future.key] = (future, task)

    def _read(self) -> None:
        with suppress(Empty):
            while True:
                event = self._events.get_nowait()
                key, worker = event.pop("key"), event.pop("worker")
                typed = from_json(event)
                if isinstance(typed, StageStarted):
                    self._running[key] = Running(typed), worker
                else:
                    self._running.pop(key, None)
                self._watch(typed)

    def _take(self, key: str) -> Iterator[list[LedgerLine]]:
        from distributed import KilledWorker

        future, task = self._tasks.pop(key)
        error = future.exception()
        if isinstance(error, KilledWorker):
            yield from self._after(task, key, WorkerExit(Reason.WORKER_KILLED, str(error)))
        elif error is not None:
            raise error
        else:
            self._running.pop(key, None)
            yield future.result()

    def _overdue(self) -> dict[str, float]:
        return {
            key: limit
            for key, (running, _) in self._running.items()
            if key in self._tasks and (limit := running.overdue(self._clip_timeout)) is not None
        }

    def _restart(self, key: str, limit: float) -> Iterator[list[LedgerLine]]:
        """End a process that hangs, since a single thread cannot be ended."""
        future, task = self._tasks.pop(key)
        future.cancel()
        # Its nanny starts another one at once; a restart request would first wait for the hanging thread. This call
        # does not wait either, since a hanging process may never answer.
        worker = self._running[key][1]
        Thread(target=self._end_process, args=(worker,), daemon=True).start()
        yield from self._after(task, key, WorkerExit.timeout(limit))

    def _end_process(self, worker: str) -> None:
        with suppress(OSError):  # it has exited before it can answer
            self._client.run(os._exit, 1, workers=[worker], on_error="ignore")

    def _lost(self) -> bool:
        """Return whether the cluster has had no worker for longer than a worker takes to start."""
        if self._client.nthreads():
            self._alive = time.monotonic()
        return time.monotonic() - self._alive > CONNECT_SECONDS

    def _after(self, task: GroupTask, key: str, failure: WorkerExit) -> Iterator[list[LedgerLine]]:
        """Decide what is run again after the worker of a task exited."""
        running, _ = self._running.pop(key, (None, ""))
        ids = tuple(work.clip.id for work in task.clips)
        if running is None and self._unstarted[ids] < UNSTARTED_TRIES:
            # Dask blames a worker's exit on every task assigned to it, also on those that it had not started.
            self._unstarted[ids] += 1
            self._submit(task)
            return
        named, others = separate(task, running.stage.clips if running else ())
        if named and others:
            self._submit(named)
            self._submit(others)
            return
        lines, next_tasks = divide(task, running.stage if running else None, failure)
        for part in next_tasks:
            self._submit(part)
        if lines:
            yield lines


# --- what runs on the workers ---


_checked: set[str] = set()  # topics of the runs for which this worker was checked


def _run_reported(task: GroupTask, topic: str) -> list[LedgerLine]:
    from distributed import get_worker

    from triptych.pipeline.run.group import run_group

    worker = get_worker()
    if topic not in _checked and (problems := _problems(task, *_needed([task]), topic, worker)):
        raise InputError([f"worker {worker.address}, which joined later: {each}" for each in problems])
    about = {"key": worker.get_current_task(), "worker": worker.address}
    return run_group(task, lambda event: worker.log_event(topic, {**to_json(event), **about}))


def _needed(tasks: Sequence[GroupTask]) -> tuple[list[str], list[str]]:
    """Return the folders that tasks read clips from, and the stages that they need."""
    works = [work for task in tasks for work in task.clips]
    stages = with_upstream(stage for work in works for stage in work.stages)
    return sorted({work.clip.root for work in works}), list(stages)


def _problems(
    task: GroupTask, roots: Sequence[str], stages: Sequence[str], topic: str, dask_worker: Worker
) -> list[str]:
    """Return what prevents a worker from doing this work, as far as that can be checked in advance."""
    os.environ.update(ONE_THREAD)  # numpy and other libraries read it when the first group imports them
    problems = []
    if (threads := dask_worker.state.nthreads) != 1:
        problems.append(f"has {threads} threads; start it with --nthreads 1")
    problems += [
        f"does not see the clips in {root}; have them at one path everywhere, or say where with --root"
        for root in roots
        if not os.access(root, os.R_OK)
    ]
    if not os.access(task.folder, os.W_OK):
        problems.append(
            f"cannot write in {task.folder}; put the feature folder where all machines have it, at one path"
        )
    left_alone = {name: found for name, found in task.fingerprints.items() if name not in stages}
    try:
        here = fingerprints(resolve(task.recipe, stages), stages, left_alone)
    except (InputError, BackendMissingError) as error:
        return [*problems, str(error)]
    if other := [stage for stage in stages if here[stage] != task.fingerprints[stage]]:
        problems.append(
            f"has another fingerprint of {', '.join(other)}: have the same triptych, model and OpenFace there"
        )
    if not problems:
        _checked.add(topic)
    return problems


# --- before anything runs ---


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--scheduler needs Dask: pip install 'triptych[dask]'") from error
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {scheduler}: cannot connect ({error}); check the address, or start a scheduler with "
            "`dask scheduler`"
        ) from error


def _check_workers(client: Client, tasks: Sequence[GroupTask], topic: str) -> None:
    """Refuse workers that would fail for every clip, or would compute other features than planned."""
    from distributed import TimeoutError as NoWorker

    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except NoWorker as error:
        raise InputError(
            f"the scheduler has no worker: start some with `dask worker {client.scheduler.address} --nthreads 1`"
        ) from error
    try:
        found = client.run(_problems, tasks[0], *_needed(tasks), topic)
    except ModuleNotFoundError as error:
        raise InputError(
            f"triptych cannot be imported on the workers ({error}). Install this version of it there"
        ) from error
    if problems := [f"worker {address}: {each}" for address, those in found.items() for each in those]:
        raise InputError(problems)
