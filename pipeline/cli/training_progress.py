"""What a user is told of trainings as they run, and of what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from triptych.pipeline.trainer.experiments.document import Document
    from triptych.pipeline.trainer.runs.jobs import Job


def finish(document: Document, output: Path) -> None:
    """Write an experiment's files, and print its Markdown."""
    written = document.write(output)
    click.echo(document.markdown(), nl=False)
    click.echo(f"written: {', '.join(map(str, written))}", err=True)


class TrainingProgress:
    """Tells of each training as it ends, on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.found = total, 0, 0

    def __call__(self, job: Job, result: dict[str, Any], there_before: bool) -> None:
        self.done += 1
        self.found += there_before
        if there_before:
            if self.done == self.total:
                click.echo(f"{self.found}/{self.total} trainings were done before", err=True)
            return
        told = (
            result.get("diverged")
            or f"{result['epochs']['run']} epochs, valid MAE {result['valid_loss']:.4f}"
        )
        place = f"{self.done}/{self.total}" + (f" ({self.found} done before)" if self.found else "")
        click.echo(f"{place}: {job.name}, seed {job.seed}: {told}, {result['seconds']:.0f} s", err=True)
