"""Clips that deserve a look, worst first: those whose rows do not span their media come before all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from triptych.pipeline.report.gather import ClipFacts

# Rows and media may differ by this much [s], and by this share of the length: headers round, last frames are short.
TOLERANCE, TOLERANCE_SHARE = 0.25, 0.02
FEWEST_VALID = 0.5
FAR = 4.0  # from the median, in robust standard deviations
LARGEST = 99.0  # of a score
_MAD = 1.4826  # standard deviations of a normal distribution in one median absolute deviation
_AT_LEAST_CLIPS = 20  # for a median to mean something


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark on a clip.

    Attributes
    ----------
    first
        The rows do not span the media, which is worse than any unusual value.
    score
        How far it is beyond what is usual; 1 is the limit.
    text
        One sentence for the user.
    """

    first: bool
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class _Usual:
    middle: float
    width: float

    def distance(self, value: float) -> float:
        return (value - self.middle) / self.width


def ranked(facts: Sequence[ClipFacts]) -> list[tuple[ClipFacts, tuple[Finding, ...]]]:
    """Return the clips with findings, worst first, each with its findings, worst first."""
    usual = {
        "confidence": _usual([one.confidence for one in facts], 0.02),
        "voiced": _usual([one.voiced for one in facts], 0.05),
        "tempo": _usual([_tempo(one) for one in facts], 0.5),
    }
    found = [(one, tuple(sorted(_findings(one, usual), key=_worst_first))) for one in facts]
    listed = [(one, findings) for one, findings in found if findings]
    return sorted(listed, key=lambda entry: (_worst_first(entry[1][0]), entry[0].number))


def _worst_first(finding: Finding) -> tuple[bool, float]:
    return not finding.first, -finding.score


def _usual(values: Sequence[float], narrowest: float) -> _Usual | None:
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < _AT_LEAST_CLIPS:
        return None
    middle = float(np.median(known))
    return _Usual(middle, max(_MAD * float(np.median(np.abs(known - middle))), narrowest))


def _findings(one: ClipFacts, usual: Mapping[str, _Usual | None]) -> list[Finding]:
    checks: tuple[Callable[[ClipFacts], Finding | None], ...] = (
        lambda one: _span("sound", "audio rows", one.audio_end, one.media.audio),
        lambda one: _span("frames", "rows of frames", one.frames_end, one.media.video),
        _apart,
        _faceless,
        lambda one: _low("confidence of the face rows", one.confidence, usual["confidence"]),
        lambda one: _low("voiced share", one.voiced, usual["voiced"]),
        lambda one: _unusual_tempo(one, usual["tempo"]),
        _unknown_tokens,
    )
    return [finding for check in checks if (finding := check(one)) is not None]


def _span(what: str, rows: str, end: float, length: float) -> Finding | None:
    """Compare where rows end with the length of their stream."""
    score = _beyond(end, length)
    if score <= 1:
        return None
    return Finding(True, score, f"{rows} end at {end:.2f} s; the file's {what} last {length:.2f} s")


def _beyond(end: float, length: float) -> float:
    if math.isnan(end) or math.isnan(length):
        return 0.0
    return min(abs(end - length) / max(TOLERANCE, TOLERANCE_SHARE * length), LARGEST)


def _apart(one: ClipFacts) -> Finding | None:
    """Compare sound and frames with each other, where there is no file to compare with."""
    if not math.isnan(one.media.container):
        return None
    score = _beyond(one.frames_end, one.audio_end)
    if score <= 1:
        return None
    text = f"audio rows end at {one.audio_end:.2f} s, rows of frames at {one.frames_end:.2f} s"
    return Finding(True, score, text)


def _faceless(one: ClipFacts) -> Finding | None:
    if math.isnan(one.valid) or one.valid >= FEWEST_VALID:
        return None
    score = 1 + 4 * (FEWEST_VALID - one.valid) / FEWEST_VALID
    return Finding(False, score, f"a face in {one.valid:.0%} of the rows")


def _low(name: str, value: float, usual: _Usual | None) -> Finding | None:
    if usual is None or math.isnan(value):
        return None
    distance = -usual.distance(value)
    if distance <= FAR:
        return None
    text = f"{name} {value:.2f}; the median of all clips is {usual.middle:.2f}"
    return Finding(False, min(distance / FAR, LARGEST), text)


def _tempo(one: ClipFacts) -> float:
    return one.tokens / one.seconds if one.tokens >= 0 and one.seconds > 0 else math.nan


def _unusual_tempo(one: ClipFacts, usual: _Usual | None) -> Finding | None:
    tempo = _tempo(one)
    if usual is None or math.isnan(tempo) or abs(usual.distance(tempo)) <= FAR:
        return None
    text = f"{tempo:.1f} tokens a second; the median of all clips is {usual.middle:.1f}"
    return Finding(False, min(abs(usual.distance(tempo)) / FAR, LARGEST), text)


def _unknown_tokens(one: ClipFacts) -> Finding | None:
    if math.isnan(one.unknown) or one.unknown <= 0.2:
        return None
    return Finding(False, one.unknown * 5, f"{one.unknown:.0%} of the tokens are outside the vocabulary")
