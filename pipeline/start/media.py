"""What the headers of media files state: a quick look before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.extractors.base import ExtractionError
from triptych.extractors.media.frames import HDR
from triptych.extractors.media.opening import best_streams, opened
from triptych.extractors.settings import MediaSettings

MOST = 400  # files that are opened, evenly spaced
SHORT = 0.5  # [s]
SMALL = 120  # shorter side of a frame [pixels]: faces are hardly found in it
SLOW = 15  # frames per second


@dataclass(frozen=True)
class MediaLook:
    """What the header of one file states.

    Attributes
    ----------
    seconds
        The length; 0 where none is stated.
    size
        Width and height of the frames as stored [pixels]; None without frames.
    rate
        Frames per second; 0 where unknown.
    sound
        The file has sound.
    unusual
        What deserves a look, in a few words each.
    """

    path: Path
    seconds: float
    size: tuple[int, int] | None
    rate: float
    sound: bool
    unusual: tuple[str, ...]


def look_at(path: Path) -> MediaLook:
    """Read the header of a file; one that cannot be opened is unusual."""
    import av

    try:
        with opened(path) as container:
            video, sound = best_streams(container)
            seconds = (container.duration or 0) / av.time_base
            size = (video.codec_context.width, video.codec_context.height) if _has_decoder(video) else None
            rate = float(video.average_rate or 0) if size else 0.0
            unusual = tuple(_unusual(video if size else None, sound, size, rate, seconds))
    except ExtractionError as error:
        return MediaLook(path, 0.0, None, 0.0, False, (f"cannot be read ({error.reason})",))
    return MediaLook(path, seconds, size, rate, sound is not None, unusual)


def sample(paths: Sequence[Path], most: int = MOST) -> list[Path]:
    """Choose at most `most` of some files, evenly spaced."""
    if len(paths) <= most:
        return list(paths)
    return [paths[number * len(paths) // most] for number in range(most)]


def _has_decoder(stream: Any) -> bool:
    return stream is not None and stream.codec_context is not None and stream.codec_context.width > 0


def _unusual(
    video: Any, sound: Any, size: tuple[int, int] | None, rate: float, seconds: float
) -> Iterator[str]:
    limits = MediaSettings()
    if size is None:
        yield "no frames"
    else:
        if min(size) < SMALL:
            yield f"frames smaller than {SMALL} pixels"
        if size[0] * size[1] > limits.max_pixels:
            yield "frames larger than media.max_pixels"
        if 0 < rate < SLOW:
            yield f"fewer than {SLOW} frames a second"
        if (video.sample_aspect_ratio or 1) != 1:
            yield "pixels that are not square"
        if video.codec_context.color_trc in HDR:
            yield "HDR"
    if sound is None:
        yield "no sound"
    if 0 < seconds < SHORT:
        yield f"shorter than {SHORT} s"
    if seconds > limits.max_seconds:
        yield "longer than media.max_seconds"
