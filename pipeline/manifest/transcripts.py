"""Transcripts beside clips: plain text, subtitles (SRT, WebVTT, LRC) and Praat's TextGrid.

The libraries that read these formats read one format each, and differ in what they do with tags and damaged files; the
parts needed here are a few lines.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.encoding import decode


class TimedText(NamedTuple):
    """A piece of a transcript.

    Attributes
    ----------
    start, end
        Its time [s]; `end` is NaN where the format has none.
    text
        Its text, without markup.
    """

    start: float
    end: float
    text: str


def find_transcripts(names: Iterable[str]) -> dict[str, str]:
    """Choose the transcript of each clip among the files of one folder.

    Returns
    -------
    dict of str to str
        By the stem of the clip's name, in Unicode's composed form (NFC): the name of the transcript's file. Plain text
        comes before timed text.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        ending = PurePath(name).suffix.lower()
        if ending in TRANSCRIPT_ENDINGS:
            stem = clip_stem(PurePath(name).stem)
            before = found.get(stem)
            if before is None or _rank(name) < _rank(before):
                found[stem] = name
    return found


def clip_stem(stem: str) -> str:
    """Return a name without its ending in composed form: macOS writes decomposed names, other systems do not."""
    return unicodedata.normalize("NFC", stem)


def read_transcript(file: Path) -> str:
    """Read a transcript as one text: pieces of timed text are joined by blanks.

    Raises
    ------
    InputError
        The encoding is unknown, or no piece of timed text is found.
    OSError
        The file cannot be read.
    """
    if file.suffix.lower() == ".txt":
        return decode(file.read_bytes(), str(file))
    return " ".join(piece.text for piece in timed_transcript(file))


def timed_transcript(file: Path) -> list[TimedText]:
    """Read the pieces of a transcript with their times, for example for word alignment.

    Raises
    ------
    InputError
        The file is in none of the formats, or has no piece of text.
    OSError
        The file cannot be read.
    """
    parse = _PARSERS.get(file.suffix.lower())
    if parse is None:
        raise InputError(f"{file}: no times in this format; expected {', '.join(_PARSERS)}")
    text = decode(file.read_bytes(), str(file)).replace("\r\n", "\n").replace("\r", "\n")
    pieces = [piece for piece in parse(text) if piece.text]
    if not pieces and text.strip():
        raise InputError(
            f"{file}: no text with times found; check that it is a {file.suffix} file, or save the text as .txt"
        )
    return pieces


_CUE = re.compile(
    r"^[ \t]*((?:\d+:)?\d+:\d+[.,]\d+)[ \t]*-->[ \t]*((?:\d+:)?\d+:\d+[.,]\d+).*\n((?:.*\S.*(?:\n|$))*)",
    re.MULTILINE,
)
_MARKUP = re.compile(r"<[^<>\n]*>|\{\\[^{}\n]*\}")
_LYRIC = re.compile(r"^((?:\[\d+:\d+(?:[.:]\d+)?\])+)(.*)$", re.MULTILINE)
_INTERVAL = re.compile(r'xmin = ([\d.eE+-]+)\s+xmax = ([\d.eE+-]+)\s+text = "((?:[^"]|"")*)"')
_SHORT_INTERVAL = re.compile(r'^([\d.]+)\n([\d.]+)\n"((?:[^"]|"")*)"', re.MULTILINE)


def _seconds(stamp: str) -> float:
    total = 0.0
    for part in stamp.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


def _subtitles(text: str) -> list[TimedText]:
    """Read SRT and WebVTT: cues of a line of times and lines of text."""
    return [
        TimedText(_seconds(start), _seconds(end), _clean(_MARKUP.sub("", lines)))
        for start, end, lines in _CUE.findall(text)
    ]


def _lyrics(text: str) -> list[TimedText]:
    """Read LRC: lines that begin with one or more times; a line ends where the next one begins."""
    lines = sorted(
        (_seconds(re.sub(r":(?=\d+$)", ".", stamp) if stamp.count(":") > 1 else stamp), _clean(line))
        for stamps, line in _LYRIC.findall(text)
        for stamp in re.findall(r"\[([^\]]+)\]", stamps)
    )
    ends = [start for start, _ in lines[1:]] + [math.nan]
    return [
        TimedText(start, end, _clean(re.sub(r"<\d+:\d+(?:\.\d+)?>", "", line)))
        for (start, line), end in zip(lines, ends, strict=False)
    ]


def _text_grid(text: str) -> list[TimedText]:
    """Read the first tier of intervals of a TextGrid, in its long or its short form."""
    long = "intervals [" in text or "item [" in text
    tiers = re.split(r'"IntervalTier"', text)[1:]
    for tier in tiers:
        found = (_INTERVAL if long else _SHORT_INTERVAL).findall(tier)
        pieces = [
            TimedText(float(start), float(end), _clean(label.replace('""', '"')))
            for start, end, label in found
        ]
        if any(piece.text for piece in pieces):
            return pieces
    return []


def _clean(text: str) -> str:
    return " ".join(text.split())


_PARSERS: dict[str, Callable[[str], list[TimedText]]] = {
    ".srt": _subtitles,
    ".vtt": _subtitles,
    ".lrc": _lyrics,
    ".textgrid": _text_grid,
}
TRANSCRIPT_ENDINGS = (".txt", *_PARSERS)


def _rank(name: str) -> int:
    return TRANSCRIPT_ENDINGS.index(PurePath(name).suffix.lower())
