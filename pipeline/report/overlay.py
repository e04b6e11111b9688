"""A clip as a video with its features drawn on it: H.264 and AAC in MP4, which browsers play."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.source import MediaSource
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.report.canvas import Canvas, ClipCurves
from triptych.pipeline.report.fonts import VARIABLE, Glyphs, find_font
from triptych.pipeline.report.frames import (
    VISION,
    ClipMarks,
    MarkedFrame,
    clip_marks,
    clip_source,
    rows_or_none,
    with_marks,
)

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.pipeline.manifest.clips import Clip
    from triptych.pipeline.storage.store import FeatureStore

SOUND_RATE = 44100  # [Hz]
# Sound that ends this much after the frames is cut off: encoders pad it, and the frame would vanish for an instant.
SOUND_TAIL = 0.2  # [s]
_SILENT = {Reason.NO_AUDIO_STREAM, Reason.EMPTY_AUDIO, Reason.NON_FINITE_AUDIO}
_CRF, _PRESET = "20", "veryfast"


@dataclass(frozen=True)
class Overlay:
    """A written overlay video.

    Attributes
    ----------
    path
        The file.
    frames, seconds
        Its frames, and how long they last.
    notes
        What is not shown, and why; one sentence each.
    """

    path: Path
    frames: int
    seconds: float
    notes: tuple[str, ...]


def write_overlay(store: FeatureStore, clip: Clip, path: Path, vision_note: str = "") -> Overlay:
    """Draw what the features say onto a clip's frames, and write them with the clip's sound.

    The video's time 0 is the container's start, as in the rows: its frame k is slot k of the frame grid. Slots before
    the first frame and after the last one show no frame, while the sound plays.

    Parameters
    ----------
    path
        The ``.mp4`` file to write; it appears complete or not at all.
    vision_note
        The ledger's notes on the clip's vision rows.

    Raises
    ------
    InputError
        The name does not end in ``.mp4``, it is the clip's own, or the clip has no media file.
    triptych.extractors.base.ExtractionError
        The clip cannot be decoded.
    """
    _check(clip, path)
    source = clip_source(store, clip)
    marks = clip_marks(store, clip.id, vision_note)
    sound = _waveform(source)
    slots = _slots(source, marks, sound)
    pen_font, text, notes = _transcript(clip.text or "")
    audio = rows_or_none(store, "audio", clip.id)
    seconds = slots / marks.frame_rate
    sound = None if sound is None else sound[: round(seconds * SOUND_RATE)]
    frames = _frames(source, marks, slots)
    first = next(frames)
    size = first.image.shape[1::-1] if first is not None else _frame_size(source)
    canvas = Canvas(clip.id, size, text, pen_font, marks, ClipCurves.of(audio), seconds)
    rate = Fraction(marks.frame_rate).limit_denominator(1001)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        _encode(unfinished, canvas, _all(first, frames), sound, rate)
    notes += _missing(sound, size, audio, rows_or_none(store, VISION, clip.id), marks)
    return Overlay(path, slots, seconds, tuple(notes))


def _check(clip: Clip, path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: the overlay is written as MP4; choose a name that ends in .mp4")
    if path.exists() and clip.file.exists() and path.samefile(clip.file):
        raise InputError(f"{path}: the clip itself; choose another name for its overlay")


def _waveform(source: MediaSource) -> NDArray[np.float32] | None:
    settings = source.settings.model_copy(update={"sample_rate": SOUND_RATE})
    try:
        return MediaSource(source.path, settings, span=source.span).waveform()
    except ExtractionError as error:
        if error.reason in _SILENT:
            return None
        raise


def _slots(source: MediaSource, marks: ClipMarks, sound: NDArray[np.float32] | None) -> int:
    """Return how many slots of the frame grid the clip has, at least one."""
    if marks.track is not None and len(marks.track):
        frames = round(float(marks.track.times[-1]) * marks.frame_rate) + 1
    else:
        frames = 0
        for frame in _shown(source):
            frames = frame.slot + 1
    seconds = 0.0 if sound is None else len(sound) / SOUND_RATE
    lasting = int(np.ceil(seconds * marks.frame_rate - 1e-6))
    return max(frames, lasting if seconds > frames / marks.frame_rate + SOUND_TAIL else 0, 1)


def _shown(source: MediaSource) -> Iterator[Any]:
    try:
        yield from source.frames()
    except ExtractionError as error:
        if error.reason != Reason.NO_VIDEO_STREAM:
            raise


def _frame_size(source: MediaSource) -> tuple[int, int] | None:
    """Return the size of the first frame, where it is not in the first slot; None for sound alone."""
    first = next(_shown(source), None)
    return None if first is None else first.image.shape[1::-1]


def _frames(source: MediaSource, marks: ClipMarks, slots: int) -> Iterator[MarkedFrame | None]:
    """Yield what each slot shows: a frame, or None."""
    slot = 0
    for frame in _shown(source):
        if frame.slot >= slots:
            break
        yield from [None] * (frame.slot - slot)
        yield with_marks(frame, marks)
        slot = frame.slot + 1
    yield from [None] * (slots - slot)


def _all(first: MarkedFrame | None, rest: Iterator[MarkedFrame | None]) -> Iterator[MarkedFrame | None]:
    yield first
    yield from rest


def _transcript(text: str) -> tuple[Path | None, str, list[str]]:
    """Return a font for a transcript, the text that it can draw, and what is not drawn."""
    text = " ".join(text.split())
    if not text:
        return None, "", []
    font = find_font(text)
    if font is None:
        remedy = f"install one (such as fonts-noto-cjk) or name a font file in {VARIABLE}"
        return None, "", [f"transcript not drawn: no font with its characters was found; {remedy}"]
    return font, Glyphs(font).drawable(text), []


def _missing(
    sound: NDArray[np.float32] | None,
    size: tuple[int, int] | None,
    audio: Features | None,
    vision: Features | None,
    marks: ClipMarks,
) -> list[str]:
    """Describe what the video does not show."""
    absent = [
        name
        for name, there in (
            ("sound", sound is not None),
            ("frames", size is not None),
            ("audio rows", audio is not None),
            ("face track", marks.track is not None),
            ("vision rows", vision is not None),
        )
        if not there
    ]
    notes = [f"not shown, as the clip has none: {', '.join(absent)}"] if absent else []
    if vision is not None and marks.vision is None:
        notes.append("vision rows not shown: their columns are not OpenFace's")
    if marks.vision is not None and marks.settings.average > 1:
        notes.append(
            f"vision rows are means of {marks.settings.average} frames; landmarks follow these means"
        )
    return notes


def _encode(
    path: Path,
    canvas: Canvas,
    frames: Iterator[MarkedFrame | None],
    sound: NDArray[np.float32] | None,
    rate: Fraction,
) -> None:
    """Write the video; its index comes first, so that a browser starts before it has all of it."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate, options={"preset": _PRESET, "crf": _CRF})
        video.width, video.height, video.pix_fmt, video.thread_count = (*canvas.size, "yuv420p", 1)
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", SOUND_RATE, layout="mono", bit_rate=96000)
        done = 0
        for slot, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(canvas.draw(slot, frame), format="rgb24")
            image.pts, image.time_base = slot, 1 / rate
            container.mux(video.encode(image))
            if audio is not None and sound is not None:
                due = min(len(sound), int((slot + 1) / rate * SOUND_RATE))
                done = _write_sound(container, audio, sound, done, due)
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _write_sound(container, audio, sound, done, len(sound))
            container.mux(audio.encode(None))


def _write_sound(container: Any, stream: Any, sound: NDArray[np.float32], start: int, end: int) -> int:
    """Encode the samples from `start` to `end`; return `end`."""
    if end > start:
        samples = np.ascontiguousarray(np.clip(sound[start:end], -1, 1), np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = SOUND_RATE, Fraction(1, SOUND_RATE), start
        container.mux(stream.encode(frame))
    return end
