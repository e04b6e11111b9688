"""The clip's clock: its zero, the stamps that are believed, and how times are rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from triptych.extractors.base import ExtractionError, Reason


def start_time(container: Any) -> Fraction:
    """Return the container's start time [s], relative to a time stamp of zero."""
    return Fraction(container.start_time or 0, 1_000_000)


def nearest(number: Fraction) -> int:
    """Round to the nearest integer, halves away from zero: FFmpeg's ``near``, not Python's ``round``."""
    magnitude = math.floor(abs(number) + Fraction(1, 2))
    return magnitude if number > 0 else -magnitude


# A clip of this many seconds is read whatever its file's size. A longer one needs a byte for so many frames of the
# grid, or samples of the waveform: silence in FLAC has 300 samples a byte, speech at the lowest rates of codecs 60.
AMPLE_SECONDS = 600
FRAMES_A_BYTE, SAMPLES_A_BYTE = 1, 1000


@dataclass(frozen=True)
class LengthLimit:
    """How long a clip may be by its settings, and by its file's size: few bytes can claim any length."""

    path: Path
    max_seconds: float
    size: int
    by_size: float

    @classmethod
    def of(cls, path: Path, max_seconds: float, rate: float, a_byte: int) -> LengthLimit:
        """Return the limit of a file of which one byte may give `a_byte` values at a rate [Hz]."""
        size = path.stat().st_size
        return cls(path, max_seconds, size, max(AMPLE_SECONDS, size * a_byte / rate))

    def check(self, seconds: Fraction) -> None:
        """Raise ``too_long`` for a time beyond the limit."""
        if seconds <= self.max_seconds and seconds <= self.by_size:
            return
        limit = f"media.max_seconds is {self.max_seconds:g}. A clip that is shorter has invalid time stamps"
        if seconds <= self.max_seconds:
            limit = f"a file of {self.size} bytes holds at most {self.by_size:.0f} s"
        raise ExtractionError(
            Reason.TOO_LONG, f"{self.path}: its time stamps reach {float(seconds):.0f} s; {limit}"
        )


@dataclass
class BestEffort:
    """Choose between a frame's two time stamps as libavcodec's best effort does.

    A presentation stamp is used until such stamps have gone back more often than decoding stamps; H.264 with
    B-frames in AVI, whose presentation stamps are made up, is the usual case. The last frames that a decoder gives
    have no decoding stamp; where presentation stamps have proved faulty, none is used for them, unlike libavcodec.
    """

    faulty_pts: int = 0
    faulty_dts: int = 0
    last_pts: int | None = None
    last_dts: int | None = None
    by_dts: bool = False

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """Return the stamp to use, or None where the frame has none."""
        if dts is not None:
            self.faulty_dts += self.last_dts is not None and dts <= self.last_dts
            self.last_dts = dts
        elif pts is not None:
            self.last_dts = pts
        if pts is not None:
            self.faulty_pts += self.last_pts is not None and pts <= self.last_pts
            self.last_pts = pts
        elif dts is not None:
            self.last_pts = dts
        proven = self.faulty_pts > self.faulty_dts
        if proven and dts is None and self.by_dts:
            return None
        self.by_dts = proven and dts is not None
        return dts if pts is None or self.by_dts else pts


def stamped(frames: Iterable[Any]) -> Iterator[tuple[int | None, Any]]:
    """Give each frame the time stamp [ticks] of `BestEffort`.

    The frame before the one that proves the presentation stamps faulty gets its decoding stamp too, or the two would
    be due at once.
    """
    best = BestEffort()
    previous: tuple[int | None, Any] | None = None
    for frame in frames:
        trusted = not best.by_dts
        stamp = best(frame.pts, frame.dts)
        if previous is not None:
            early, earlier = previous
            proven = trusted and best.by_dts and early is not None and stamp is not None and stamp <= early
            yield (earlier.dts if proven and earlier.dts is not None else early), earlier
        previous = stamp, frame
    if previous is not None:
        yield previous
