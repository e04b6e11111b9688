"""Run groups of clips in this process, one after another: no start-up time, no protection from a crash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triptych.pipeline.run.events import Report
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.storage.ledger import LedgerLine


def run_groups_in_process(tasks: Sequence[GroupTask], watch: Report) -> Iterator[list[LedgerLine]]:
    """Run groups one after another; yield each group's ledger lines when its shards are written.

    Models stay loaded for the next run in the same process. A clip that crashes or hangs ends or blocks this process;
    `local_engine.run_groups` isolates such clips. Libraries use one thread, as in worker processes, so that
    the values are the same.
    """
    from threadpoolctl import threadpool_limits

    from triptych.pipeline.run.group import run_group

    for task in tasks:
        with threadpool_limits(1):
            lines = run_group(task, watch)
        yield lines
