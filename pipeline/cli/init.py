"""The command `init`: look at a source, and write what a first run needs."""

from __future__ import annotations

from pathlib import Path

import click

from triptych.pipeline.cli.help import Command
from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.lines import print_line
from triptych.pipeline.terminal.tables import print_table


@click.command(cls=Command, examples=("triptych init clips/",))
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="the current folder",
    help="Write recipe.toml and clips.csv into this folder.",
)
def init(source: Path, output: Path) -> None:
    """Look at clips, and write a first recipe and manifest.

    Prints what was found and what is missing on this machine, and the command to run next. Existing files are never
    replaced.
    """
    from triptych.pipeline.start.files import next_command, write_start
    from triptych.pipeline.start.survey import survey_source

    found = survey_source(source)
    print_table(("found", "value"), found.facts(), longest=None)
    if unusual := found.unusual():
        print_line()
        print_table(("unusual", "clips", "such as"), unusual)
    print_line()
    print_table(
        ("needed", "state", "detail"), [(f.what, f.state, f.detail) for f in found.findings], longest=None
    )
    print_line()
    for stage, why in found.left_out.items():
        print_line(f"{stage} is left out: {why}")
    if not found.stages:
        raise InputError(
            f"{source}: no stage can be extracted here. Install what is named above, and run init again"
        )
    recipe, manifest = write_start(found, output)
    print_line(
        f"wrote {recipe}, every setting with its default, and {manifest}, {len(found.manifest.clips)} clips"
    )
    print_line("next:")
    print_line(f"  {next_command(recipe, manifest)}")
