"""From an analysis to candidates: which spans of a recording are clips, and why the others are not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from triptych.extractors.cutting.analysis import Analysis
from triptych.extractors.cutting.settings import CutSettings
from triptych.extractors.cutting.speaker import fit
from triptych.extractors.cutting.tracks import Track
from triptych.extractors.cutting.voice import RATE, speech_segments

Span = tuple[float, float]


class TimedSpan(Protocol):
    """A word with its times [s]."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class CutReason(StrEnum):
    """Why a span is no clip."""

    NO_SPEECH = "no_speech"
    NO_FACE = "no_face"
    TWO_FACES = "two_faces"
    FACE_TOO_SMALL = "face_too_small"
    FACE_LEAVES = "face_leaves"
    OFF_SCREEN_VOICE = "off_screen_voice"
    SILENT_MOUTH = "silent_mouth"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"


REMEDIES = {
    CutReason.NO_SPEECH: "Nobody speaks here; lower speech_threshold if somebody does.",
    CutReason.NO_FACE: "No face is seen; nothing can be done but to keep it by hand.",
    CutReason.TWO_FACES: "Several faces fit the sound alike; keep the span by hand and name the speaker's face.",
    CutReason.FACE_TOO_SMALL: "The face is smaller than min_face; lower it to keep such spans.",
    CutReason.FACE_LEAVES: "The face is not seen all the time; lower min_presence to keep such spans.",
    CutReason.OFF_SCREEN_VOICE: "The mouth does not move with the sound; lower min_fit to keep such spans.",
    CutReason.SILENT_MOUTH: "The mouth does not move; lower min_motion to keep such spans.",
    CutReason.TOO_SHORT: "The speech is shorter than min_seconds.",
    CutReason.TOO_LONG: "A word, or words without a gap, are longer than max_seconds.",
}


@dataclass(frozen=True)
class Candidate:
    """A span of a recording: a clip if `keep`, else left out for a reason.

    Attributes
    ----------
    face
        Centre of the speaker's face in the span's first second, as shares of width and height.
    speech
        Share of the span that is speech.
    score
        Correlation of the speaker's mouth with the sound; NaN without a face.
    """

    start: float
    end: float
    keep: bool
    reason: CutReason | None
    detail: str
    face: tuple[float, float] | None
    speech: float
    score: float


def propose(
    analysis: Analysis, settings: CutSettings, words: Sequence[TimedSpan] = ()
) -> tuple[Candidate, ...]:
    """Divide a recording at pauses, shot boundaries and the longest length; candidates come by rising time.

    Parameters
    ----------
    words
        Words with times; no clip begins or ends inside one, except at a shot boundary.
    """
    voiced = speech_segments(analysis.speech, threshold=settings.speech_threshold, pause=settings.short_pause)
    found: list[Candidate] = []
    begin = 0.0
    for start, end in _pieces(voiced, analysis, settings, words):
        if start - begin >= settings.min_seconds:
            found.append(_left_out(begin, start, CutReason.NO_SPEECH, 0.0))
        found.append(_candidate(start, end, _share(voiced, start, end), analysis, settings))
        begin = max(begin, end)
    if analysis.duration - begin >= settings.min_seconds:
        found.append(_left_out(begin, analysis.duration, CutReason.NO_SPEECH, 0.0))
    return tuple(found)


def _pieces(
    voiced: list[Span], analysis: Analysis, settings: CutSettings, words: Sequence[TimedSpan]
) -> list[Span]:
    """Return the pieces of speech, with their margins, between shot boundaries."""
    groups: list[list[Span]] = []
    for start, end in voiced:
        if groups and start - groups[-1][-1][1] < settings.pause:
            groups[-1].append((start, end))
        else:
            groups.append([(start, end)])
    spans = [(group[0][0], group[-1][1]) for group in groups]
    edges = [-np.inf, *(end for _, end in spans), np.inf]
    pieces: list[Span] = []
    for index, (start, end) in enumerate(spans):
        after = spans[index + 1][0] if index + 1 < len(spans) else analysis.duration
        early = max(start - settings.margin, (start + max(edges[index], 0.0)) / 2 if index else 0.0)
        late = min(end + settings.margin, (end + after) / 2 if index + 1 < len(spans) else after)
        for first, last in _between_shots(early, late, analysis):
            pieces += _short_enough(first, last, voiced, settings, words)
    return pieces


def _between_shots(start: float, end: float, analysis: Analysis) -> list[Span]:
    """Take the transitions between shots out of a span."""
    found, first = [], start
    for leave, enter in analysis.transitions:
        if enter <= first or leave >= end:
            continue
        if leave > first:
            found.append((first, float(leave)))
        first = float(enter)
    return [*found, (first, end)] if first < end else found


def _short_enough(
    start: float, end: float, voiced: list[Span], settings: CutSettings, words: Sequence[TimedSpan]
) -> list[Span]:
    """Divide a span that is too long: at its longest pause near the middle, else between words, else in equal parts."""
    if end - start <= settings.max_seconds:
        return [(start, end)]
    gaps = [(a[1], b[0]) for a, b in itertools.pairwise(voiced)]
    if words:
        gaps += [(a.end, b.start) for a, b in itertools.pairwise(words) if b.start >= a.end]
    least = min(settings.min_seconds, (end - start) / 3)
    places = [
        (late - early, (early + late) / 2)
        for early, late in gaps
        if start + least <= (early + late) / 2 <= end - least
    ]
    places = [
        (gap, at) for gap, at in places if not any(word.start + 1e-6 < at < word.end - 1e-6 for word in words)
    ]
    if not places and words:
        return [(start, end)]
    centre = (start + end) / 2
    at = (
        max(places, key=lambda place: (place[0] + 0.02) * (1 - abs(place[1] - centre) / (end - start)))[1]
        if places
        else start + (end - start) / int(np.ceil((end - start) / settings.max_seconds))
    )
    return [
        *_short_enough(start, at, voiced, settings, words),
        *_short_enough(at, end, voiced, settings, words),
    ]


def _candidate(
    start: float, end: float, speech: float, analysis: Analysis, settings: CutSettings
) -> Candidate:
    if end - start < settings.min_seconds:
        return _left_out(start, end, CutReason.TOO_SHORT, speech, f"{end - start:.2f} s")
    if end - start > settings.max_seconds + 1e-6:
        return _left_out(start, end, CutReason.TOO_LONG, speech, f"{end - start:.2f} s")
    seen = [(track, _presence(track, start, end, settings)) for track in analysis.tracks]
    seen = [(track, presence) for track, presence in seen if presence > 0.2]
    if not seen:
        return _left_out(start, end, CutReason.NO_FACE, speech)
    sizes = {id(track): _size(track, start, end, analysis) for track, _ in seen}
    large = [(track, presence) for track, presence in seen if sizes[id(track)] >= settings.min_face]
    if not large:
        size = max(sizes.values())
        return _left_out(start, end, CutReason.FACE_TOO_SMALL, speech, f"{size:.3f} of the shorter side")
    largest = max(sizes[id(track)] for track, _ in large)
    rivals = [one for one in large if sizes[id(one[0])] >= settings.rival_size * largest]
    staying = [track for track, presence in rivals if presence >= settings.min_presence]
    if not staying:
        presence = max(presence for _, presence in rivals)
        return _left_out(
            start, end, CutReason.FACE_LEAVES, speech, f"seen in {100 * presence:.0f} % of the span"
        )
    return _by_sound(start, end, speech, staying, analysis, settings)


def _by_sound(
    start: float,
    end: float,
    speech: float,
    tracks: list[Track],
    analysis: Analysis,
    settings: CutSettings,
) -> Candidate:
    """Choose the face that fits the sound."""
    fits = [(fit(track, analysis.energy, start, end), track) for track in tracks]
    fits = sorted(fits, key=lambda one: -np.nan_to_num(one[0].correlation, nan=-1.0))
    best, track = fits[0]
    face, score = _centre(track, start), best.correlation
    if np.isnan(score) or score < settings.min_fit:
        return _left_out(
            start, end, CutReason.OFF_SCREEN_VOICE, speech, f"correlation {score:.2f}", face, score
        )
    if len(fits) > 1 and score - np.nan_to_num(fits[1][0].correlation, nan=-1.0) < settings.min_lead:
        other = fits[1][0].correlation
        return _left_out(
            start, end, CutReason.TWO_FACES, speech, f"correlations {score:.2f}, {other:.2f}", face, score
        )
    if best.motion < settings.min_motion:
        return _left_out(start, end, CutReason.SILENT_MOUTH, speech, f"motion {best.motion:.2f}", face, score)
    return Candidate(start, end, True, None, "", face, speech, score)


def _left_out(
    start: float,
    end: float,
    reason: CutReason,
    speech: float,
    detail: str = "",
    face: tuple[float, float] | None = None,
    score: float = float("nan"),
) -> Candidate:
    return Candidate(start, end, False, reason, detail, face, speech, score)


def _share(voiced: list[Span], start: float, end: float) -> float:
    inside = sum(max(min(b, end) - max(a, start), 0.0) for a, b in voiced)
    return inside / max(end - start, 1 / RATE)


def _presence(track: Track, start: float, end: float, settings: CutSettings) -> float:
    """Return the share of a span in which a face is seen."""
    first, last = np.searchsorted(track.times, (start, end))
    if first == last:
        return 0.0
    shown = 1.5 / settings.mouth_rate
    times = np.concatenate([[start - shown], track.times[first:last], [end + shown]])
    hidden = np.maximum(np.diff(times) - 2 * shown, 0).sum()
    return float(1 - hidden / (end - start))


def _size(track: Track, start: float, end: float, analysis: Analysis) -> float:
    """Return the median size of a face, as a share of the frame's shorter side."""
    first, last = np.searchsorted(track.times, (start, end))
    width, height = analysis.frame_size
    boxes = track.boxes[first:last] * np.array([width, height] * 2)
    sides = np.sqrt(np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 0))
    return float(np.median(sides)) / max(min(width, height), 1)


def _centre(track: Track, start: float) -> tuple[float, float]:
    first, last = np.searchsorted(track.times, (start, start + 1))
    boxes = track.boxes[first : max(last, first + 1)]
    x, y = (boxes[:, :2] + boxes[:, 2:]).mean(axis=0) / 2
    return float(x), float(y)
