"""The program that a script starts, found among the script's processes while it runs. Needs Linux's /proc; no numpy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Launched:
    """A process that was given OpenFace's arguments.

    Attributes
    ----------
    program
        The file that it executes: a binary, or a script where an interpreter reads one.
    folder
        Its working directory, which relative paths in its output start from.
    """

    program: Path
    folder: Path


def is_script(file: Path) -> bool:
    """Return whether a file is a script, which the interpreter in its first line reads."""
    try:
        with file.open("rb") as stream:
            return stream.read(2) == b"#!"
    except OSError:
        return False


class Watch:
    """Looks at the processes of a session, and remembers the innermost one with the given argument.

    A script may replace itself by the program or wait for it as its child, and may start other commands before and
    after: these are not given OpenFace's arguments.

    Parameters
    ----------
    leader
        Process id of the session's first process.
    argument
        Occurs in no other program's command line.
    before
        Occurs in the command line of `leader` as long as it has not become the script.
    """

    def __init__(self, leader: int, argument: str, before: str) -> None:
        self._leader, self._argument, self._before = leader, argument, before
        self._parents: dict[int, int] = {}  # of the session's processes
        self._others: set[int] = set()  # processes of other sessions, which need not be looked at again
        self._depth = 0
        self.found: Launched | None = None

    def look(self) -> None:
        """Look once; later looks replace what was found, except by the script that waits for the program."""
        for process in self._processes():
            words, depth = _words(process), self._depth_of(process)
            if self._argument not in words or self._before in words or depth < self._depth:
                continue
            if depth and words == _words(self._parents[process]):
                continue  # a copy of the script, which is about to become another command
            found = _launched(process, words)
            # A process may become another program between two readings.
            if found and _words(process) == words:
                self.found, self._depth = found, depth

    def _processes(self) -> list[int]:
        try:
            here = {int(path.name) for path in PROC.iterdir() if path.name.isdigit()}
        except OSError:
            return []
        for process in here - self._others - self._parents.keys():
            parent, session = _parent_and_session(process)
            if session == self._leader:
                self._parents[process] = parent
            else:
                self._others.add(process)
        return [process for process in self._parents if process in here]

    def _depth_of(self, process: int) -> int:
        depth = 0
        while process != self._leader and process in self._parents:
            process, depth = self._parents[process], depth + 1
        return depth


def _parent_and_session(process: int) -> tuple[int, int]:
    try:
        # The name before the last bracket may have spaces and brackets of its own.
        fields = (PROC / str(process) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[3])


def _words(process: int) -> list[str]:
    try:
        return [os.fsdecode(word) for word in (PROC / str(process) / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


def _launched(process: int, words: list[str]) -> Launched | None:
    try:
        program = (PROC / str(process) / "exe").readlink()
        folder = (PROC / str(process) / "cwd").readlink()
    except OSError:
        return None
    # The kernel starts a script as: interpreter, the one option of its first line if it has one, script.
    scripts = [file for word in words[1:3] if is_script(file := folder / word)]
    return Launched(scripts[0] if scripts else program, folder)
