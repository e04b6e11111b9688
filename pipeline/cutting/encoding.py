"""A span of a recording as a file of its own, encoded again with little loss: H.264 and AAC in MP4."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.opening import best_streams, opened
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

QUALITY = 14  # x264's constant rate factor: 0 loses nothing, 18 looks like the original
_SILENT = {Reason.NO_AUDIO_STREAM, Reason.EMPTY_AUDIO}
_RATES = (8000, 96000)  # [Hz], that `MediaSettings` reads


def encode_span(recording: Path, start: float, end: float, quality: int, target: Path) -> None:
    """Decode a span and encode it again, at the recording's own frame rate and sample rate.

    Frames are upright, in square pixels and not interlaced; the sound is the mean of its channels, as every stage
    reads it.

    Parameters
    ----------
    start, end
        The span [s].
    quality
        x264's constant rate factor, 0 to 51.

    Raises
    ------
    ExtractionError
        The recording cannot be decoded.
    """
    settings = _own_rates(recording)
    sound = _sound(MediaSource(recording, settings, span=(start, end)))
    frames = MediaSource(recording, settings, buffer_bytes=0, span=(start, end)).frames()
    rate = Fraction(settings.frame_rate).limit_denominator(1001)
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video: Any = None
        audio: Any = None
        if sound is not None:
            audio = container.add_stream("aac", settings.sample_rate, layout="mono", bit_rate=192_000)
        written = 0
        try:
            for frame in frames:
                if video is None:
                    video = _video(container, rate, frame.image, quality)
                image = av.VideoFrame.from_ndarray(_even(frame.image), format="rgb24")
                image.pts, image.time_base = frame.slot, 1 / rate
                container.mux(video.encode(image))
                if sound is not None:
                    due = min(len(sound), int((frame.slot + 1) / rate * settings.sample_rate))
                    written = _write_sound(container, audio, sound, written, due)
        except ExtractionError as error:
            if error.reason != Reason.NO_VIDEO_STREAM:
                raise
        if video is not None:
            container.mux(video.encode(None))
        if sound is not None:
            _write_sound(container, audio, sound, written, len(sound))
            container.mux(audio.encode(None))


def _own_rates(recording: Path) -> MediaSettings:
    """Return settings that read a recording at its own rates."""
    with opened(recording) as source:
        video, audio = best_streams(source)
        frame_rate = float(video.average_rate or 30) if video is not None else 30.0
        sample_rate = audio.rate if audio is not None else 44100
    low, high = _RATES
    return MediaSettings(
        frame_rate=min(max(frame_rate, 1.0), 120.0), sample_rate=min(max(sample_rate, low), high)
    )


def _sound(source: MediaSource) -> NDArray[np.float32] | None:
    try:
        return source.waveform()
    except ExtractionError as error:
        if error.reason in _SILENT:
            return None
        raise


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column of a frame of odd size: the colours of H.264 are those of two by two pixels."""
    height, width = image.shape[:2]
    if height % 2 == width % 2 == 0:
        return np.ascontiguousarray(image)
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _video(container: Any, rate: Fraction, image: NDArray[np.uint8], quality: int) -> Any:
    video = container.add_stream("libx264", rate, options={"preset": "veryfast", "crf": str(quality)})
    height, width = _even(image).shape[:2]
    video.width, video.height, video.pix_fmt, video.thread_count = width, height, "yuv420p", 1
    return video


def _write_sound(container: Any, stream: Any, sound: NDArray[np.float32], start: int, end: int) -> int:
    """Encode the samples from `start` to `end`; return `end`."""
    if end > start:
        samples = np.ascontiguousarray(np.clip(sound[start:end], -1, 1), np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = stream.rate, Fraction(1, stream.rate), start
        container.mux(stream.encode(frame))
    return end
