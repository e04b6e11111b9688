"""The command report."""

from __future__ import annotations

from pathlib import Path

import click

from triptych.pipeline.cli.help import Command
from triptych.pipeline.cli.options import FEATURES
from triptych.pipeline.terminal.lines import print_line


@click.command(cls=Command, examples=("triptych report features/ -o report.html",))
@FEATURES
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    help="The HTML file.",
)
def report(features: Path, output: Path) -> None:
    """Write a report of all clips as one HTML file.

    It shows coverage, failures, distributions, labels, outliers, and every clip with its curves and frames. Of a data
    set that `triptych cut` made, it shows every span of the recordings, and why those that are no clips were left out.
    """
    if (features / "cuts.csv").is_file():
        _report_cuts(features, output)
        return
    from rich.console import Console
    from rich.progress import Progress

    from triptych.pipeline.report.html import write_report

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring clips", total=None)
        written = write_report(
            features, output, lambda done, of: progress.update(task, completed=done, total=of)
        )
    print_line(
        f"{output}: {written.clips} clips, {written.series} with curves, {written.strips} with frames, "
        f"{written.size / 1e6:.1f} MB"
    )


def _report_cuts(dataset: Path, output: Path) -> None:
    from triptych.pipeline.cutting.cuts import read_cuts
    from triptych.pipeline.cutting.page import write_page
    from triptych.pipeline.cutting.run import TABLE

    cuts = read_cuts(dataset / TABLE, None)
    write_page(cuts, dataset, TABLE, output)
    print_line(
        f"{output}: {sum(cut.keep for cut in cuts)} clips, {sum(not cut.keep for cut in cuts)} spans left out"
    )
