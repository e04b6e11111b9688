"""A run's connection to a Dask cluster: the scheduler, and which workers answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from ssl import SSLError
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.run.dask_worker import (
    answer,
    appears,
    in_hand,
    needed,
    problems,
    run_token,
    worker_token,
)
from triptych.pipeline.run.recovery import WorkersDiedError
from triptych.pipeline.run.task import GroupTask

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0
ASK_SECONDS = 30.0  # for the check before the first group, which imports libraries and hashes models
ANSWER_SECONDS = 10.0  # for a question that needs no work
REFRESH_SECONDS = 2.0
STALE_SECONDS = 7 * 86400.0  # older tokens are those of runs that were killed
LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "asyncio")


class SchedulerLostError(WorkersDiedError):
    """The scheduler does not answer any more."""

    def __init__(self, scheduler: str) -> None:
        super().__init__(
            f"--scheduler {scheduler}: it does not answer any more. Finished groups are saved; start it and its "
            "workers again, and the same command continues"
        )


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Connect to a scheduler; close the connection at the end, whatever has become of it.

    Raises
    ------
    InputError
        It cannot be reached.
    """
    with quiet():
        client = _connect(scheduler)
        try:
            yield client
        finally:
            with suppress(Exception):  # what the end of a lost connection raises is no news
                client.close(timeout=ANSWER_SECONDS)


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--scheduler needs Dask: pip install 'triptych[dask]'") from error
    if scheduler.startswith("tls:"):
        _check_certificates(scheduler)
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        cause = error.__cause__ or error.__context__
        why = f"{error}, {cause}" if isinstance(cause, SSLError) else str(error)
        raise InputError(
            f"--scheduler {scheduler}: cannot connect ({' '.join(why.split())}); check the address, or start a "
            "scheduler with `dask scheduler`"
        ) from error


def _check_certificates(scheduler: str) -> None:
    """Refuse a TLS address without usable certificates, for which a client would wait a minute.

    Raises
    ------
    InputError
        Dask's configuration names none, or one that cannot be read.
    """
    from distributed.security import Security

    remedy = (
        "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
    )
    try:
        context = Security().get_connection_args("client").get("ssl_context")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler {scheduler}: a certificate cannot be read ({error}); {remedy}"
        ) from error
    if context is None:
        raise InputError(f"--scheduler {scheduler}: Dask's configuration names no certificates; {remedy}")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what Dask logs on the terminal: triptych reports lost schedulers and workers itself, in one line."""
    with suppress(ImportError):
        import distributed  # noqa: F401 - sets up its loggers, where that is not done yet

    def hide(record: logging.LogRecord) -> bool:
        return False

    places: list[logging.Filterer] = []
    for name in LOGGERS:
        places += [logging.getLogger(name), *logging.getLogger(name).handlers]
    for place in places:
        place.addFilter(hide)
    try:
        yield
    finally:
        for place in places:
            place.removeFilter(hide)


def dashboard_of(client: Client) -> str:
    """Return the address of the scheduler's dashboard, empty where it has none."""
    with suppress(Exception):  # it is only for the user's information
        return str(client.dashboard_link or "")
    return ""


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
        self._refreshed = self._alive = self._reached = float("-inf")
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

    def refresh(self) -> None:
        """Ask the scheduler for its workers, at most every two seconds.

        Raises
        ------
        SchedulerLostError
            It has not answered for a while.
        WorkersDiedError
            It has had no worker for longer than a worker takes to start.
        """
        now = time.monotonic()
        if self._client.status in ("closing", "closed"):
            raise SchedulerLostError(self._scheduler)
        if now - self._refreshed < REFRESH_SECONDS:
            return
        if self._refreshed == float("-inf"):
            self._alive = self._reached = now
        try:
            self._threads = dict(
                self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_SECONDS)
            )
        except Exception as error:  # of the network, a timeout, or a client that has just closed
            if time.monotonic() - self._reached > CONNECT_SECONDS:
                raise SchedulerLostError(self._scheduler) from error
        else:
            if (stream := self._client.scheduler_comm) is not None and not stream.closed():
                self._reached = time.monotonic()
            elif time.monotonic() - self._reached > CONNECT_SECONDS:  # results no longer arrive
                raise SchedulerLostError(self._scheduler)
            self.silent &= self._threads.keys()
            if self._threads:
                self._alive = time.monotonic()
            elif time.monotonic() - self._alive > CONNECT_SECONDS:
                raise WorkersDiedError("the cluster has lost all its workers; start new ones")
        self._refreshed = time.monotonic()

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


# --- before anything runs ---


@contextmanager
def token(folder: Path, topic: str) -> Iterator[None]:
    """Mark a feature folder for the time of a run, so that workers can see that theirs is the same."""
    for old in folder.glob("triptych-*.token"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()
    (folder / run_token(topic)).write_text(topic)
    try:
        yield
    finally:
        for file in folder.glob(f"{topic}*.token"):
            file.unlink(missing_ok=True)


def wait_for_a_worker(client: Client) -> None:
    """Wait until the scheduler has a worker.

    Raises
    ------
    InputError
        It has none.
    """
    from distributed import TimeoutError as NoWorker

    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except NoWorker as error:
        raise InputError(
            f"the scheduler has no worker: start some with `dask worker {client.scheduler.address} --nthreads 1`"
        ) from error


def check_workers(members: Members, tasks: Sequence[GroupTask], topic: str) -> None:
    """Refuse workers that would fail for every clip, or would compute other features than planned.

    Workers that do not answer are reported, and the run goes on without them.

    Raises
    ------
    InputError
        Some cannot do the work: each with its problems. Or none answers.
    """
    found = members.ask(ASK_SECONDS, checked, tasks[0], *needed(tasks), topic)
    folder, refused = tasks[0].folder, []
    for worker, given in sorted(found.items()):
        if isinstance(given, ImportError | AttributeError):
            raise InputError(
                f"worker {worker}: triptych cannot be imported ({given}). Install this version of it on all workers"
            )
        if isinstance(given, Exception):
            raise given
        its_problems, id = given
        if not its_problems and not appears(folder / worker_token(topic, id)):
            its_problems = [
                f"writes into another folder at {folder} than this run; mount the same folder there"
            ]
        refused += [f"worker {worker}: {each}" for each in its_problems]
    if refused:
        raise InputError(refused)
    silent = ", ".join(sorted(members.silent))
    if not found:
        raise InputError(f"no worker answers within {ASK_SECONDS:.0f} s ({silent}): restart the workers")
    if silent:
        logger.warning(
            "no answer within %.0f s from worker %s; going on with the other %d",
            ASK_SECONDS,
            silent,
            len(found),
        )


def checked(
    task: GroupTask, roots: Sequence[str], stages: Sequence[str], topic: str, dask_worker: Any
) -> tuple[list[str], str]:
    """Check a worker, on that worker: its problems, and its id."""
    try:
        return problems(task, roots, stages, topic, dask_worker), str(dask_worker.id)
    except OSError as error:  # as a value, since errors of the network mean that a worker does not answer
        return [f"{error.filename or 'a file'}: {error.strerror or error}"], str(dask_worker.id)
