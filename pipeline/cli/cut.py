"""The command cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import JOBS, SOME_FAILED
from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.lines import print_json, print_line

if TYPE_CHECKING:
    from triptych.extractors.cutting.settings import CutSettings
    from triptych.pipeline.cutting.run import CutResult


@click.command(
    cls=Command,
    sections={
        "What": ("seconds", "assignments", "table", "again"),
        "Clips": ("clips", "quality"),
        "Workers": ("jobs", "scheduler", "device"),
        "Printed": ("quiet", "verbose", "json"),
    },
    examples=(
        "triptych cut recordings/ -o dataset/",
        "triptych cut recordings/ -o dataset/ --clips none --seconds 2:8",
        "triptych cut -o dataset/ --from dataset/cuts.csv",
    ),
)
@click.argument("recordings", type=click.Path(path_type=Path), nargs=-1, metavar="[RECORDING...]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The data set's folder.")
@click.option("--seconds", metavar="SHORTEST:LONGEST", help="Length of clips [s]. [default: 1:10]")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change one setting, such as pause=0.4 or scenes.smallest_face=0.04; repeatable.",
)
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CUTS.csv",
    help="Cut by this table, which a person may have edited, instead of proposing cuts.",
)
@click.option("--again", is_flag=True, help="Propose cuts again, though the data set's table was edited.")
@click.option(
    "--clips",
    type=Choice(["copy", "encode", "none"]),
    default="copy",
    help="copy: without encoding where a key frame lies in the pause before a clip, else encoded; none: the manifest "
    "has spans of the recordings.",
)
@click.option(
    "--quality",
    type=click.IntRange(0, 51),
    default=14,
    metavar="CRF",
    help="Of encoded clips: x264's rate factor, 0 without loss.",
)
@JOBS
@click.option("--scheduler", metavar="ADDRESS", help="Analyse on the workers of this Dask scheduler.")
@click.option("--device", type=Choice(["cpu", "cuda"]), default="cpu", help="Device for neural networks.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing but errors; with --json, only the last line."
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line at the end of every recording.")
@click.option("--json", is_flag=True, help="Print each event, and at last the result, as a line of JSON.")
def cut(
    recordings: tuple[Path, ...],
    output: Path,
    seconds: str | None,
    assignments: tuple[str, ...],
    table: Path | None,
    again: bool,
    clips: str,
    quality: int,
    jobs: int,
    scheduler: str | None,
    device: str,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    """Cut recordings into clips of one face that speaks.

    The data set's folder has clips, a manifest for `triptych extract`, and cuts.csv: every span with the reason why it
    is no clip. Change that table and pass it by --from to overrule.
    """
    from triptych.pipeline.cutting.page import write_page
    from triptych.pipeline.cutting.run import TABLE, CutOptions, analysed
    from triptych.pipeline.cutting.run import cut as run_cut
    from triptych.pipeline.environment.device import check_device
    from triptych.pipeline.terminal.progress import RunProgress

    check_device(device)
    own, of_stages = _divided(assignments)
    options = CutOptions(_settings(seconds, own), table, again, clips, quality, of_stages)  # type: ignore[arg-type]
    todo = analysed(recordings, output, options)
    stages = list(todo.plan.stages)
    with RunProgress(
        len(todo.plan.work), quiet=quiet, verbose=verbose, as_json=json, stages=stages
    ) as progress:
        result = run_cut(
            recordings,
            output,
            options,
            jobs=jobs,
            scheduler=scheduler,
            device=device,
            watch=progress.update,
        )
    page = write_page(result.cuts, output, TABLE)
    if json:
        print_json(_document(result, page))
    elif not quiet:
        _print(result, output, page)
    if result.written.errors or any(plan.failed for plan in result.analysis.plan.stages.values()):
        _print_failed(result)
        sys.exit(SOME_FAILED)


def _divided(assignments: tuple[str, ...]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Divide assignments into those of this command, and those of its stages, whose names have a dot."""
    from triptych.pipeline.assignments import parse_value

    own: dict[str, object] = {}
    for each in assignments:
        name, equals, value = each.partition("=")
        if not equals:
            raise click.BadParameter(f"{each!r}: expected NAME=VALUE, such as pause=0.4")
        if "." not in name:
            own[name.strip()] = parse_value(value)
    return own, tuple(each for each in assignments if "." in each.partition("=")[0])


def _settings(seconds: str | None, own: dict[str, object]) -> CutSettings:
    from triptych.extractors.cutting.settings import CutSettings
    from triptych.pipeline.assignments import did_you_mean

    if seconds is not None:
        shortest, _, longest = seconds.partition(":")
        try:
            own |= {"min_seconds": float(shortest), "max_seconds": float(longest)}
        except ValueError:
            raise click.BadParameter(f"{seconds!r}: expected two numbers, such as 1:10") from None
    if unknown := [name for name in own if name not in CutSettings.model_fields]:
        known = list(CutSettings.model_fields)
        raise click.BadParameter(
            f"unknown setting {unknown[0]!r}; choose from {', '.join(known)}.{did_you_mean(unknown[0], known)}"
        )
    try:
        return CutSettings(**own)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'cut'}: {one['msg']}" for one in error.errors()]
        raise InputError(problems) from error


def _document(result: CutResult, page: Path) -> dict[str, object]:
    from triptych.pipeline.cutting.page import by_reason

    return {
        "event": "result",
        "recordings": len(result.analysis.given.clips),
        "seconds": round(result.seconds, 3),
        "clips": len(result.written.manifest.clips),
        "clip_seconds": round(sum(cut.seconds for cut in result.cuts if cut.keep), 3),
        "copied": result.written.copied,
        "encoded": result.written.encoded,
        "left_out": {
            reason: {"spans": spans, "seconds": round(seconds, 3)}
            for reason, (spans, seconds) in by_reason(result.cuts).items()
        },
        "failed": {id: str(error) for id, error in result.written.errors.items()},
        "changed_spans": list(result.written.new_texts),
        "page": str(page),
    }


def _print(result: CutResult, output: Path, page: Path) -> None:
    from triptych.pipeline.cutting.page import by_reason, clock
    from triptych.pipeline.terminal.tables import print_table

    taken = sum(cut.seconds for cut in result.cuts if cut.keep)
    clips, recordings = len(result.written.manifest.clips), len(result.analysis.given.clips)
    print_line(f"{clips} clips of {clock(taken)} from {recordings} recordings of {clock(result.seconds)}")
    if result.written.copied or result.written.encoded:
        print_line(f"{result.written.copied} without encoding, {result.written.encoded} encoded")
    rows = [(reason, spans, clock(seconds)) for reason, (spans, seconds) in by_reason(result.cuts).items()]
    if rows:
        print_table(("left out because", "spans", "time"), rows)
    if result.written.new_texts:
        print_line(
            f"{len(result.written.new_texts)} clips have another span now: transcribe them again, or look at their "
            f"transcripts: {', '.join(result.written.new_texts[:5])}"
        )
    print_line(f"clips: {output / 'manifest.csv'}; all spans: {output / 'cuts.csv'} and {page}")


def _print_failed(result: CutResult) -> None:
    for stage, plan in result.analysis.plan.stages.items():
        for line in plan.failed.values():
            print_line(f"{line.clip_id}: {stage} failed: {line.reason}: {line.detail}", err=True)
    for id, error in result.written.errors.items():
        print_line(f"{id}: no clip: {error}", err=True)
