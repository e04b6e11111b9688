"""Console output of trainings: progress lines, and the result's files."""

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
    """Prints a line for each training when it ends, on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.reused = total, 0, 0

    def __call__(self, job: Job, result: dict[str, Any], saved_before: bool) -> None:
        self.done += 1
        self.reused += saved_before
        if saved_before:
            if self.done == self.total:
                click.echo(f"{self.reused}/{self.total} trainings were done before", err=True)
            return
        outcome = (
            result.get("diverged")
            or f"{result['epochs']['run']} epochs, valid MAE {result['valid_loss']:.4f}"
        )
        count = f"{self.done}/{self.total}" + (f" ({self.reused} done before)" if self.reused else "")
        click.echo(f"{count}: {job.name}, seed {job.seed}: {outcome}, {result['seconds']:.0f} s", err=True)
