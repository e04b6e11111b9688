"""The commands that write and read other programs' feature files."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["mmsa", "csd"]), required=True, help="Whose file it is to be.")
@click.argument("destination", type=click.Path(path_type=Path))
def export(features: Path, to: str, destination: Path) -> None:
    """Write FEATURES for another program.

    With --to mmsa, DESTINATION is a pickle that MMSA opens as it is; which audio rows are voiced has no place in
    it, so that its log F0 of 0 counts as a value where it is read. With --to csd it is a folder, of
    computational sequences for CMU-MultimodalSDK: text.csd, audio.csd, vision.csd, labels.csd.
    """
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    if to == "csd":
        from triptych.pipeline.exchange.csd import export_csd

        for name, count in export_csd(store, destination).items():
            click.echo(f"{destination / name}.csd: {count} clips")
        return
    from triptych.pipeline.exchange.mmsa import export_mmsa

    done = export_mmsa(store, destination)
    clips = ", ".join(f"{count} {name}" for name, count in done.clips.items())
    rows = ", ".join(f"{length} {name}" for name, length in done.lengths.items())
    click.echo(f"{destination}: {clips} clips, padded or cut to {rows} rows")
    for note in done.notes:
        click.echo(note, err=True)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The feature folder.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    help="Divide labels by this: 3 for MOSI, MOSEI.",
)
def import_(file: Path, output: Path, scale: float) -> None:
    """Make a feature folder of FILE, a pickle in MMSA's layout such as unaligned_39.pkl.

    The file is read without running anything in it: one that holds more than numpy arrays and builtin
    containers is refused.
    """
    from triptych.pipeline.exchange.imported import import_mmsa

    done = import_mmsa(file, output, scale)
    clips = ", ".join(f"{count} {name}" for name, count in done.clips.items())
    columns = ", ".join(f"{width} {name}" for name, width in done.widths.items())
    click.echo(f"{output}: {clips} clips of {columns} columns")
    for note in done.notes:
        click.echo(note, err=True)
