"""Measure every clip of a feature folder: a few numbers each, so that memory does not grow with the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triptych.extractors.base import ExtractionError, Features
from triptych.extractors.stage import FACES
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.report.frames import rows_or_none
from triptych.pipeline.run.extraction import Extraction
from triptych.pipeline.storage.schema import ShardError
from triptych.pipeline.storage.store import FeatureStore

UNKNOWN_TOKENS = frozenset({"[UNK]", "<unk>"})
READ = ("text", "audio", "vision", FACES)  # the stages whose rows are measured


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long a media file is by its header [s]; NaN where it states nothing, or is missing.

    Attributes
    ----------
    container
        The whole file.
    video, audio
        When each stream ends, from the container's start.
    """

    container: float = math.nan
    video: float = math.nan
    audio: float = math.nan

    def within(self, span: tuple[float, float | None] | None) -> Lengths:
        """Return how much of each is in a span of the file."""
        start, end = span or (0.0, None)

        def inside(whole: float) -> float:
            return max((whole if end is None else min(whole, end)) - start, 0.0)  # NaN stays NaN

        return self if span is None else Lengths(*map(inside, (self.container, self.video, self.audio)))


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the report knows of one clip. A number of a stage that the clip does not have is NaN, or -1 for counts.

    Attributes
    ----------
    number
        Its position in the manifest.
    states
        One letter for each stage of the folder: (d)one, (a)bsent, (f)ailed, (m)issing.
    media
        The lengths that its file states.
    tokens, audio_rows, vision_rows
        Rows of the stages.
    audio_end, frames_end
        Where the rows of sound and of frames end [s].
    valid, confidence, voiced, unknown
        Shares: rows with a face, their mean confidence, voiced audio rows, tokens outside the vocabulary.
    """

    clip: Clip
    number: int
    states: str
    media: Lengths
    tokens: int = -1
    audio_rows: int = -1
    vision_rows: int = -1
    audio_end: float = math.nan
    frames_end: float = math.nan
    valid: float = math.nan
    confidence: float = math.nan
    voiced: float = math.nan
    unknown: float = math.nan

    @property
    def seconds(self) -> float:
        """The clip's length [s]: the container's, or else where its rows end; NaN if neither is known."""
        if not math.isnan(self.media.container):
            return self.media.container
        ends = [end for end in (self.audio_end, self.frames_end) if not math.isnan(end)]
        return max(ends, default=math.nan)


def measure_all(found: Extraction, store: FeatureStore, watch: Callable[[], None]) -> list[ClipFacts]:
    """Measure the clips of a folder's manifest, in its order.

    Parameters
    ----------
    found
        The state of the folder, as `survey` gives it.
    watch
        Called after each clip.
    """
    facts = []
    for number, (clip, states) in enumerate(zip(found.manifest.clips, _states(found), strict=True)):
        facts.append(measure(store, clip, number, states))
        watch()
    return facts


def _states(found: Extraction) -> Iterator[str]:
    plans = [(set(plan.done), set(plan.absent), plan.failed.keys()) for plan in found.plan.stages.values()]
    for clip in found.manifest.clips:
        yield "".join(
            "d" if clip.id in done else "a" if clip.id in absent else "f" if clip.id in failed else "m"
            for done, absent, failed in plans
        )


def measure(store: FeatureStore, clip: Clip, number: int, states: str) -> ClipFacts:
    """Read a clip's rows and the header of its media file, and condense them into a few numbers."""
    rows = {stage: read_rows(store, stage, clip.id) for stage in READ}
    text, audio, vision, faces = (rows[stage] for stage in READ)
    measured: dict[str, Any] = {}
    if text is not None:
        unknown = [token in UNKNOWN_TOKENS for token in text.extras["tokens"]]
        measured |= {"tokens": len(text), "unknown": _mean(unknown)}
    if audio is not None:
        measured |= {
            "audio_rows": len(audio),
            "audio_end": last_time(audio),
            "voiced": _mean(audio.extras["voiced"]),
        }
    # Rows without a face are left out of vision on request: then only the face track spans the clip.
    frames = vision if vision is not None and not _drops_rows(store) else faces
    if frames is not None:
        measured["frames_end"] = last_time(frames) + _step(frames)
    if vision is not None:
        measured["vision_rows"] = len(vision)
        measured["confidence"] = _mean(vision.extras["confidence"][vision.valid])
    shown = frames if frames is not None else vision
    if shown is not None:
        measured["valid"] = _mean(shown.valid)
    return ClipFacts(clip, number, states, media_lengths(store, clip), **measured)


def read_rows(store: FeatureStore, stage: str, clip_id: str) -> Features | None:
    """Read a clip's rows of a stage; None where the folder has none that are intact."""
    try:
        return rows_or_none(store, stage, clip_id)
    except ShardError:  # the folder's state lists damaged shards
        return None


def last_time(rows: Features) -> float:
    """Return the time of the last row [s]; NaN where rows have no times."""
    return float(rows.times[-1]) if len(rows) else math.nan


def _step(rows: Features) -> float:
    steps = np.diff(rows.times)
    return float(np.median(steps)) if len(steps) else 0.0


def _drops_rows(store: FeatureStore) -> bool:
    return bool(store.recipe["recipe"].get("vision", {}).get("drop_invalid"))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def media_lengths(store: FeatureStore, clip: Clip) -> Lengths:
    """Read from the header of a clip's media file how long it is; NaN without a file that can be opened."""
    from triptych.extractors.media.opening import opened

    if "imported" in store.recipe["recipe"] or not clip.path or not Path(clip.file).is_file():
        return Lengths()
    try:
        with opened(clip.file) as container:
            return _stated(container).within(clip.span)
    except (ExtractionError, OSError):  # the stages have reported it
        return Lengths()


def _stated(container: Any) -> Lengths:
    import av

    from triptych.extractors.media.clock import start_time
    from triptych.extractors.media.opening import best_streams

    whole = container.duration / av.time_base if container.duration else math.nan
    zero = float(start_time(container))

    def end(stream: Any) -> float:
        if stream is None:
            return math.nan
        if not stream.duration or stream.time_base is None:
            return whole
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - zero

    video, audio = best_streams(container)
    return Lengths(whole, end(video), end(audio))
