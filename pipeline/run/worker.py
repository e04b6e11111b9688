"""A worker process: it runs groups, reports progress, and ends with its parent."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triptych.extractors.registry import stages
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.run.events import Event, Report, to_line
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.storage.ledger import LedgerLine


def start(parent: int, progress: Path) -> None:
    """Prepare a worker process: it ends with the process that started it."""

    def clear_up() -> None:
        for stage in stages().values():
            stage.clean_up("own")
        shutil.rmtree(progress.parent, ignore_errors=True)

    end_with(parent, clear_up)


def run_reported(task: GroupTask, progress: Path) -> list[LedgerLine]:
    """Run a group; every event is appended to a file that the parent reads."""
    from triptych.pipeline.run.group import run_group

    with _reporting(progress) as report:
        return run_group(task, report)


@contextmanager
def _reporting(progress: Path) -> Iterator[Report]:
    # One O_APPEND write for each line: lines of several processes never mix.
    with progress.open("ab", buffering=0) as stream:

        def report(event: Event) -> None:
            line = to_line(event, os.getpid())
            if stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(progress))

        yield report
