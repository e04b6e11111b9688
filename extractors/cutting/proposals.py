"""Which spans of a recording become clips, and why the others do not."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from triptych.extractors.cutting.analysis import Analysis
from triptych.extractors.cutting.settings import CutSettings
from triptych.extractors.cutting.speaker import fit
from triptych.extractors.cutting.tracks import Track
from triptych.extractors.cutting.voice import RATE, speech_segments

SEEN = 0.2  # share of a span in which a face must be seen to count as a face of it
RIVAL = 0.5  # and to count as one that may be the speaker
FIRST_SECOND = 1.0  # where a speaker's face is named [s]
STRADDLES = 0.1  # speech that goes on for longer than this on both sides of a cut is divided by it [s]


class CutReason(StrEnum):
    """Why a span of a recording is left out."""

    NO_SPEECH = "no_speech"
    SHOT_CHANGE = "shot_change"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    FACE_LEAVES = "face_leaves"
    TWO_FACES = "two_faces"
    OFF_SCREEN_VOICE = "off_screen_voice"
    MOUTH_AT_REST = "mouth_at_rest"


REMEDIES: dict[str, str] = {
    CutReason.NO_SPEECH: "Lower speech_threshold if somebody speaks there",
    CutReason.SHOT_CHANGE: "Keep a part of it by hand, in two rows",
    CutReason.TOO_SHORT: "Lower min_seconds, or raise pause so that speech is divided less",
    CutReason.TOO_LONG: "Raise max_seconds, or divide it by hand",
    CutReason.NO_FACE: "Nothing to do: nobody is seen who could speak",
    CutReason.FACE_TOO_SMALL: "Lower min_face",
    CutReason.FACE_LEAVES: "Lower min_presence, or keep a part of it by hand",
    CutReason.TWO_FACES: "Keep it by hand and name the speaker in the column face, or lower min_lead",
    CutReason.OFF_SCREEN_VOICE: "Keep it by hand if the face speaks, or lower min_fit",
    CutReason.MOUTH_AT_REST: "Keep it by hand if the face speaks, or lower min_motion",
}
"""By reason: one sentence, without a full stop."""


class Span(NamedTuple):
    """A span of time [s]."""

    start: float
    end: float


@dataclass(frozen=True)
class Candidate:
    """A span of a recording that is a clip, or the reason why it is none.

    Attributes
    ----------
    start, end
        On the recording's clock [s].
    reason, detail
        Why it is left out, and a sentence about it; None and empty for a clip.
    face
        Centre of the speaker's face, as shares of width and height; None where no other face is seen.
    speech
        Share of the span with speech.
    score
        Correlation of the mouth with the sound; NaN where no face was compared.
    """

    start: float
    end: float
    reason: CutReason | None
    detail: str
    face: tuple[float, float] | None = None
    speech: float = 0.0
    score: float = math.nan

    @property
    def keep(self) -> bool:
        """Whether it is a clip."""
        return self.reason is None


def propose(analysis: Analysis, settings: CutSettings, words: Sequence[Span] = ()) -> tuple[Candidate, ...]:
    """Divide a recording.

    Parameters
    ----------
    words
        Known words, or lines of subtitles: no clip begins or ends inside one, if it is possible.

    Returns
    -------
    tuple of Candidate
        By time; they do not overlap. Spans without speech are among them, from the shortest length of a clip on.
    """
    segments = speech_segments(
        analysis.speech, threshold=settings.speech_threshold, pause=settings.short_pause
    )
    pieces = _whole_words([Span(*segment) for segment in segments], words)
    known = _Known(analysis, settings, [piece.start for piece in pieces], [piece.end for piece in pieces])
    found: list[Candidate] = []
    for shot, inside, cut in _by_shot(pieces, _shots(analysis)):
        found += [
            Candidate(*piece, CutReason.SHOT_CHANGE, "speech goes on over a cut, without a pause")
            for piece in cut
        ]
        for group in _groups(inside, shot, settings):
            found.append(_decided(group, shot, known))
    speech = [Span(one.start, one.end) for one in found]
    found += _silences(analysis, speech, settings)
    return tuple(sorted(found, key=lambda one: (one.start, one.end)))


class _Known:
    """What decisions are made by: the analysis and the settings, and tables to look spans up in.

    Attributes
    ----------
    starts, ends
        Of all pieces of speech, rising [s].
    seen
        First and last time of each track [s], shape (N, 2).
    """

    def __init__(
        self, analysis: Analysis, settings: CutSettings, starts: list[float], ends: list[float]
    ) -> None:
        self.analysis, self.settings, self.starts, self.ends = analysis, settings, starts, ends
        self.seen = np.array([(track.times[0], track.times[-1]) for track in analysis.tracks]).reshape(-1, 2)

    def tracks(self, span: Span) -> list[Track]:
        """Return the tracks with values in a span, and perhaps others near it."""
        near = (self.seen[:, 0] < span.end) & (self.seen[:, 1] >= span.start)
        return [self.analysis.tracks[k] for k in np.flatnonzero(near)]

    def pause(self, start: float, end: float) -> Span:
        """Return where the speech before a span ends and where the one after it begins."""
        before = bisect_right(self.ends, start) - 1
        after = bisect_left(self.starts, end)
        return Span(
            self.ends[before] if before >= 0 else -math.inf,
            self.starts[after] if after < len(self.starts) else math.inf,
        )


def _shots(analysis: Analysis) -> list[Span]:
    """Return the spans between transitions; the whole recording without any."""
    edges = [0.0, *analysis.transitions.reshape(-1).tolist(), analysis.duration]
    return [Span(edges[k], edges[k + 1]) for k in range(0, len(edges), 2)]


def _whole_words(pieces: list[Span], words: Sequence[Span]) -> list[Span]:
    """Divide pieces of speech into the words in them; a word that reaches beyond its piece stays whole."""
    ordered = sorted(words)
    divided: list[Span] = []
    for piece in pieces:
        inside = [word for word in ordered if word.end > piece.start and word.start < piece.end]
        if inside:  # what was spoken before the first word and after the last one belongs to them
            inside[0] = Span(min(inside[0].start, piece.start), inside[0].end)
            inside[-1] = Span(inside[-1].start, max(inside[-1].end, piece.end))
        for part in inside or [piece]:
            if divided and part.start < divided[-1].end:
                divided[-1] = Span(divided[-1].start, max(part.end, divided[-1].end))
            else:
                divided.append(part)
    return divided


def _by_shot(pieces: Sequence[Span], shots: Sequence[Span]) -> Iterator[tuple[Span, list[Span], list[Span]]]:
    """Yield each shot with the pieces of speech in it, and those in the middle of which it begins."""
    divided: set[Span] = set()
    for shot in shots:
        inside: list[Span] = []
        cut: list[Span] = []
        for piece in pieces:
            start, end = max(piece.start, shot.start), min(piece.end, shot.end)
            if end <= start:
                continue
            outside = max(shot.start - piece.start, piece.end - shot.end)
            if outside <= STRADDLES:
                inside.append(Span(start, end))
            elif end - start > STRADDLES and piece.start < shot.start and piece not in divided:
                cut.append(piece)  # whole, and once, however many shots it is in
                divided.add(piece)
        yield shot, inside, cut


def _groups(pieces: Sequence[Span], shot: Span, settings: CutSettings) -> Iterator[list[Span]]:
    """Join pieces of speech of one shot into clips: divided at pauses, and at shorter ones where it gets too long."""
    group: list[Span] = []
    groups: list[list[Span]] = []
    for piece in pieces:
        if group and piece.start - group[-1].end >= settings.pause:
            groups.append(group)
            group = []
        group.append(piece)
    if group:
        groups.append(group)
    divided = [part for each in groups for part in _divided(each, settings.max_seconds)]
    yield from _joined(divided, settings)


def _divided(group: list[Span], most: float) -> list[list[Span]]:
    """Divide speech that is too long at its longest pause, again and again."""
    if group[-1].end - group[0].start <= most or len(group) == 1:
        return [group]
    gaps = [after.start - before.end for before, after in pairwise(group)]
    at = int(np.argmax(gaps)) + 1
    return [*_divided(group[:at], most), *_divided(group[at:], most)]


def _joined(groups: list[list[Span]], settings: CutSettings) -> list[list[Span]]:
    """Join speech that is too short for a clip with what is near it."""
    joined: list[list[Span]] = []
    for group in groups:
        short = min(_length(group), _length(joined[-1]) if joined else math.inf) < settings.min_seconds
        if (
            joined
            and short
            and group[0].start - joined[-1][-1].end <= settings.min_seconds
            and group[-1].end - joined[-1][0].start <= settings.max_seconds
        ):
            joined[-1] = joined[-1] + group
        else:
            joined.append(group)
    return joined


def _length(group: list[Span]) -> float:
    return group[-1].end - group[0].start


def _decided(group: list[Span], shot: Span, known: _Known) -> Candidate:
    """Decide on one group of pieces of speech: its span with margins, and whether one face speaks in it."""
    settings = known.settings
    start, end = _with_margins(group, shot, known)
    share = sum(piece.end - piece.start for piece in group) / (end - start)
    candidate = Candidate(start, end, None, "", speech=share)
    length = end - start
    if length < settings.min_seconds:
        detail = f"{length:.2f} s of speech between pauses; the shortest clip has {settings.min_seconds:g} s"
        return replace(candidate, reason=CutReason.TOO_SHORT, detail=detail)
    if length > settings.max_seconds + 2 * settings.margin:
        detail = f"{length:.1f} s of speech without a pause; the longest clip has {settings.max_seconds:g} s"
        return replace(candidate, reason=CutReason.TOO_LONG, detail=detail)
    return _with_speaker(candidate, Span(group[0].start, group[-1].end), known)


def _with_margins(group: list[Span], shot: Span, known: _Known) -> Span:
    """Add a margin on both sides, at most half of the pause and no further than the shot."""
    start, end = group[0].start, group[-1].end
    before, after = known.pause(start, end)
    early = max(start - known.settings.margin, (before + start) / 2, shot.start)
    late = min(end + known.settings.margin, (end + after) / 2, shot.end)
    return Span(min(early, start), max(late, end))


@dataclass(frozen=True)
class _Face:
    """A face in a span: the share of the span in which it is seen, its size, and its centre in the first second."""

    track: Track
    presence: float
    size: float
    centre: tuple[float, float]


def _faces(span: Span, known: _Known) -> list[_Face]:
    """Return the faces that are seen in a span, largest first."""
    width, height = known.analysis.frame_size
    found = []
    for track in known.tracks(span):
        first, last = np.searchsorted(track.times, span)
        if last - first < 2:
            continue
        times, boxes = track.times[first:last], track.boxes[first:last]
        step = float(np.median(np.diff(times)))
        presence = min(
            float(np.minimum(np.diff(times), 2 * step).sum() + step) / (span.end - span.start), 1.0
        )
        if presence < SEEN:
            continue
        size = float(np.median(boxes[:, 3] - boxes[:, 1])) * height / min(width, height)
        early = boxes[times < times[0] + FIRST_SECOND]
        centre = (early[:, :2] + early[:, 2:]).mean(axis=0) / 2
        found.append(_Face(track, presence, size, (round(float(centre[0]), 3), round(float(centre[1]), 3))))
    return sorted(found, key=lambda face: -face.size)


def _with_speaker(candidate: Candidate, speech: Span, known: _Known) -> Candidate:
    """Find the face that speaks in a candidate, or the reason why none does."""
    settings = known.settings
    faces = _faces(Span(candidate.start, candidate.end), known)
    if not faces:
        return replace(candidate, reason=CutReason.NO_FACE, detail="no face is seen while somebody speaks")
    large = [face for face in faces if face.size >= settings.min_face]
    if not large:
        size = f"{faces[0].size:.0%} of the frame's shorter side, less than {settings.min_face:.0%}"
        detail = f"the largest face has {size}"
        return replace(candidate, reason=CutReason.FACE_TOO_SMALL, detail=detail)
    staying = [face for face in large if face.presence >= settings.min_presence]
    if not staying:
        most = max(face.presence for face in large)
        return replace(
            candidate, reason=CutReason.FACE_LEAVES, detail=f"a face is seen in {most:.0%} of the time alone"
        )
    rivals = [
        face
        for face in large
        if face.size >= settings.rival_size * staying[0].size and face.presence >= RIVAL
    ]
    fits = [fit(face.track, known.analysis.energy, *speech) for face in rivals]
    scores = [-1.0 if math.isnan(one.correlation) else one.correlation for one in fits]
    best = int(np.argmax(scores))
    candidate = replace(candidate, score=scores[best], face=rivals[best].centre if len(faces) > 1 else None)
    if scores[best] < settings.min_fit:
        detail = (
            f"no mouth moves with the sound: correlation {scores[best]:.2f}, less than {settings.min_fit:g}"
        )
        return replace(candidate, reason=CutReason.OFF_SCREEN_VOICE, detail=detail)
    if fits[best].motion < settings.min_motion:
        times = f"{fits[best].motion:.1f} times as much as the upper face, less than {settings.min_motion:g}"
        detail = f"the mouth moves {times}"
        return replace(candidate, reason=CutReason.MOUTH_AT_REST, detail=detail)
    lead = scores[best] - max([score for k, score in enumerate(scores) if k != best], default=-1.0)
    if len(rivals) > 1 and (lead < settings.min_lead or rivals[best].presence < settings.min_presence):
        detail = f"{len(rivals)} faces, and none fits the sound clearly better: by {lead:.2f}"
        return replace(candidate, reason=CutReason.TWO_FACES, detail=detail)
    return candidate


def _silences(analysis: Analysis, speech: Sequence[Span], settings: CutSettings) -> Iterator[Candidate]:
    """Yield the spans between candidates that are long enough for a clip, and have no speech."""
    at = 0.0
    for span in [*sorted(speech), Span(analysis.duration, analysis.duration)]:
        if span.start - at >= settings.min_seconds:
            first, last = round(at * RATE), round(span.start * RATE)
            share = (
                float((analysis.speech[first:last] >= settings.speech_threshold).mean())
                if last > first
                else 0.0
            )
            yield Candidate(at, span.start, CutReason.NO_SPEECH, "nobody speaks", speech=share)
        at = max(at, span.end)
