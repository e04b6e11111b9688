"""Groups of clips over the workers of a Dask cluster, which see the clips and the feature folder at the same paths."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import BackendMissingError, Reason
from triptych.pipeline.errors import InputError
from triptych.pipeline.processes.threads import ONE_THREAD
from triptych.pipeline.run.recovery import Begun, Death, WorkersDiedError, narrowed, parted
from triptych.pipeline.run.worker import GroupTask, run_group
from triptych.pipeline.stages.fingerprints import fingerprints, resolve, with_upstream
from triptych.pipeline.storage.ledger import LedgerLine

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

CONNECT_SECONDS = 30.0
POLL_SECONDS = 0.2
STAGE_SECONDS = 1800.0  # a stage of one clip that takes longer hangs
UNBEGUN_TRIES = 3

Watch = Callable[[dict[str, Any]], None]


def run_groups_on_cluster(
    tasks: Sequence[GroupTask], scheduler: str, watch: Watch, stage_seconds: float = STAGE_SECONDS
) -> Iterator[list[LedgerLine]]:
    """Run groups on the workers of a Dask cluster, giving each group's ledger lines as it ends, in any order.

    A group whose worker is lost is run again by Dask on another one, as often as the scheduler's
    ``allowed-failures`` has it. After that the clips that were under way are run apart from all others; one
    that kills its worker when alone loses that stage, as in `engine.run_groups`.

    Parameters
    ----------
    scheduler
        Its address, ``tcp://host:8786``.
    watch
        Told every event as the workers report it, as in `engine.run_groups`, without the ``pid``.
    stage_seconds
        How long a stage may take for each clip before its worker is restarted.

    Raises
    ------
    WorkersDiedError
        No worker is left.
    InputError
        No scheduler there, no worker, or workers that cannot do this work: all of them, each with its remedy;
        or such a worker joined later. What was made until then is kept.
    """
    client = _connect(scheduler)
    topic = f"triptych-{uuid.uuid4().hex}"
    try:
        _check_workers(client, tasks, topic)
        yield from _Run(client, topic, watch, stage_seconds).groups(tasks)
    finally:
        client.close()


class _Run:
    """What is under way on a cluster."""

    def __init__(self, client: Client, topic: str, watch: Watch, stage_seconds: float) -> None:
        self._client, self._topic, self._watch, self._stage_seconds = client, topic, watch, stage_seconds
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._running: dict[str, tuple[Future, GroupTask]] = {}  # by Dask's key
        self._begun: dict[str, tuple[Begun, str]] = {}  # by Dask's key: what, and on which worker
        self._alive = time.monotonic()
        self._unbegun: Counter[tuple[str, ...]] = Counter()  # by ids: how often it was lost before it began
        client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))

    def groups(self, tasks: Sequence[GroupTask]) -> Iterator[list[LedgerLine]]:
        from distributed import TimeoutError as NoneEnded
        from distributed import wait

        try:
            for task in tasks:
                self._submit(task)
            while self._running:
                with suppress(NoneEnded):
                    wait(
                        [future for future, _ in self._running.values()],
                        timeout=POLL_SECONDS,
                        return_when="FIRST_COMPLETED",
                    )
                self._read()
                ended = [key for key, (future, _) in self._running.items() if future.done()]
                for key in ended:
                    yield from self._take(key)
                for key in self._overdue():
                    yield from self._restart(key)
                if self._lost():
                    raise WorkersDiedError("the cluster has lost all its workers; start new ones")
        finally:
            self._client.cancel([future for future, _ in self._running.values()])
            self._client.unsubscribe_topic(self._topic)

    def _submit(self, task: GroupTask) -> None:
        # Impure: the same group may be run again, and has to be.
        future = self._client.submit(_run_told, task, self._topic, pure=False)
        self._running[future.key] = (future, task)

    def _read(self) -> None:
        with suppress(Empty):
            while True:
                event = self._events.get_nowait()
                key, worker = event.pop("key"), event.pop("worker")
                if "begin" in event:
                    begun = Begun(tuple(event["begin"]), event["stage"], time.monotonic())
                    self._begun[key] = (begun, worker)
                else:
                    self._begun.pop(key, None)
                self._watch(event)

    def _take(self, key: str) -> Iterator[list[LedgerLine]]:
        from distributed import KilledWorker

        future, task = self._running.pop(key)
        error = future.exception()
        if isinstance(error, KilledWorker):
            yield from self._after(task, key, Death(Reason.WORKER_KILLED, str(error)))
        elif error is not None:
            raise error
        else:
            self._begun.pop(key, None)
            yield future.result()

    def _overdue(self) -> list[str]:
        now = time.monotonic()
        return [
            key
            for key, (begun, _) in self._begun.items()
            if key in self._running and now - begun.since > self._stage_seconds * len(begun.clips)
        ]

    def _restart(self, key: str) -> Iterator[list[LedgerLine]]:
        """End the process that hangs: a thread of it cannot be ended."""
        future, task = self._running.pop(key)
        future.cancel()
        # Its nanny begins another one at once; asked to restart, it would first wait for the thread. Not waited
        # for, since a process may be too far gone to answer.
        worker = self._begun[key][1]
        Thread(target=self._end_process, args=(worker,), daemon=True).start()
        detail = f"it had not ended after {self._stage_seconds:.0f} s"
        yield from self._after(task, key, Death(Reason.TIMEOUT, detail))

    def _end_process(self, worker: str) -> None:
        with suppress(OSError):  # it is gone before it can answer
            self._client.run(os._exit, 1, workers=[worker], on_error="ignore")

    def _lost(self) -> bool:
        """Whether the cluster has been without a worker for longer than one takes to start."""
        if self._client.nthreads():
            self._alive = time.monotonic()
        return time.monotonic() - self._alive > CONNECT_SECONDS

    def _after(self, task: GroupTask, key: str, death: Death) -> Iterator[list[LedgerLine]]:
        begun, _ = self._begun.pop(key, (None, ""))
        ids = tuple(work.clip.id for work in task.clips)
        if begun is None and self._unbegun[ids] < UNBEGUN_TRIES:
            # Dask blames all that waits at a worker for its death, what it had not begun included.
            self._unbegun[ids] += 1
            self._submit(task)
            return
        suspected, others = parted(task, begun.clips if begun else ())
        if suspected and others:
            self._submit(suspected)
            self._submit(others)
            return
        lines, apart = narrowed(task, begun, death)
        for part in apart:
            self._submit(part)
        if lines:
            yield lines


# --- what runs on the workers ---


_fit_for: set[str] = set()  # the runs, by their topics, for which this worker was found fit


def _run_told(task: GroupTask, topic: str) -> list[LedgerLine]:
    from distributed import get_worker

    worker = get_worker()
    if topic not in _fit_for and (mistakes := _look(task, *_needed([task]), topic, worker)):
        raise InputError([f"worker {worker.address}, which joined later: {each}" for each in mistakes])
    about = {"key": worker.get_current_task(), "worker": worker.address}
    return run_group(task, lambda event: worker.log_event(topic, {**event, **about}))


def _needed(tasks: Sequence[GroupTask]) -> tuple[list[str], list[str]]:
    """The folders that tasks read clips from, and the stages that they need."""
    works = [work for task in tasks for work in task.clips]
    stages = with_upstream(stage for work in works for stage in work.stages)
    return sorted({work.clip.root for work in works}), list(stages)


def _look(
    task: GroupTask, roots: Sequence[str], stages: Sequence[str], topic: str, dask_worker: Worker
) -> list[str]:
    """What keeps a worker from this work, as far as it can tell beforehand."""
    os.environ.update(ONE_THREAD)  # read by numpy and the others when the first group imports them
    mistakes = []
    if (threads := dask_worker.state.nthreads) != 1:
        mistakes.append(f"has {threads} threads; start it with --nthreads 1")
    mistakes += [
        f"does not see the clips in {root}; have them at one path everywhere, or say where with --root"
        for root in roots
        if not os.access(root, os.R_OK)
    ]
    if not os.access(task.folder, os.W_OK):
        mistakes.append(
            f"cannot write in {task.folder}; put the feature folder where all machines have it, at one path"
        )
    left_alone = {name: found for name, found in task.fingerprints.items() if name not in stages}
    try:
        here = fingerprints(resolve(task.recipe, stages), left_alone)
    except (InputError, BackendMissingError) as error:
        return [*mistakes, str(error)]
    if other := [stage for stage in stages if here[stage] != task.fingerprints[stage]]:
        mistakes.append(
            f"has another fingerprint of {', '.join(other)}: have the same triptych, model and OpenFace there"
        )
    if not mistakes:
        _fit_for.add(topic)
    return mistakes


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
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); start one with `dask scheduler`"
        ) from error


def _check_workers(client: Client, tasks: Sequence[GroupTask], topic: str) -> None:
    """Refuse workers that would fail every clip, or make other features than were planned."""
    from distributed import TimeoutError as NoneCame

    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except NoneCame as error:
        raise InputError(
            f"the scheduler has no worker: start some with `dask worker {client.scheduler.address} --nthreads 1`"
        ) from error
    try:
        found = client.run(_look, tasks[0], *_needed(tasks), topic)
    except ModuleNotFoundError as error:
        raise InputError(f"the workers lack triptych ({error}): install this version of it there") from error
    if mistakes := [f"worker {address}: {each}" for address, those in found.items() for each in those]:
        raise InputError(mistakes)
