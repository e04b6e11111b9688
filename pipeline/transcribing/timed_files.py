"""Transcripts with times as files: SubRip, WebVTT and Praat's TextGrid."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Literal

from triptych.pipeline.manifest.transcripts import TimedText

Format = Literal["srt", "vtt", "TextGrid"]


def srt(pieces: Sequence[TimedText], length: float) -> str:
    """Write SubRip: numbered pieces, each with its times and its text on one line."""
    blocks = [
        f"{number}\n{_stamp(piece.start, ',')} --> {_stamp(piece.end, ',')}\n{_line(piece.text)}\n"
        for number, piece in enumerate(pieces, 1)
    ]
    return "\n".join(blocks)


def web_vtt(pieces: Sequence[TimedText], length: float) -> str:
    """Write WebVTT; what its syntax uses in a text is escaped."""
    blocks = [
        f"{_stamp(piece.start, '.')} --> {_stamp(piece.end, '.')}\n{html.escape(_line(piece.text), quote=False)}\n"
        for piece in pieces
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def text_grid(pieces: Sequence[TimedText], length: float) -> str:
    """Write a TextGrid in its long form, with one tier whose intervals fill the whole length."""
    intervals: list[tuple[float, float, str]] = []
    at = 0.0
    for piece in pieces:
        start, end = max(piece.start, at), min(piece.end, length)
        if end <= start:
            continue
        if start > at:
            intervals.append((at, start, ""))
        intervals.append((start, end, _line(piece.text)))
        at = end
    if at < length or not intervals:
        intervals.append((at, max(length, at), ""))
    head = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {intervals[-1][1]:.3f}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "text"',
        "        xmin = 0",
        f"        xmax = {intervals[-1][1]:.3f}",
        f"        intervals: size = {len(intervals)}",
    ]
    body = [
        f"        intervals [{number}]:\n            xmin = {start:.3f}\n            xmax = {end:.3f}\n"
        f'            text = "{text.replace(chr(34), chr(34) * 2)}"'
        for number, (start, end, text) in enumerate(intervals, 1)
    ]
    return "\n".join([*head, *body]) + "\n"


WRITERS: dict[Format, Callable[[Sequence[TimedText], float], str]] = {
    "srt": srt,
    "vtt": web_vtt,
    "TextGrid": text_grid,
}


def _stamp(seconds: float, point: str) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _line(text: str) -> str:
    return " ".join(text.split())
