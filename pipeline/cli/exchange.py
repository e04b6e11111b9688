"""`triptych export`, `import` and `openface-csv`: feature files of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import FEATURES, LABEL_RANGE, STREAM_OPTIONS, read_stages
from triptych.pipeline.storage.streams import ALIGNMENTS, Streams
from triptych.pipeline.terminal.lines import print_line

if TYPE_CHECKING:
    from triptych.pipeline.storage.store import FeatureStore


TABLES, SHARDED, STREAMED = ("csv", "parquet"), ("webdataset", "hf"), ("mmsa", "csd")  # formats of --to


@click.command(
    cls=Command,
    examples=(
        "triptych export features/ --to mmsa sims.pkl",
        "triptych export features/ --to mmsa aligned_39.pkl --align words",
        "triptych export features/ --to csd sequences/ --audio speech",
        "triptych export features/ --to csv tables/ --summary",
        "triptych export features/ --to hf dataset/",
    ),
)
@FEATURES
@click.option("--to", type=Choice([*TABLES, *SHARDED, *STREAMED]), required=True, help="Format to write.")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--only",
    callback=read_stages,
    metavar="STAGE,STAGE,...",
    help="Tables and shards: only these stages. [default: all with features]",
)
@click.option("--summary", is_flag=True, help="Tables: statistics of each clip instead of its rows.")
@click.option(
    "--by",
    metavar="video|COLUMN",
    help="With --summary: statistics of each video, or of the clips with one value in this column.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="The table of clips that has the column of --by. [default: the folder's manifest.csv]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Shards: start a new file at this size. [default: 256]",
)
@click.option(
    "--align",
    type=Choice(list(ALIGNMENTS)),
    default="none",
    help="MMSA: words gives each token the audio and vision of its word, by the stage words.",
)
@STREAM_OPTIONS
def export(features: Path, to: str, destination: Path, streams: Streams, align: str, **options: Any) -> None:
    """Write features in the formats of other programs.

    With --to csv and --to parquet, DESTINATION is a folder of tables for pandas, polars and R: a table of rows for
    each stage, or with --summary a row of statistics for each clip.

    With --to webdataset, it is a folder of tar shards, a sample for each clip; with --to hf, a folder that
    datasets.load_dataset opens.

    With --to mmsa, DESTINATION is a pickle that MMSA opens as it is. Its keys are text, audio and vision,
    also if other stages fill them. The format cannot mark unvoiced audio rows, so MMSA takes their log F0 of 0 for a
    measured value.

    With --to csd, DESTINATION is a folder of computational sequences for CMU-MultimodalSDK: a file for each
    stage, such as audio.csd, and labels.csd.
    """
    from triptych.pipeline.storage.store import FeatureStore

    if align != "none" and to != "mmsa":
        raise click.UsageError("--align needs --to mmsa")
    _check_options(to, streams, **options)
    store = FeatureStore(features)
    if to in TABLES:
        _export_tables(store, to, destination, **options)
    elif to in SHARDED:
        _export_shards(store, to, destination, options["only"], options["shard_size"])
    elif to == "csd":
        from triptych.pipeline.exchange.csd import export_csd

        for name, count in export_csd(store, destination, streams).items():
            print_line(f"{destination / name}.csd: {count} clips")
    else:
        _export_mmsa(store, destination, streams._replace(align=align))


def _check_options(
    to: str,
    streams: Streams,
    only: tuple[str, ...] | None,
    summary: bool,
    by: str | None,
    table: Path | None,
    shard_size: int | None,
) -> None:
    """Refuse options that the format does not read."""
    problems = {
        "--summary needs --to csv or --to parquet": summary and to not in TABLES,
        "--by needs --summary, such as --summary --by video": by and not summary,
        "--table needs --by COLUMN": table and not by,
        "--shard-size needs --to webdataset or --to hf": shard_size and to not in SHARDED,
        f"--only: --to {to} reads three stages; name them by --text, --audio and --vision": only
        and to in STREAMED,
        f"--text, --audio and --vision are for --to mmsa and --to csd; with --to {to} use --only STAGE,...": (
            streams != Streams() and to not in STREAMED
        ),
    }
    for problem, applies in problems.items():
        if applies:
            raise click.UsageError(problem)


def _export_tables(
    store: FeatureStore,
    to: str,
    destination: Path,
    only: tuple[str, ...] | None,
    summary: bool,
    by: str | None,
    table: Path | None,
    **_: Any,
) -> None:
    if summary:
        from triptych.pipeline.exchange.summary_tables import export_summary, groups_by

        groups = groups_by(store, by, table) if by else None
        counts = export_summary(store, destination, to, only, groups)
    else:
        from triptych.pipeline.exchange.row_tables import export_rows

        counts = export_rows(store, destination, to, only)
    for name, count in counts.items():
        print_line(f"{destination / name}: {count} rows")


def _export_shards(
    store: FeatureStore, to: str, destination: Path, only: tuple[str, ...] | None, mebibytes: int | None
) -> None:
    from triptych.pipeline.exchange.hf import export_hf
    from triptych.pipeline.exchange.tar_shards import SHARD_SIZE, export_tar_shards

    size = mebibytes * 2**20 if mebibytes else SHARD_SIZE
    counts = (export_hf if to == "hf" else export_tar_shards)(store, destination, only, size)
    for name, count in counts.items():
        print_line(f"{destination / name}: {count} clips" if to == "webdataset" else f"{name}: {count} clips")


def _export_mmsa(store: FeatureStore, destination: Path, streams: Streams) -> None:
    from triptych.pipeline.exchange.mmsa import export_mmsa

    done = export_mmsa(store, destination, streams)
    clips = ", ".join(f"{count} {name}" for name, count in done.clips.items())
    rows = ", ".join(f"{length} {name}" for name, length in done.lengths.items())
    print_line(f"{destination}: {clips} clips, padded or cut to {rows} rows")
    _print_notes(done.notes)


@click.command(
    "openface-csv",
    cls=Command,
    examples=(
        "triptych openface-csv features/ -o csv/",
        "triptych openface-csv features/ -o csv/ 'video_0001$_$0001'",
    ),
)
@FEATURES
@click.argument("clips", nargs=-1, metavar="[CLIP]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the CSV files."
)
@click.option("--no-spaces", is_flag=True, help="Separate by a comma alone, as later builds of OpenFace do.")
def openface_csv(features: Path, clips: tuple[str, ...], output: Path, no_spaces: bool) -> None:
    """Write vision features as CSV files of OpenFace.

    They have OpenFace's 714 columns in its order, with its number of digits, so that programs written for
    OpenFace read them. Without CLIP, all clips with vision features are written.
    """
    from triptych.pipeline.exchange.openface_csv import export_openface_csv
    from triptych.pipeline.storage.store import FeatureStore

    done = export_openface_csv(FeatureStore(features), output, clips, spaces=not no_spaces)
    print_line(f"{output}: {done.files} CSV files")
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
