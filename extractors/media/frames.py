"""Frames: on the grid, upright, in square pixels, of one size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.clock import nearest, stamped, start_time

Decoded = TypeVar("Decoded")

# A larger ratio of a pixel's sides means a damaged header, and would need an image of gigabytes.
MAX_PIXEL_ASPECT = 8
# A frame that stays for longer than this [s] deserves a note: it may be a leap of the time stamps.
LONG_PAUSE = 10
# Transfer curves of high dynamic range, by their number in ITU-T H.273.
HDR = {16: "PQ", 18: "HLG"}


@dataclass
class Spans:
    """Give each frame the slots at which it is due and at which it ends.

    A missing time stamp or duration is derived from the previous frame, as in the ffmpeg program.

    Attributes
    ----------
    backward
        Frames that are due before a frame that came before them, so that some frame is never shown.
    interlaced
        Frames that are marked as interlaced.
    pause
        The longest time between two frames [slots], and the slot of the first of the two.
    """

    start: int  # the clip's zero [ticks]
    tick: Fraction  # [s]
    step: int  # duration of a frame that states none [ticks]
    rate: Fraction  # slots per second [Hz]
    skipped: Fraction = Fraction(0)  # slot 0 is this long after the clip's zero [s]
    backward: int = 0
    interlaced: int = 0
    pause: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, container: Any, stream: Any, rate: Fraction, skipped: Fraction = Fraction(0)) -> Spans:
        """Read the clock of a video stream; slot 0 is `skipped` seconds after the container's start."""
        tick = stream.time_base
        step = nearest(1 / (stream.average_rate * tick)) if stream.average_rate else 1
        return cls(nearest(start_time(container) / tick), tick, step, rate, skipped)

    def __call__(self, frames: Iterable[Any]) -> Iterator[tuple[int, int, Any]]:
        """Yield (slot at which it is due, slot at which it ends, frame)."""
        tick, skipped, rate = self.tick, self.skipped, self.rate
        numerator = tick.numerator * skipped.denominator * rate.numerator
        before_zero = skipped.numerator * tick.denominator * rate.numerator
        denominator = tick.denominator * skipped.denominator * rate.denominator

        def slot(ticks: int) -> int:
            """Round to the nearest slot as `nearest` does; in integers, as this is done for every frame."""
            scaled = ticks * numerator - before_zero
            magnitude = (2 * abs(scaled) + denominator) // (2 * denominator)
            return magnitude if scaled > 0 else -magnitude

        before: int | None = None
        latest = -math.inf
        for stamp, frame in stamped(frames):
            made_up = 0 if before is None else before + self.step
            now = made_up if stamp is None else stamp - self.start
            if frame.duration:
                self.step = frame.duration
            elif before is not None and now > before:
                self.step = now - before
            due = slot(now)
            self.backward += due < latest
            if before is not None and due > 0 and due - latest > self.pause[0]:
                self.pause = int(due - latest), int(latest)
            self.interlaced += frame.interlaced_frame
            yield due, slot(now + self.step), frame
            before, latest = now, max(due, latest)

    def notes(self, stream: Any, *, deinterlaced: bool) -> tuple[str, ...]:
        """Describe what was found in the frames, in sentences for the user."""
        notes = []
        if self.backward:
            notes.append(f"the time stamps of {self.backward} frames go back: some frames are never shown")
        if self.pause[0] > LONG_PAUSE * self.rate:
            pause, at = (float(slots / self.rate) for slots in self.pause)
            notes.append(f"no frame for {pause:.1f} s from {at:.1f} s on: the last one stays")
        if self.interlaced and not deinterlaced:
            notes.append("the frames are interlaced: media.deinterlace=auto removes the combs")
        if curve := HDR.get(stream.codec_context.color_trc):
            notes.append(f"HDR video ({curve}): its tones are used as stored, so the frames look flat")
        return tuple(notes)


def on_grid(spans: Iterable[tuple[int, int, Decoded]]) -> Iterator[tuple[int, Decoded]]:
    """Put frames on a grid as ffmpeg's ``fps`` filter does.

    Parameters
    ----------
    spans
        (slot at which it is due, slot at which it ends, frame), in order of presentation. Only the last end
        is used: every other frame is shown until the next one is due.

    Yields
    ------
    tuple
        (slot, frame), without a hole from the first frame's slot on. Of several frames due at one slot
        the last is shown.
    """
    remaining = iter(spans)
    first = next(remaining, None)
    if first is None:
        return
    slot, end, shown = first
    for due, next_end, frame in remaining:
        while slot < due:
            yield slot, shown
            slot += 1
        end, shown = next_end, frame
    while slot < end:
        yield slot, shown
        slot += 1


class FrameConverter:
    """Convert decoded frames to upright RGB images with square pixels, all of one size."""

    def __init__(self, pixel_aspect: Fraction, max_pixels: int, path: Path) -> None:
        self._max_pixels = max_pixels
        self._path = path
        self._size: tuple[int, int] | None = None
        self._matrix: Any | None = None
        sane = Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT
        self._pixel_aspect = pixel_aspect if sane else Fraction(1)
        self._reformatter = VideoReformatter()

    def check(self, width: int, height: int) -> None:
        """Raise ``too_large`` for frames of too many pixels, before memory is spent on them."""
        if width * height > self._max_pixels:
            raise ExtractionError(
                Reason.TOO_LARGE,
                f"{self._path}: frames of {width} x {height} = {width * height} pixels; media.max_pixels is "
                f"{self._max_pixels}",
            )

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        self.check(frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        image = cast("NDArray[np.uint8]", rgb.to_ndarray())
        height, width = image.shape[:2]
        if self._pixel_aspect > 1:  # the short side is stretched, so that no detail is lost
            width = nearest(width * self._pixel_aspect)
        else:
            height = nearest(height / self._pixel_aspect)
        if self._size is None:
            # Read once: PyAV's side data and its frame hold each other until the garbage is collected.
            self._matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        image = upright(_resized(image, (width, height)), self._matrix)
        self._size = self._size or (image.shape[1], image.shape[0])
        image = np.ascontiguousarray(_resized(image, self._size))  # swscale pads its rows
        image.setflags(write=False)
        return image


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def upright(image: NDArray[np.uint8], matrix: Any | None) -> NDArray[np.uint8]:
    """Rotate and mirror a stored image by its display matrix, rounded to the nearest right angle.

    Parameters
    ----------
    image
        Shape (H, W, 3).
    matrix
        FFmpeg's display matrix, nine native int32 by rows (a buffer or an array), or None: a stored point
        (x, y) is shown at (m0 x + m3 y, m1 x + m4 y), shifted into view.
    """
    if matrix is None:
        return image
    m = np.frombuffer(matrix, dtype=np.int32)
    across, down = m[0], m[4]
    if abs(m[1]) > abs(m[0]):
        image = cv2.transpose(image)
        across, down = m[3], m[1]
    if across < 0:
        image = cv2.flip(image, -1 if down < 0 else 1)
    elif down < 0:
        image = cv2.flip(image, 0)
    return image
