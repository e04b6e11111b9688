"""The command manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from triptych.pipeline.cli.help import Command
from triptych.pipeline.cli.options import LABEL_RANGE, SOURCES
from triptych.pipeline.stages.stored import STORED
from triptych.pipeline.terminal.lines import print_line


@click.command(
    cls=Command,
    examples=(
        "triptych manifest clips/",
        "triptych manifest clips/ --split 6:2:2 --by video -o clips.csv",
    ),
)
@SOURCES
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of stdout.",
)
@click.option(
    "--split",
    metavar="TRAIN:VALID:TEST",
    help="Assign clips without a split by these ratios, such as 6:2:2.",
)
@click.option(
    "--by",
    metavar="video|COLUMN",
    help="With --split: clips of one video, or with one value in this column of the table, stay in one split.",
)
@click.option("--anew", is_flag=True, help="Ignore existing splits and assign all clips.")
@click.option("--seed", default=0, help="Seed of the random assignment.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the clips' relative paths start from on this machine.",
)
@LABEL_RANGE
def manifest(
    sources: tuple[Path, ...],
    output: Path | None,
    split: str | None,
    by: str | None,
    anew: bool,
    seed: int,
    root: Path | None,
    label_range: tuple[float, float] | None,
) -> None:
    """List clips: ids, paths, transcripts, splits, labels.

    SOURCE is a folder of clips with their transcripts beside them, a data set (CH-SIMS, MOSI, MOSEI, MELD), a
    table (CSV, TSV, xlsx, JSONL), a media file, or a pattern such as "clips/*.mp4". There may be several.
    """
    from triptych.pipeline.manifest.groups import assign_grouped_splits, read_groups
    from triptych.pipeline.manifest.loading import load_manifest
    from triptych.pipeline.manifest.splits import assign_splits, empty_splits, parse_ratio
    from triptych.pipeline.manifest.writing import write_manifest

    if by and not split:
        raise click.UsageError("--by needs --split, such as --split 6:2:2 --by video")
    if anew and not split:
        raise click.UsageError("--anew needs --split, such as --split 6:2:2 --anew")
    ratios = parse_ratio(split) if split else None
    # A feature folder's own manifest may be on a machine without the videos, or of imported features.
    own = all(source.name == "manifest.csv" and (source.parent / STORED).is_file() for source in sources)
    found = load_manifest(sources, root=root, check_files=not own, label_range=label_range)
    if ratios:
        if anew:
            found = found.without_splits()
        if by:
            found = assign_grouped_splits(found, read_groups(sources, found, by), ratios, seed)
        else:
            found = assign_splits(found, ratios, seed)
        if empty := empty_splits(found, ratios):
            print_line(
                f"warning: no clip for {' and '.join(empty)}: {len(found.clips)} clips are too few for {split}"
                f"{', or the groups are too large' if by else ''}",
                err=True,
            )
    write_manifest(found, output or sys.stdout)
    if output:
        print_line(f"{len(found.clips)} clips in {output}", err=True)
    if whose_texts := found.text_sources:
        print_line(
            "transcripts: " + ", ".join(f"{count} {whose}" for whose, count in whose_texts.items()), err=True
        )
