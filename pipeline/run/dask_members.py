"""The scheduler and the workers of a Dask cluster while a run uses them: who is there, and who answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from triptych.pipeline.run.dask_worker import answer, in_hand
from triptych.pipeline.run.recovery import WorkersDiedError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30.0
ANSWER_SECONDS = 10.0  # for a question that needs no work
REFRESH_SECONDS = 2.0


class SchedulerLostError(WorkersDiedError):
    """The scheduler does not answer any more."""

    def __init__(self, scheduler: str) -> None:
        super().__init__(
            f"--scheduler {scheduler}: it does not answer any more. Finished groups are saved; start it and its "
            "workers again, and the same command continues"
        )


class Question:
    """A function that every worker is asked to run, each for itself, so that one that hangs delays no other one.

    Attributes
    ----------
    unanswered
        The workers of which neither an answer nor an error has been read.
    """

    def __init__(
        self, client: Client, workers: Collection[str], function: Callable[..., Any], *arguments: Any
    ) -> None:
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.unanswered = set(workers)

        def ask(worker: str) -> None:
            try:
                found = client.run(function, *arguments, workers=[worker], on_error="return").get(worker)
            except Exception as error:
                found = error
            self._answers.put((worker, found))

        for worker in tuple(self.unanswered):
            Thread(target=ask, args=(worker,), daemon=True).start()

    def answers(self, seconds: float) -> dict[str, Any]:
        """Return the answers that arrive in time, by worker; the error of a function that raised one.

        A worker that cannot be reached does not answer.
        """
        found: dict[str, Any] = {}
        deadline = time.monotonic() + seconds
        with suppress(Empty):
            while self.unanswered:
                worker, given = self._answers.get(timeout=max(deadline - time.monotonic(), 0.001))
                self.unanswered.discard(worker)
                if not isinstance(given, OSError) and given is not None:
                    found[worker] = given
        return found


class Members:
    """The workers of a cluster, which may join and leave.

    Attributes
    ----------
    silent
        Workers that have not answered, and get no work until they do.
    """

    def __init__(self, client: Client, scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler
        self._threads: dict[str, int] = {}
        self._refreshed = float("-inf")
        self._alive = self._reached = time.monotonic()
        self._closed = Event()
        self.silent: set[str] = set()
        self.refresh()

    @property
    def threads(self) -> int:
        """How many tasks the workers that answer can run at this moment."""
        return sum(count for worker, count in self._threads.items() if worker not in self.silent)

    @property
    def answering(self) -> list[str]:
        """Addresses of the workers that are not silent."""
        return [worker for worker in self._threads if worker not in self.silent]

    def refresh(self, *, at_once: bool = False) -> bool:
        """Ask the scheduler for its workers, at most every two seconds.

        Parameters
        ----------
        at_once
            Ask now.

        Returns
        -------
        bool
            Whether the scheduler has answered.

        Raises
        ------
        SchedulerLostError
            It has not answered for a while.
        WorkersDiedError
            It has had no worker for longer than a worker takes to start.
        """
        if self._client.status in ("closing", "closed"):
            raise SchedulerLostError(self._scheduler)
        if time.monotonic() - self._refreshed < REFRESH_SECONDS and not at_once:
            return True
        found = self._ask_scheduler()
        self._refreshed = now = time.monotonic()
        if found is None:
            if now - self._reached > CONNECT_SECONDS:
                raise SchedulerLostError(self._scheduler)
            return False
        self._reached, self._threads = now, found
        self.silent &= found.keys()
        if found:
            self._alive = now
        elif now - self._alive > CONNECT_SECONDS:
            raise WorkersDiedError("the cluster has lost all its workers; start new ones")
        return True

    def _ask_scheduler(self) -> dict[str, int] | None:
        """Return how many threads each worker has; None if the scheduler does not answer or sends no results."""
        try:
            found = self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_SECONDS)
        except Exception:  # of the network, a timeout, or a client that has just closed
            return None
        stream = self._client.scheduler_comm
        return None if stream is None or stream.closed() else dict(found)

    def reconnected(self) -> None:
        """Wait until a lost connection is restored.

        Raises
        ------
        SchedulerLostError
            It is not.
        """
        deadline = time.monotonic() + CONNECT_SECONDS + ANSWER_SECONDS
        while self._client.status != "running":
            if self._client.status == "closed" or time.monotonic() > deadline:
                raise SchedulerLostError(self._scheduler)
            time.sleep(0.1)

    def ask(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Ask all workers; those that do not answer in time are silent from now on."""
        asked = set(self._threads)
        found = Question(self._client, asked, function, *arguments).answers(seconds)
        self.silent -= found.keys()
        for worker in asked - found.keys() - self.silent:
            self._set_silent(worker)
        return found

    def in_hand(self) -> dict[str, dict[str, bool]]:
        """Return the unfinished tasks of each worker that answers: by key, whether it is running."""
        answers = self.ask(ANSWER_SECONDS, in_hand)
        return {worker: found for worker, found in answers.items() if isinstance(found, dict)}

    def answers(self, worker: str) -> bool:
        """Return whether one worker answers; if not, it is silent from now on."""
        if worker in self.silent:
            return False
        if Question(self._client, [worker], answer).answers(ANSWER_SECONDS):
            return True
        self._set_silent(worker)
        return False

    def close(self) -> None:
        """Stop waiting for silent workers."""
        self._closed.set()

    def _set_silent(self, worker: str) -> None:
        self.silent.add(worker)
        Thread(target=self._wait_for, args=(worker,), daemon=True).start()

    def _wait_for(self, worker: str) -> None:
        """Give a silent worker work again as soon as it answers."""
        question = Question(self._client, [worker], answer)
        while worker in self.silent and not self._closed.is_set():
            if question.answers(REFRESH_SECONDS):
                self.silent.discard(worker)
            elif not question.unanswered:  # it could not be reached
                self._closed.wait(REFRESH_SECONDS)
                question = Question(self._client, [worker], answer)
