"""Run groups of clips on a Dask cluster, whose workers see clips and feature folder at the same paths."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import Reason
from triptych.pipeline.run.dask_cluster import (
    check_workers,
    connected,
    dashboard_of,
    token,
    wait_for_a_worker,
)
from triptych.pipeline.run.dask_members import ANSWER_SECONDS, Members
from triptych.pipeline.run.dask_worker import run_reported
from triptych.pipeline.run.events import ClipFinished, ClusterJoined, Report, StageStarted, from_json
from triptych.pipeline.run.recovery import POLL_SECONDS, Running, WorkerExit, divide, separate
from triptych.pipeline.run.remaining import remaining
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.storage.ledger import LedgerLine

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

AHEAD = 3  # groups for each thread: one that runs, and the next ones, so that no worker waits for the run
INACTIVE_SECONDS = 60.0  # without an event or a result; then workers are asked what they are doing
UNSTARTED_TRIES = 3
SILENT_TRIES = 2  # a clip may also be the cause of a worker that does not answer


def run_groups_on_cluster(
    tasks: Sequence[GroupTask], scheduler: str, watch: Report, clip_timeout: float | None = None
) -> Iterator[list[LedgerLine]]:
    """Run groups on a Dask cluster; yield each group's ledger lines when it ends, in any order.

    A few groups for each thread of the cluster are submitted at a time; workers may join and leave.

    A group whose worker is lost is run again by Dask on another one, as often as the scheduler's
    ``allowed-failures`` allows. After that the clips that were being processed are run alone; a clip that kills
    its worker when alone fails in that stage, as in `local_engine.run_groups`. A group whose worker does not answer
    any more is run again on another one, apart from what it has already saved.

    Parameters
    ----------
    scheduler
        Its address, ``tcp://host:8786`` or ``tls://host:8786``.
    watch
        Called with every event that the workers report.
    clip_timeout
        How long a stage may take for a clip before its worker is restarted [s]; by default from the clip's length.

    Raises
    ------
    WorkersDiedError
        No worker is left, or the scheduler does not answer any more.
    InputError
        There is no scheduler or no worker, or workers cannot do this work (every one is listed with its remedy), or
        such a worker joined later. Shards written before that stay.
    """
    topic = f"triptych-{uuid.uuid4().hex}"
    with connected(scheduler) as client, token(tasks[0].folder, topic):
        wait_for_a_worker(client)
        members = Members(client, scheduler)
        try:
            check_workers(members, tasks, topic)
            watch(ClusterJoined(scheduler, len(members.answering), dashboard_of(client)))
            yield from _Run(client, members, topic, watch, clip_timeout).groups(tasks)
        finally:
            members.close()


class _Run:
    """The tasks of a run on a cluster."""

    def __init__(
        self, client: Client, members: Members, topic: str, watch: Report, clip_timeout: float | None
    ) -> None:
        self._client, self._members, self._topic = client, members, topic
        self._watch, self._clip_timeout = watch, clip_timeout
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._waiting: deque[GroupTask] = deque()
        self._out: dict[str, tuple[Future, GroupTask]] = {}  # submitted, by Dask's key
        self._running: dict[str, tuple[Running, str]] = {}  # by Dask's key: the stage, and on which worker
        self._heard = time.monotonic()
        # By the ids of a task: how often it was lost before it started, and with a worker that does not answer.
        self._unstarted: Counter[tuple[str, ...]] = Counter()
        self._silenced: Counter[tuple[str, ...]] = Counter()

    def groups(self, tasks: Sequence[GroupTask]) -> Iterator[list[LedgerLine]]:
        self._waiting.extend(tasks)
        self._subscribe()
        try:
            while self._waiting or self._out:
                self._members.refresh()
                if any(future.cancelled() for future, _ in self._out.values()):
                    yield from self._reconnect()
                self._fill()
                self._wait()
                self._read()
                for key in [key for key, (future, _) in self._out.items() if future.done()]:
                    yield from self._take(key)
                for key, limit in self._overdue().items():
                    yield from self._restart(key, limit)
                yield from self._look_after()
        finally:
            with suppress(Exception):  # the scheduler may be lost
                self._client.cancel([future for future, _ in self._out.values()])
                self._client.unsubscribe_topic(self._topic)

    def _subscribe(self) -> None:
        self._client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))

    def _fill(self) -> None:
        """Submit as many groups as the cluster's threads need now."""
        while self._waiting and len(self._out) < AHEAD * self._members.threads:
            task = self._waiting.popleft()
            # Where a worker does not answer, the scheduler must not choose it.
            only = self._members.answering if self._members.silent else None
            # Impure: the same group may have to be run again.
            future = self._client.submit(run_reported, task, self._topic, pure=False, workers=only)
            self._out[future.key] = (future, task)

    def _wait(self) -> None:
        from distributed import TimeoutError as NoneFinished
        from distributed import wait

        if not self._out:  # no worker at the moment
            time.sleep(POLL_SECONDS)
            return
        futures = [future for future, _ in self._out.values()]
        with self._client.as_current(), suppress(NoneFinished, CancelledError):
            wait(futures, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")

    def _read(self) -> None:
        with suppress(Empty):
            while True:
                event = self._events.get_nowait()
                self._heard = time.monotonic()
                key, worker = event.pop("key"), event.pop("worker")
                typed = from_json(event)
                if isinstance(typed, StageStarted):
                    self._running[key] = Running(typed), worker
                else:
                    self._running.pop(key, None)
                self._watch(typed)

    def _take(self, key: str) -> Iterator[list[LedgerLine]]:
        from distributed import KilledWorker

        future, task = self._out[key]
        self._heard = time.monotonic()
        try:
            error = future.exception(timeout=ANSWER_SECONDS)
            # The lines are fetched from the worker, which may have been stopped since.
            lines = future.result(timeout=ANSWER_SECONDS) if error is None else []
        except CancelledError:  # the connection is lost, which is looked at next
            return
        except OSError:  # a timeout, or a connection that was reset
            if not self._members.refresh(at_once=True):  # the worker is not the cause
                return
            yield from self._again([key], "a result did not arrive from its worker")
            return
        del self._out[key]
        if isinstance(error, KilledWorker):
            yield from self._after(task, key, WorkerExit(Reason.WORKER_KILLED, str(error)))
        elif error is not None:
            raise error
        else:
            self._running.pop(key, None)
            yield lines

    def _overdue(self) -> dict[str, float]:
        return {
            key: limit
            for key, (running, _) in self._running.items()
            if key in self._out and (limit := running.overdue(self._clip_timeout)) is not None
        }

    def _restart(self, key: str, limit: float) -> Iterator[list[LedgerLine]]:
        """End a process that hangs, since a single thread cannot be ended."""
        worker = self._running[key][1]
        answers = self._members.answers(worker)
        # Its nanny starts another one at once; a restart request would first wait for the hanging thread. This call
        # does not wait either, since a hanging process may never answer.
        Thread(target=self._end_process, args=(worker,), daemon=True).start()
        future, task = self._out.pop(key)
        future.cancel()
        if answers or self._silenced[_ids(task)] >= SILENT_TRIES:
            yield from self._after(task, key, WorkerExit.timeout(limit))
            return
        # A worker that was stopped or cut off says nothing about the clip.
        self._silenced[_ids(task)] += 1
        self._heard = float("-inf")  # its other groups are looked after now
        self._running.pop(key)
        self._waiting.appendleft(task)

    def _end_process(self, worker: str) -> None:
        with suppress(Exception):  # it has exited before it can answer, or the connection is closed
            self._client.run(os._exit, 1, workers=[worker], on_error="ignore")

    # --- results that do not arrive ---

    def _look_after(self) -> Iterator[list[LedgerLine]]:
        """After a time without a sign of life, run again what no worker that answers is doing."""
        if time.monotonic() - self._heard < INACTIVE_SECONDS or not self._members.refresh(at_once=True):
            return
        hands = self._members.in_hand()
        self._heard = time.monotonic()
        placed = {key for tasks in hands.values() for key in tasks}
        lost = [key for key in self._out if key not in placed]
        idle = any(not any(tasks.values()) for tasks in hands.values())
        why = f"nothing was reported for {INACTIVE_SECONDS:.0f} s"
        if not hands:
            logger.warning("%s, and no worker answers; waiting for one", why)
            return
        # Where every worker is busy with a long clip, the other groups are waiting for their turn.
        if not lost or not (idle or self._members.silent):
            return
        if self._members.silent:
            why += f", no answer from worker {', '.join(sorted(self._members.silent))}"
        yield from self._again(lost, why)

    def _reconnect(self) -> Iterator[list[LedgerLine]]:
        """Submit everything again after the connection to the scheduler was lost, which forgets what was submitted."""
        self._members.reconnected()
        self._subscribe()
        yield from self._again(self._out.keys(), "the connection to the scheduler was lost")

    def _again(self, keys: Collection[str], why: str) -> Iterator[list[LedgerLine]]:
        """Run tasks again, apart from what the feature folder has; the line on the terminal says why."""
        ended = []
        for key in list(keys):
            future, task = self._out.pop(key)
            with suppress(CancelledError):
                future.cancel()
            running, worker = self._running.get(key, (None, ""))
            ids = _ids(task)
            if running and worker in self._members.silent:
                self._silenced[ids] += 1
            if self._silenced[ids] > SILENT_TRIES:
                failure = WorkerExit(Reason.WORKER_KILLED, "its worker did not answer any more")
                yield from self._after(task, key, failure)
            else:
                self._running.pop(key, None)
                ended.append(task)
        left, complete = remaining(ended) if ended else ([], [])
        self._waiting.extendleft(reversed(left))
        for clip in complete:
            self._watch(ClipFinished(clip, 0, 0))
        logger.warning("%s: run again: %d groups; found complete: %d clips", why, len(left), len(complete))

    def _after(self, task: GroupTask, key: str, failure: WorkerExit) -> Iterator[list[LedgerLine]]:
        """Decide what is run again after the worker of a task exited."""
        running, _ = self._running.pop(key, (None, ""))
        ids = _ids(task)
        if running is None and self._unstarted[ids] < UNSTARTED_TRIES:
            # Dask blames a worker's exit on every task assigned to it, also on those that it had not started.
            self._unstarted[ids] += 1
            self._waiting.appendleft(task)
            return
        named, others = separate(task, running.stage.clips if running else ())
        if named and others:
            self._waiting.extendleft((others, named))
            return
        lines, next_tasks = divide(task, running.stage if running else None, failure)
        self._waiting.extendleft(reversed(next_tasks))
        if lines:
            yield lines


def _ids(task: GroupTask) -> tuple[str, ...]:
    return tuple(work.clip.id for work in task.clips)
