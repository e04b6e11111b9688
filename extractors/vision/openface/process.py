"""One run of a program that may crash, hang, or outlive the process that started it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from triptych.extractors.vision.openface import processors
from triptych.extractors.vision.openface.launched import Launched, Watch, is_script

POLL_SECONDS = 0.05
LOOK_SECONDS, LOOKED_AT = (
    0.005,
    1.0,
)  # a script's processes are looked at this often, for so long at its start
OUTPUT_BYTES = 32 * 1024  # stored of the output's beginning, and of its end

# Asks the kernel to kill this process when the thread that started it ends, then becomes the program: so a killed
# worker leaves no program behind. Core dumps are disabled, since they would fill the scratch space. On a single
# processor the program would hang, so that its affinity is widened where this is needed and allowed.
_LEASH = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
if sys.argv[2]:
    os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this program has ended")
try:
    os.execv(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.exit(f"{sys.argv[3]} cannot be run: {error.strerror}")
"""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes
    ----------
    status
        The exit status; the negative number of the signal that killed it; None after a timeout.
    seconds
        The time limit.
    output
        The beginning and the end of its output, standard error included.
    launched
        The program that a script started; None where none was seen, and for a program that is no script.
    """

    status: int | None
    seconds: float
    output: str
    launched: Launched | None = None

    @property
    def well(self) -> bool:
        """Whether it ended by itself with status 0; its tables may still be missing."""
        return self.status == 0

    @property
    def timed_out(self) -> bool:
        """Whether it was killed at the time limit."""
        return self.status is None

    def __str__(self) -> str:
        if self.status is None:
            return f"did not end within {self.seconds:.0f} s"
        # A shell reports 128 + n for a process that signal n killed.
        number = -self.status if self.status < 0 else self.status - 128
        with suppress(ValueError):
            return f"was killed by {signal.Signals(number).name}"
        return f"ended with status {self.status}"

    def last_lines(self, count: int = 4) -> str:
        """Return the last lines of its output, joined into one."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " | ".join(lines[-count:]) or "no output"


def run(arguments: Sequence[str], folder: Path, seconds: float) -> Ending:
    """Run a program (its path is the first argument, the last one is unique), and wait for its end or the time limit.

    It gets its own session and process group and no input; afterwards, no process of the group is left. On Linux it is
    killed when the calling thread ends for any reason. It gets two processors where this process is bound to one.

    Parameters
    ----------
    folder
        Its working directory.
    seconds
        Time limit, after which it is killed.
    """
    affinity = ",".join(map(str, sorted(processors.widened())))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), affinity, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = _Output(process.stdout.fileno())
    watch = Watch(process.pid, arguments[-1], _LEASH) if is_script(Path(arguments[0])) else None
    try:
        status = _follow(process, output, time.monotonic() + seconds, watch)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    return Ending(status, seconds, output.text(), watch.found if watch else None)


def _follow(
    process: subprocess.Popen[bytes], output: _Output, deadline: float, watch: Watch | None
) -> int | None:
    looked_at = time.monotonic() + LOOKED_AT
    while True:
        if watch:
            watch.look()
        ended = process.poll() is not None
        output.take()
        if ended:
            return process.returncode
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        often = watch is not None and time.monotonic() < looked_at
        output.wait(min(left, LOOK_SECONDS if often else POLL_SECONDS))


class _Output:
    """The output of a pipe; only its beginning and its end are stored."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self._pipe, self._open = pipe, True
        self._head, self._tail = b"", b""

    def take(self) -> None:
        with suppress(BlockingIOError):
            while self._open:
                block = os.read(self._pipe, OUTPUT_BYTES)
                self._open = bool(block)
                room = OUTPUT_BYTES - len(self._head)
                self._head += block[:room]
                self._tail = (self._tail + block[room:])[-OUTPUT_BYTES:]

    def wait(self, seconds: float) -> None:
        select.select([self._pipe] if self._open else [], [], [], seconds)

    def text(self) -> str:
        return (self._head + self._tail).decode("utf-8", "replace")
