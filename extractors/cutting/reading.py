"""The frames of a recording in one decoding pass: reduced copies of those that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from triptych.extractors.media.clock import FRAMES_A_BYTE, LengthLimit, start_time
from triptych.extractors.media.decoding import Tally, damage, decoded
from triptych.extractors.media.frames import MAX_PIXEL_ASPECT, FrameConverter, Spans, upright
from triptych.extractors.media.joins import Joins, find_joins, may_jump
from triptych.extractors.media.opening import best_streams, chosen_stream, opened
from triptych.extractors.settings import MediaSettings

SHOT_SIZE = (48, 27)  # width and height of the frames that shots are found in
CLOCK = Fraction(1000)  # frames are due at whole milliseconds


class Recording:
    """The frames of one file; interlaced ones stay as they are, since they are reduced.

    Parameters
    ----------
    path
        Any file that FFmpeg reads.
    settings
        Limits of length and size.

    Attributes
    ----------
    end
        Where the last frame ends [s], once all were read.
    notes
        Sentences on what is missing of the frames, once all were read.
    size
        Width and height of the first frame, upright and in square pixels.
    """

    def __init__(self, path: Path, settings: MediaSettings) -> None:
        self.path = path
        self.end = 0.0
        self.notes: tuple[str, ...] = ()
        self.size = (0, 0)
        self._settings = settings
        self._aspect = Fraction(1)
        self._matrix: Any | None = None
        self._large, self._small = VideoReformatter(), VideoReformatter()

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yield (time [s], decoded frame) by rising time; a frame that is due before an earlier one is left out.

        Raises
        ------
        ExtractionError
            As `triptych.extractors.media.source.MediaSource.frames`.
        """
        limit = LengthLimit.of(self.path, self._settings.max_seconds, float(CLOCK), FRAMES_A_BYTE)
        with opened(self.path) as container:
            streams = best_streams(container)
            joins = find_joins(container, *streams, start_time(container)) if may_jump(container) else None
        with opened(self.path) as container:
            stream, tally = chosen_stream(container, "video", self.path), Tally()
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self._aspect = aspect if 1 <= aspect * MAX_PIXEL_ASPECT <= MAX_PIXEL_ASPECT**2 else Fraction(1)
            checked = FrameConverter(self._aspect, self._settings.max_pixels, self.path)
            checked.check(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.options = {"max_pixels": str(2 * self._settings.max_pixels + 2**16)}
            spans, latest = Spans.of(container, stream, CLOCK), -1
            joins = joins or Joins()
            for due, end, frame in spans(decoded(container, stream, self.path, joins, tally)):
                limit.check(Fraction(due) / CLOCK)
                if due <= latest:
                    continue
                if latest < 0:
                    self._start(frame)
                latest, self.end = due, float(end / CLOCK)
                yield float(due / CLOCK), frame
            self.notes = (
                *joins.notes,
                *damage(container, stream, joins, tally),
                *spans.notes(stream, deinterlaced=True),
            )

    def small(self, frame: Any) -> NDArray[np.uint8]:
        """Reduce a frame to RGB of shape (27, 48, 3), as stored: not rotated."""
        width, height = SHOT_SIZE
        reduced = self._small.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="AREA", threads=1
        )
        return cast("NDArray[np.uint8]", reduced.to_ndarray())

    def reduced(self, frame: Any, side: int) -> NDArray[np.uint8]:
        """Convert a frame to RGB, upright, in square pixels, its shorter side at most `side` pixels."""
        shown = (frame.width * self._aspect, frame.height)
        scale = min(Fraction(1), Fraction(side) / min(shown))
        width, height = (max(round(length * scale), 1) for length in shown)
        rgb = self._large.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
        )
        image: NDArray[np.uint8] = np.ascontiguousarray(
            upright(cast("NDArray[np.uint8]", rgb.to_ndarray()), self._matrix)
        )
        return image

    def _start(self, frame: Any) -> None:
        """Read the display matrix once: PyAV's side data and its frame hold each other."""
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        self._matrix = None if matrix is None else bytes(matrix)
        shown = np.zeros((2, 2, 3), np.uint8)
        shown[0, 1] = 1
        turned = upright(cv2.resize(shown, (3, 2)), self._matrix).shape[0] == 3
        width, height = round(frame.width * self._aspect), frame.height
        self.size = (height, width) if turned else (width, height)
