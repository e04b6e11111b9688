"""The page of an overlay video: where everything is, what stays, and what changes from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.vision.columns import AU_INTENSITIES, AU_NAMES
from triptych.pipeline.report import drawing
from triptych.pipeline.report.drawing import (
    BACKGROUND,
    CURVE,
    DIM,
    GRID,
    PANEL,
    TEXT,
    WARNING,
    Image,
    Pen,
    Rect,
)
from triptych.pipeline.report.fonts import label_font
from triptych.pipeline.report.frames import ClipMarks, MarkedFrame

MARGIN, GAP = 16, 10
FRAME_HEIGHT, NARROWEST, WIDEST = 480, 400, 854  # of the area of the frame
SIDE_WIDTH = 320
TEXT_SIZE, TEXT_LINES, LINE_HEIGHT = 21, 2, 29
F0_HEIGHT, LOUDNESS_HEIGHT, AXIS_HEIGHT = 104, 70, 22
CURVE_HEADER = 24
AU_ROWS_HEIGHT = 340
STRONGEST = 5.0  # of an action unit


@dataclass(frozen=True)
class Curve:
    """Values over time [s]; NaN where there is none."""

    name: str
    unit: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    decimals: int = 0


@dataclass(frozen=True)
class ClipCurves:
    """The curves below the frame: pitch, or what stands for it, and loudness; None where the rows have none."""

    pitch: Curve | None = None
    loudness: Curve | None = None

    @classmethod
    def of(cls, audio: Features | None) -> ClipCurves:
        """Take them from rows of the stage ``audio``."""
        if audio is None or not len(audio):
            return cls()
        times = np.asarray(audio.times, np.float64)

        def column(name: str) -> NDArray[np.float64]:
            return audio.values[:, audio.columns.index(name)].astype(np.float64)

        pitch = loudness = None
        if "log_f0" in audio.columns:
            voiced = np.asarray(audio.extras.get("voiced", column("log_f0") > 0), bool)
            pitch = Curve("F0", "Hz", times, np.where(voiced, np.exp(column("log_f0")), np.nan))
        elif "zcr" in audio.columns:
            pitch = Curve("zero crossings", "a sample", times, column("zcr"), 2)
        if "mfcc_0" in audio.columns:
            loudness = Curve("MFCC 0 (loudness)", "dB", times, column("mfcc_0"))
        return cls(pitch, loudness)


class Canvas:
    """Draws the images of one clip's overlay video.

    Parameters
    ----------
    title
        Shown above the action units.
    frame_size
        Width and height of the clip's frames; None where it has none.
    text
        The transcript; empty for none. A long one is shown by pages, as time goes on.
    text_font
        A font with its characters.
    marks
        The clip's face track and vision rows.
    curves
        Its sound.
    seconds
        Length of the time axis [s].

    Attributes
    ----------
    size
        Width and height of the images, both even.
    frame_rect
        Where the frame is shown.
    """

    def __init__(
        self,
        title: str,
        frame_size: tuple[int, int] | None,
        text: str,
        text_font: Path | None,
        marks: ClipMarks,
        curves: ClipCurves,
        seconds: float,
    ) -> None:
        self._title, self._marks, self._seconds = title, marks, seconds
        self._pen, self._text_pen = Pen(label_font()), Pen(text_font)
        width, height = frame_size or (640, 480)
        area = min(max(round(FRAME_HEIGHT * width / height), NARROWEST), WIDEST)
        self._area = Rect(MARGIN, MARGIN, area + area % 2, FRAME_HEIGHT)
        self.frame_rect = _fitted(self._area, width, height)
        self._side = Rect(self._area.x + self._area.width + MARGIN, MARGIN, SIDE_WIDTH, FRAME_HEIGHT)
        inner = self._side.x + SIDE_WIDTH - MARGIN
        y = MARGIN + FRAME_HEIGHT + GAP
        lines = self._text_pen.lines(text, TEXT_SIZE, inner) if text else []
        self._pages = [lines[first : first + TEXT_LINES] for first in range(0, len(lines), TEXT_LINES)]
        self._text_corner = MARGIN, y
        y += min(len(lines), TEXT_LINES) * LINE_HEIGHT + GAP * bool(lines)
        self._plots: list[tuple[Rect, Curve]] = []
        for curve, tall in ((curves.pitch, F0_HEIGHT), (curves.loudness, LOUDNESS_HEIGHT)):
            if curve is not None:
                self._plots.append((Rect(MARGIN, y, inner, tall), curve))
                y += tall + GAP // 2
        self._axis = Rect(MARGIN, y, inner, AXIS_HEIGHT)
        self.size = (inner + 2 * MARGIN, (y + AXIS_HEIGHT + GAP) // 2 * 2)
        self._base = self._draw_base()

    def draw(self, slot: int, frame: MarkedFrame | None) -> Image:
        """Draw the image of one slot of the frame grid: RGB, uint8, shape (height, width, 3)."""
        image = self._base.copy()
        time = slot / self._marks.frame_rate
        self._draw_frame(image, frame)
        self._draw_numbers(image, time, frame)
        if self._pages:
            page = self._pages[min(int(time / self._seconds * len(self._pages)), len(self._pages) - 1)]
            for number, line in enumerate(page):
                x, y = self._text_corner
                self._text_pen.write(image, x, y + number * LINE_HEIGHT, line, TEXT_SIZE)
        now = self._axis.x + time / self._seconds * (self._axis.width - 1)
        top = self._plots[0][0].y if self._plots else self._axis.y
        drawing.polyline(image, np.array([(now, top), (now, self._axis.y + 5)]), TEXT, 2)
        return image

    def _draw_base(self) -> Image:
        width, height = self.size
        image = np.empty((height, width, 3), np.uint8)
        image[:] = BACKGROUND
        drawing.fill(image, self._area, PANEL)
        drawing.fill(image, self._side, PANEL)
        if self._marks.vision is not None:
            self._pen.write(image, self._side.x + 12, self._side.y + 60, "action units, 0 to 5", 13, DIM)
            step = AU_ROWS_HEIGHT / len(AU_INTENSITIES)
            for number, unit in enumerate(AU_INTENSITIES):
                y = self._side.y + 82 + round(number * step) + 1
                self._pen.write(image, self._side.x + 12, y, f"{unit}  {AU_NAMES[unit]}", 12)
        else:
            self._pen.write(image, self._side.x + 12, self._side.y + 60, "no vision rows", 13, DIM)
        for rect, curve in self._plots:
            self._draw_curve(image, rect, curve)
        self._draw_axis(image)
        return image

    def _draw_curve(self, image: Image, rect: Rect, curve: Curve) -> None:
        drawing.fill(image, rect, PANEL)
        known = curve.values[np.isfinite(curve.values)]
        if not len(known):
            self._pen.write(image, rect.x + 8, rect.y + 6, f"{curve.name}: no voiced rows", 12, DIM)
            return
        low, high = float(known.min()), float(known.max())
        span = f"{low:.{curve.decimals}f} to {high:.{curve.decimals}f} {curve.unit}"
        self._pen.write(image, rect.x + 8, rect.y + 6, curve.name, 12, TEXT)
        self._pen.write(image, rect.x + rect.width - 8, rect.y + 6, span, 12, DIM, "right")
        plot = Rect(rect.x, rect.y + CURVE_HEADER, rect.width, rect.height - CURVE_HEADER - 6)
        for piece in drawing.curve_points(plot, curve.times, curve.values, self._seconds, low, high):
            if len(piece) == 1:
                drawing.dots(image, piece, CURVE, 1.2)
            else:
                drawing.polyline(image, piece, CURVE, 2)

    def _draw_axis(self, image: Image) -> None:
        step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 300, 600) if self._seconds / s <= 12), 3600)
        for number in range(int(self._seconds / step) + 1):
            x = self._axis.x + round(number * step / self._seconds * (self._axis.width - 1))
            for rect, _ in self._plots:
                image[rect.y : rect.y + 4, x] = GRID
            label = f"{number * step:g} s"
            if x + self._pen.width(label, 12) <= self._axis.x + self._axis.width:
                self._pen.write(image, x, self._axis.y + 5, label, 12, DIM)

    def _draw_frame(self, image: Image, frame: MarkedFrame | None) -> None:
        rect = self.frame_rect
        if frame is None:
            self._tag(image, "no frame", DIM)
            return
        width = frame.image.shape[1]
        smaller = rect.width < width
        kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        shown = cv2.resize(frame.image, (rect.width, rect.height), interpolation=kind)
        image[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = shown
        # Boxes may reach beyond the frame: what is drawn there is cut off.
        area = image[
            self._area.y : self._area.y + self._area.height, self._area.x : self._area.x + self._area.width
        ]
        corner = (rect.x - self._area.x, rect.y - self._area.y)
        drawing.draw_face(area, frame.marks, rect.width / width, corner)
        if self._marks.track is not None and frame.marks.box is None:
            self._tag(image, "no face", WARNING)
        elif frame.marks.vision_row is not None and frame.marks.landmarks is None:
            self._tag(image, "face without usable landmarks", WARNING)

    def _tag(self, image: Image, text: str, colour: drawing.Colour) -> None:
        rect = Rect(self.frame_rect.x + 10, self.frame_rect.y + 10, self._pen.width(text, 15) + 20, 28)
        drawing.fill(image, rect, BACKGROUND)
        self._pen.write(image, rect.x + 10, rect.y + 6, text, 15, colour)

    def _draw_numbers(self, image: Image, time: float, frame: MarkedFrame | None) -> None:
        x, y = self._side.x + 12, self._side.y
        self._pen.write(image, x, y + 12, _shortened(self._pen, self._title, 15, SIDE_WIDTH - 24), 15)
        self._pen.write(image, x, y + 34, f"{time:.2f} of {self._seconds:.2f} s", 13, DIM)
        vision, row = self._marks.vision, None if frame is None else frame.marks.vision_row
        if vision is None:
            return
        shown = row is not None and bool(vision.valid[row])

        def value(name: str) -> float:
            return float(vision.values[row, vision.columns.index(name)]) if shown else 0.0

        bars = Rect(x, y + 80, SIDE_WIDTH - 24, AU_ROWS_HEIGHT)
        intensities = [value(f"AU{unit}_r") for unit in AU_INTENSITIES]
        drawing.draw_bars(image, bars, intensities, STRONGEST, shown, 168)
        gaze = _degrees([("x", value("gaze_angle_x")), ("y", value("gaze_angle_y"))], shown)
        pose = [(axis, value(f"pose_R{axis}")) for axis in "xyz"]
        self._pen.write(image, x, y + 432, f"gaze  {gaze}", 13)
        self._pen.write(image, x, y + 454, f"head  {_degrees(pose, shown)}", 13)


def _fitted(area: Rect, width: int, height: int) -> Rect:
    """Return the largest rectangle of a frame's shape in the middle of an area."""
    scale = min(area.width / width, area.height / height)
    w, h = max(round(width * scale), 1), max(round(height * scale), 1)
    return Rect(area.x + (area.width - w) // 2, area.y + (area.height - h) // 2, w, h)


def _degrees(angles: Sequence[tuple[str, float]], shown: bool) -> str:
    return "   ".join(
        f"{axis} {round(np.rad2deg(angle)):+d}°" if shown else f"{axis} –" for axis, angle in angles
    )


def _shortened(pen: Pen, text: str, size: int, width: int) -> str:
    if pen.width(text, size) <= width:
        return text
    while text and pen.width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"
