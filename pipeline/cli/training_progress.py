"""Console output of experiments: the result's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from triptych.pipeline.trainer.experiments.document import Document


def finish(document: Document, output: Path) -> None:
    """Write an experiment's files, and print its Markdown."""
    written = document.write(output)
    click.echo(document.markdown(), nl=False)
    click.echo(f"written: {', '.join(map(str, written))}", err=True)
