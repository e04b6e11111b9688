"""Ctrl-C, SIGTERM and SIGHUP end a command with one line, no traceback and no process left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESTORE = "\x1b[?25h\r\x1b[J"  # the cursor is shown; what a live display left on its last line is removed
CLEAR_UP_SECONDS = 1.0  # then the process ends, whatever still runs

_received: list[int] = []
_ending = threading.Lock()


def end_on_signals(message: str) -> None:
    """Let signals end this process: what it has opened is closed, a message is printed, and its children end.

    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored.
    """
    owner = os.getpid()
    _received.clear()

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner:  # a forked child: its parent prints
            os._exit(128 + number)
        for each in SIGNALS:  # a second Ctrl-C must not interrupt the clearing up
            signal.signal(each, signal.SIG_IGN)
        _received.append(number)
        # The error of a pool whose processes are killed, in one of its threads, is no news. Nor is an exit from a
        # destructor, which Python prints and does not carry out.
        threading.excepthook = lambda _: None
        sys.unraisablehook = lambda _: None
        warnings.simplefilter("ignore")  # of helpers of the pool that have got the signal too
        last = threading.Timer(CLEAR_UP_SECONDS, end_if_interrupted, (message,))
        last.daemon = True
        last.start()
        sys.exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupted)


def end_if_interrupted(message: str) -> None:
    """End this process and its children if a signal has arrived; return otherwise."""
    if not _received:
        return
    if not _ending.acquire(blocking=False):  # the other thread is printing the message
        time.sleep(CLEAR_UP_SECONDS)
        os._exit(128 + _received[0])
    _kill_children()
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, (RESTORE if os.isatty(2) else "").encode() + f"{message}\n".encode())
    os._exit(128 + _received[0])


def ignore_signals() -> None:
    """Let the finished process exit with its own code: Python gives signals back to the system while it clears up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    # The pools' semaphores. loky's tracker, one of the children, would remove them and print a warning about it.
    for semaphore in Path("/dev/shm").glob(f"sem.loky-{os.getpid()}-*"):
        with suppress(OSError):
            semaphore.unlink()


@contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """Start processes that a terminal's signals do not reach: their parent gets them too, and ends its processes.

    The signal mask is the only thing that a new program inherits before its own first line runs.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
