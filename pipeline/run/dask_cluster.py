"""A run's connection to a Dask cluster, and the check of its workers before anything runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from triptych.pipeline.errors import InputError
from triptych.pipeline.run.dask_members import ANSWER_SECONDS, CONNECT_SECONDS, Members
from triptych.pipeline.run.dask_worker import (
    appears,
    needed,
    problems,
    run_token,
    worker_token,
)
from triptych.pipeline.run.task import GroupTask

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

ASK_SECONDS = 30.0  # for the check before the first group, which imports libraries and hashes models
DASHBOARD_SECONDS = 2.0
STALE_SECONDS = 7 * 86400.0  # older tokens are those of runs that were killed
LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "asyncio")


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
    """Return the address of the scheduler's dashboard, empty where it has none.

    A scheduler without bokeh, or with ``--no-dashboard``, has an address too, and a page without a dashboard.
    """
    try:
        link = str(client.dashboard_link or "")
    except Exception:  # it is only for the user's information
        return ""
    if not link.startswith("http"):
        return ""
    try:
        with urlopen(link, timeout=DASHBOARD_SECONDS) as page:
            return "" if b"for the dashboard" in page.read(1000) else link
    except HTTPError:
        return ""
    except (OSError, ValueError, HTTPException):  # behind a firewall it may be open for the user's browser
        return link


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
