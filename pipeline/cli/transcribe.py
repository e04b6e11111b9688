"""The command transcribe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triptych.pipeline.cli.help import Choice, Command
from triptych.pipeline.cli.options import JOBS, RECIPE_SETTINGS, SOME_FAILED, SOURCES
from triptych.pipeline.terminal.lines import print_json, print_line

if TYPE_CHECKING:
    from triptych.pipeline.run.extraction import Extraction
    from triptych.pipeline.transcribing.texts import Transcribed

UNSURE = 0.5
LISTED = 5


@click.command(
    cls=Command,
    sections={
        "What": ("output", "model", "language", "backend", "assignments", "limit"),
        "Again": ("again", "dry_run"),
        "Files": ("form", "corrections", "folder"),
        "Workers": ("jobs", "scheduler", "device"),
        "Printed": ("quiet", "verbose", "json"),
    },
    examples=(
        "triptych transcribe dataset/ --language zh",
        "triptych transcribe dataset/ --to srt --folder subtitles/",
        "triptych transcribe dataset/ --from subtitles/",
        "triptych transcribe dataset/ --again --model openai/whisper-large-v3",
        "triptych transcribe clips/ -o clips.csv --backend pocketsphinx",
    ),
)
@SOURCES
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The manifest to write. [default: that of the data set]",
)
@click.option(
    "--model", metavar="NAME|FOLDER", help="A Whisper or CTC model. [default: openai/whisper-small]"
)
@click.option(
    "--language", metavar="CODE", help="The language that is spoken, such as zh. [default: detected]"
)
@click.option("--backend", type=Choice(["transformers", "pocketsphinx"]), help="The recogniser.")
@click.option("--set", "assignments", **RECIPE_SETTINGS, help="Change one setting; repeatable.")
@click.option(
    "--to",
    "form",
    type=Choice(["srt", "vtt", "TextGrid"]),
    help="Recognise nothing: write the transcripts as files for people who correct them.",
)
@click.option(
    "--from",
    "corrections",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Recognise nothing: read corrected transcripts (.srt, .vtt, .TextGrid, .txt) from a folder.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --to: where to write. [default: subtitles/ beside the manifest]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N clips without.")
@click.option(
    "--again",
    is_flag=True,
    help="Also replace transcripts that a recogniser has made, never those of people or corrected ones.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be recognised, and why; write no transcript.")
@JOBS
@click.option("--scheduler", metavar="ADDRESS", help="Recognise on the workers of this Dask scheduler.")
@click.option("--device", type=Choice(["cpu", "cuda"]), default="cpu", help="Device for neural networks.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing but errors; with --json, only the last line."
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line at the end of every clip.")
@click.option("--json", is_flag=True, help="Print each event, and at last the result, as a line of JSON.")
def transcribe(
    sources: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    language: str | None,
    backend: str | None,
    assignments: tuple[str, ...],
    form: str | None,
    corrections: Path | None,
    folder: Path | None,
    limit: int | None,
    again: bool,
    dry_run: bool,
    jobs: int,
    scheduler: str | None,
    device: str,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    """Transcribe the clips that have no transcript.

    SOURCE is a data set's folder that `triptych cut` made, or any source with -o. The manifest names the recogniser of
    each transcript; what a person has written or corrected stays.
    """
    from triptych.pipeline.cli.summary import print_dry_run
    from triptych.pipeline.environment.device import check_device
    from triptych.pipeline.terminal.progress import RunProgress
    from triptych.pipeline.transcribing.run import place_of, plan
    from triptych.pipeline.transcribing.run import transcribe as run_transcribe

    if form and corrections:
        raise click.UsageError("--to and --from exclude each other; give one of them")
    if folder and not form:
        raise click.UsageError("--folder needs --to, such as --to srt")
    check_device(device)
    place = place_of(sources, output)
    if form or corrections:
        _exchange(place, form, corrections, folder)
        return
    named = {"model": model, "language": language, "backend": backend}
    own = [f"asr.{name}={value}" for name, value in named.items() if value is not None]
    if model is not None:
        own.append("asr.revision=")  # the default revision is that of the default model
    todo = plan(place, [*own, *assignments], again=again, limit=limit, dry_run=dry_run)
    if dry_run:
        if todo is None:
            print_line(f"{place.manifest}: no clip to transcribe")
        else:
            print_dry_run(todo, json)
        return
    count = 0 if todo is None else len(todo.plan.work)
    stages = [] if todo is None else list(todo.plan.stages)
    with RunProgress(count, quiet=quiet, verbose=verbose, as_json=json, stages=stages) as progress:
        done, todo = run_transcribe(
            place, todo, jobs=jobs, scheduler=scheduler, device=device, watch=progress.update
        )
    if json:
        print_json(_document(done, todo, place.manifest))
    elif not quiet:
        _print(done, todo, place.manifest)
    if todo is not None and todo.plan.stages["asr"].failed:
        for line in todo.plan.stages["asr"].failed.values():
            print_line(f"{line.clip_id}: {line.reason}: {line.detail}", err=True)
        sys.exit(SOME_FAILED)


def _exchange(place: object, form: str | None, corrections: Path | None, folder: Path | None) -> None:
    from triptych.pipeline.manifest.writing import write_manifest
    from triptych.pipeline.transcribing.correction_files import read_files, write_files
    from triptych.pipeline.transcribing.run import Place, heard
    from triptych.pipeline.transcribing.texts import corrected

    assert isinstance(place, Place)
    manifest = place.clips
    if form:
        target = folder or place.manifest.with_name("subtitles")
        written = write_files(manifest, heard(place), form, target)  # type: ignore[arg-type]
        print_line(f"{len(written)} files in {target}; after correction: --from {target}")
    elif corrections:
        manifest, changed = corrected(manifest, read_files(manifest, corrections))
        write_manifest(manifest, place.manifest)
        print_line(f"{len(changed)} transcripts changed in {place.manifest}")


def _unsure(done: Transcribed) -> list[tuple[str, float]]:
    known = [(clip.id, clip.text_confidence) for clip in done.manifest.clips if clip.text_confidence < UNSURE]
    return sorted(known, key=lambda one: one[1])


def _document(done: Transcribed, todo: Extraction | None, manifest: Path) -> dict[str, object]:
    return {
        "event": "result",
        "manifest": str(manifest),
        "by_recogniser": len(done.by_machine),
        "by_people": len(done.by_people),
        "corrected": len(done.corrected),
        "without": list(done.empty),
        "unsure": dict(_unsure(done)),
        "failed": [] if todo is None else sorted(todo.plan.stages["asr"].failed),
    }


def _print(done: Transcribed, todo: Extraction | None, manifest: Path) -> None:
    print_line(
        f"{manifest}: {len(done.by_machine)} transcripts by a recogniser, {len(done.by_people)} by people, "
        f"{len(done.corrected)} corrected, {len(done.empty)} clips without"
    )
    unsure = _unsure(done)
    if unsure:
        named = ", ".join(f"{id} ({confidence:.2f})" for id, confidence in unsure[:LISTED])
        print_line(f"{len(unsure)} with a confidence below {UNSURE:g}, to look at first: {named}")
