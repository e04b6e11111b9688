"""Transcripts beside clips: plain text, subtitles (SRT, WebVTT, LRC) and Praat's TextGrid.

The libraries that read these formats read one format each, and differ in what they do with tags and damaged files; the
parts needed here are a few lines.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.encoding import decode
from triptych.pipeline.manifest.names import ending, stem
from triptych.pipeline.manifest.text_grid import spoken_tier, text_grid_tiers


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


def find_transcripts(names: Iterable[str]) -> dict[str, list[str]]:
    """Find the transcripts of each clip among the files of one folder.

    Returns
    -------
    dict of str to list of str
        By the stem of the clip's name, in Unicode's composed form (NFC): the names of the transcripts. Plain text comes
        before timed text.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(filter(is_transcript, names), key=_rank):
        found.setdefault(clip_stem(stem(name)), []).append(name)
    return found


def is_transcript(name: str) -> bool:
    """Return whether a file's name is that of a transcript."""
    return not name.startswith(".") and ending(name) in TRANSCRIPT_ENDINGS


def clip_stem(name: str) -> str:
    """Return a name without its ending in composed form: macOS writes decomposed names, other systems do not."""
    return unicodedata.normalize("NFC", name)


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
    if file.suffix.lower() not in _PARSERS:
        raise InputError(f"{file}: no times in this format; expected {', '.join(_PARSERS)}")
    text = decode(file.read_bytes(), str(file))
    pieces = timed_pieces(text, file.suffix)
    if not pieces and text.strip() and not (text.startswith("WEBVTT") and "-->" not in text):
        raise InputError(
            f"{file}: no text with times found; check that it is a {file.suffix} file, or save the text as .txt"
        )
    return [piece for piece in pieces if piece.text]


def timed_pieces(text: str, ending: str) -> list[TimedText]:
    """Read the content of a transcript with times; `ending` is that of its format, such as ``.srt``."""
    return _PARSERS[ending.lower()](text.replace("\r\n", "\n").replace("\r", "\n"))


_STAMP = r"((?:\d+:)?\d+:\d+(?:[.,]\d+)?)"
_TIMES = re.compile(rf"^[ \t]*{_STAMP}[ \t]*-->[ \t]*{_STAMP}.*$", re.MULTILINE)
_INNER_STAMP = re.compile(r"<(?:\d+:)?\d+:\d+(?:[.:]\d+)?>")
# A name or a time after "<": a sentence may contain the sign itself.
_MARKUP = re.compile(rf"</?[A-Za-z][^<>\n]*>|{_INNER_STAMP.pattern}|\{{\\[^{{}}\n]*\}}")
_NOT_A_CUE = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_LYRIC = re.compile(r"^((?:\[\d+:\d+(?:[.:]\d+)?\])+)(.*)$", re.MULTILINE)


def _seconds(stamp: str) -> float:
    total = 0.0
    for part in stamp.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


def _cues(text: str) -> list[tuple[float, float, list[str]]]:
    """Read cues: a line of times, and the lines up to the next one, without the number that comes before that."""
    parts = _TIMES.split(text)[1:]  # start, end and lines of each cue
    found = []
    for index in range(0, len(parts), 3):
        lines = parts[index + 2].split("\n")[1:]
        # The last line is the empty one before the next line of times.
        if index + 3 < len(parts) and len(lines) > 1 and lines[-2].strip().isdecimal():
            lines = lines[:-2]
        found.append((_seconds(parts[index]), _seconds(parts[index + 1]), lines))
    return found


def _srt(text: str) -> list[TimedText]:
    """Read SRT; a cue may contain empty lines."""
    return [
        TimedText(start, end, _clean(_MARKUP.sub("", "\n".join(lines)))) for start, end, lines in _cues(text)
    ]


def _web_vtt(text: str) -> list[TimedText]:
    """Read WebVTT: blocks between empty lines, of which comments and styles are left out."""
    rolling = _INNER_STAMP.search(text) is not None
    found: list[TimedText] = []
    last = ""
    for block in re.split(r"\n{2,}", text):
        for start, end, raw in [] if _NOT_A_CUE.match(block) else _cues(block):
            lines = [line for each in raw if (line := _clean(html.unescape(_MARKUP.sub("", each))))]
            # Captions that appear word by word repeat the line before, which scrolls up.
            new = lines[1:] if rolling and lines[:1] == [last] else lines
            last = lines[-1] if lines else last
            found.append(TimedText(start, end, " ".join(new)))
    return found


def _lyrics(text: str) -> list[TimedText]:
    """Read LRC: lines that begin with one or more times; a line ends where the next one begins."""
    lines = sorted(
        (_seconds(re.sub(r":(?=\d+$)", ".", stamp) if stamp.count(":") > 1 else stamp), _clean(line))
        for stamps, line in _LYRIC.findall(text)
        for stamp in re.findall(r"\[([^\]]+)\]", stamps)
    )
    ends = [start for start, _ in lines[1:]] + [math.nan]
    return [
        TimedText(start, end, _clean(_INNER_STAMP.sub("", line)))
        for (start, line), end in zip(lines, ends, strict=False)
    ]


def _text_grid(text: str) -> list[TimedText]:
    """Read the tier of a TextGrid that `spoken_tier` chooses."""
    try:
        tier = spoken_tier(text_grid_tiers(text))
    except ValueError:
        return []
    return [TimedText(start, end, _clean(label)) for start, end, label in tier.intervals] if tier else []


def _clean(text: str) -> str:
    return " ".join(text.split())


_PARSERS: dict[str, Callable[[str], list[TimedText]]] = {
    ".srt": _srt,
    ".vtt": _web_vtt,
    ".lrc": _lyrics,
    ".textgrid": _text_grid,
}
TRANSCRIPT_ENDINGS = (".txt", *_PARSERS)


def _rank(name: str) -> tuple[int, str]:
    return TRANSCRIPT_ENDINGS.index(ending(name)), name
