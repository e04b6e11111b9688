"""The command `inspect`: one clip on the terminal, and as an overlay video."""

from __future__ import annotations

import math
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.remedies import REMEDIES
from triptych.pipeline.cli.help import Command
from triptych.pipeline.cli.options import AS_JSON, FAILED, FEATURES
from triptych.pipeline.terminal.lines import print_json, print_line
from triptych.pipeline.terminal.sparklines import sparkline
from triptych.pipeline.terminal.tables import print_table

if TYPE_CHECKING:
    from triptych.pipeline.manifest.clips import Clip
    from triptych.pipeline.report.clip_summary import ClipSummary, StageSummary
    from triptych.pipeline.report.overlay import Overlay
    from triptych.pipeline.storage.store import FeatureStore

WIDTH = 80  # columns of a terminal
NAME_WIDTH, CURVE_WIDTH = 11, 44


@click.command(
    cls=Command,
    examples=(
        "triptych inspect features/ video_0001/0001",
        "triptych inspect features/ video_0001/0001 --video overlay.mp4",
    ),
)
@FEATURES
@click.argument("clip", metavar="CLIP")
@click.option(
    "--video",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.mp4",
    help="Also write the clip as a video with its face, landmarks, gaze, action units, pitch and transcript on it.",
)
@AS_JSON
def inspect(features: Path, clip: str, video: Path | None, json: bool) -> None:
    """Show one clip: its rows, curves and notes.

    CLIP is an id, video/clip, a path, or any part of these that no other clip has.
    """
    from triptych.pipeline.manifest.find import find_clip
    from triptych.pipeline.report.clip_summary import summarise
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(features)
    found = find_clip(store.manifest.clips, clip, str(features))
    summary = summarise(store, found)
    if not json:
        _print_summary(summary)
    written = _overlay(store, found, video, summary.vision_note) if video else None
    if json:
        print_json(_document(summary, written))
    elif written:
        for note in written.notes:
            print_line(f"note: {note}", err=True)
        print_line(f"{written.frames} frames, {written.seconds:.2f} s in {written.path}", err=True)


def _overlay(store: FeatureStore, clip: Clip, path: Path, vision_note: str) -> Overlay:
    from triptych.pipeline.report.overlay import write_overlay

    try:
        return write_overlay(store, clip, path, vision_note)
    except ExtractionError as error:
        remedy = REMEDIES.get(Reason(error.reason), "")
        print_line(f"error: {error.detail}.{f' {remedy}.' if remedy else ''}", err=True)
        sys.exit(FAILED)


def _document(summary: ClipSummary, written: Overlay | None) -> dict[str, Any]:
    clip = summary.clip
    document: dict[str, Any] = {
        "clip": clip.id,
        "path": str(clip.file),
        "seconds": summary.seconds,
        "split": clip.split,
        "labels": summary.labels,
        "text": clip.text,
        "stages": {stage.stage: asdict(stage) for stage in summary.stages},
    }
    if written:
        document["video"] = {**asdict(written), "path": str(written.path)}
    return document


def _print_summary(summary: ClipSummary) -> None:
    clip = summary.clip
    length = "" if summary.seconds is None else f", {summary.seconds:.2f} s"
    split = f", split {clip.split}" if clip.split else ""
    missing = "" if clip.file.is_file() else " (missing)"
    print_line(f"{clip.id}{length}{split}")
    print_line(f"{clip.file}{missing}")
    if summary.labels:
        print_line(", ".join(f"{name} {value:g}" for name, value in summary.labels.items()))
    for line in _wrapped(clip.text or "no transcript", WIDTH):
        print_line(line)
    print_line()
    print_table(
        ("stage", "state", "rows", "seconds", "usable"),
        [
            (one.stage, one.state, one.rows or None, _two(one.seconds), _percent(one.usable))
            for one in summary.stages
        ],
    )
    columns = [(stage.stage, column) for stage in summary.stages for column in stage.columns]
    if columns:
        print_line()
        print_table(
            ("stage", "column", "unit", "mean", "sd", "min", "max"),
            [
                (stage, one.name, one.unit, *(_short(n) for n in (one.mean, one.sd, one.min, one.max)))
                for stage, one in columns
            ],
        )
    _print_curves(summary)
    _print_remarks(summary.stages)


def _print_curves(summary: ClipSummary) -> None:
    if summary.seconds is None or not summary.traces:
        return
    print_line()
    for trace in summary.traces:
        values = trace.binned(summary.seconds, CURVE_WIDTH)
        known = [value for value in trace.values.tolist() if math.isfinite(value)]
        span = f"{_short(min(known))} to {_short(max(known))}" if known else "no usable row"
        unit = f" {trace.unit}" if known and trace.unit.isalpha() and len(trace.unit) < 7 else ""
        print_line(f"{trace.name[:NAME_WIDTH]:<{NAME_WIDTH}} {sparkline(values)} {span}{unit}".rstrip())
    end = f"{summary.seconds:.2f} s"
    print_line(f"{'':<{NAME_WIDTH}} {'0 s':<{CURVE_WIDTH - len(end)}}{end}")


def _print_remarks(stages: tuple[StageSummary, ...]) -> None:
    remarks = []
    for one in stages:
        if one.state == "failed":
            remedy = f" {one.remedy}." if one.remedy else ""
            remarks.append(f"{one.stage} failed, {one.reason}: {one.detail}.{remedy}")
        if one.note:
            remarks.append(f"{one.stage}, note: {one.note}")
    if remarks:
        print_line()
    for remark in remarks:
        for line in _wrapped(remark, WIDTH):
            print_line(line)


def _two(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f} %"


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines that fit a terminal; a Chinese character takes two columns."""
    lines, line, taken = [], "", 0
    for word in _pieces(text):
        needed = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in word)
        if taken + needed > width and line:
            lines.append(line.rstrip())
            line, taken, word = "", 0, word.lstrip()
        line, taken = line + word, taken + needed
    return [*lines, line.rstrip()]


def _pieces(text: str) -> list[str]:
    """Split a text where a line may end: at spaces, and at each wide character."""
    pieces = [""]
    for each in text:
        wide = [unicodedata.east_asian_width(one) in "WF" for one in (each, pieces[-1][-1:] or "a")]
        if each.isspace() or any(wide):
            pieces.append(each)
        else:
            pieces[-1] += each
    return pieces
