"""`triptych export` and `triptych import`: feature files of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import FEATURES, LABEL_RANGE, STREAM_OPTIONS
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.terminal.lines import print_line


@click.command(
    cls=Command,
    examples=(
        "triptych export features/ --to mmsa sims.pkl",
        "triptych export features/ --to csd sequences/ --audio speech",
    ),
)
@FEATURES
@click.option("--to", type=Choice(["mmsa", "csd"]), required=True, help="Format to write.")
@click.argument("destination", type=click.Path(path_type=Path))
@STREAM_OPTIONS
def export(features: Path, to: str, destination: Path, streams: Streams) -> None:
    """Write a feature folder in another program's format.

    With --to mmsa, DESTINATION is a pickle that MMSA opens as it is. Its keys are text, audio and vision,
    also if other stages fill them. The format cannot mark unvoiced audio rows, so MMSA takes their log F0 of 0 for a
    measured value.

    With --to csd, DESTINATION is a folder of computational sequences for CMU-MultimodalSDK: a file for each
    stage, such as audio.csd, and labels.csd.
    """
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    if to == "csd":
        from triptych.pipeline.exchange.csd import export_csd

        for name, count in export_csd(store, destination, streams).items():
            print_line(f"{destination / name}.csd: {count} clips")
        return
    from triptych.pipeline.exchange.mmsa import export_mmsa

    done = export_mmsa(store, destination, streams)
    clips = ", ".join(f"{count} {name}" for name, count in done.clips.items())
    rows = ", ".join(f"{length} {name}" for name, length in done.lengths.items())
    print_line(f"{destination}: {clips} clips, padded or cut to {rows} rows")
    _print_notes(done.notes)


@click.command("import", cls=Command, examples=("triptych import unaligned_39.pkl -o published/",))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Feature folder to create."
)
@LABEL_RANGE
def import_(file: Path, output: Path, label_range: tuple[float, float] | None) -> None:
    """Make a feature folder from a pickle of MMSA.

    FILE is in MMSA's layout, such as unaligned_39.pkl.

    Nothing in the file is executed: a pickle that holds anything but numpy arrays and builtin containers is
    refused.
    """
    from triptych.pipeline.exchange.imported import import_mmsa

    done = import_mmsa(file, output, label_range)
    clips = ", ".join(f"{count} {name}" for name, count in done.clips.items())
    columns = ", ".join(f"{width} {name}" for name, width in done.widths.items())
    print_line(f"{output}: {clips} clips of {columns} columns")
    _print_notes(done.notes)


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print_line(f"note: {note}", err=True)
