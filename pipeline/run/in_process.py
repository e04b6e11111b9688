"""Groups of clips in this very process, one after another: no start-up time, and no protection from a crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from triptych.pipeline.run.worker import GroupTask, run_group
from triptych.pipeline.storage.ledger import LedgerLine


def run_groups_in_process(
    tasks: Sequence[GroupTask], watch: Callable[[dict[str, Any]], None]
) -> Iterator[list[LedgerLine]]:
    """Run groups one after another in this process.

    Models stay loaded for the next run in the same process. A clip that crashes or hangs takes the process with
    it; `run_groups` isolates such clips. Libraries use as many threads as this process lets them, so values can
    differ in their last bits from those of worker processes, which run with
    `triptych.pipeline.processes.threads.ONE_THREAD`.

    Parameters
    ----------
    watch
        Receives every event, as `triptych.pipeline.run.local_engine.run_groups` describes it.

    Yields
    ------
    list of LedgerLine
        The lines of one group, when its shards are on disk.
    """

    def report(event: dict[str, Any]) -> None:
        watch({"pid": os.getpid(), **event})

    for task in tasks:
        yield run_group(task, report)
