"""Drawing on frames: text, bars, curves and the marks of a face. Images are RGB and changed in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from triptych.pipeline.report.frames import Marks

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (21, 24, 29)
PANEL: Colour = (30, 34, 41)
GRID: Colour = (52, 58, 68)
TEXT: Colour = (226, 230, 236)
DIM: Colour = (142, 150, 162)
BOX: Colour = (64, 200, 186)
LANDMARK: Colour = (244, 246, 250)
GAZE: Colour = (255, 178, 64)
BAR: Colour = (104, 168, 255)
CURVE: Colour = (104, 168, 255)
WARNING: Colour = (255, 120, 104)
SHIFT = 3  # OpenCV draws at fractions of 1/8 pixel


class Rect(NamedTuple):
    """A part of an image [pixels]."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Pen:
    """Draws text in one font; masks of texts are cached, since a video shows the same ones in every frame.

    Attributes
    ----------
    font
        A font file; None for Pillow's own, which has Latin letters.
    """

    font: Path | None

    def width(self, text: str, size: int) -> int:
        """Return how wide a text is [pixels]."""
        return round(_loaded(self.font, size).getlength(text))

    def write(
        self,
        image: Image,
        x: int,
        y: int,
        text: str,
        size: int = 14,
        colour: Colour = TEXT,
        align: str = "left",
    ) -> None:
        """Write one line with its top left, or with ``align="right"`` its top right, at x, y."""
        mask, rise = _mask(self.font, size, text)
        if align == "right":
            x -= mask.shape[1]
        _blend(image, x, y + rise, mask, colour)

    def lines(self, text: str, size: int, width: int) -> list[str]:
        """Break a text into lines of at most `width` pixels: at spaces, or between characters where there are none."""
        found, line = [], ""
        for part in _parts(text):
            if line.strip() and self.width(line + part.rstrip(), size) > width:
                found.append(line.rstrip())
                line = part.lstrip()
            else:
                line += part
        return [*found, line.rstrip()] if line.strip() else found


def _parts(text: str) -> list[str]:
    """Split a text where a line may end: after spaces, and after each character that is no letter of a word."""
    parts: list[str] = []
    for character in text:
        in_word = character.isascii() or (character.isalpha() and ord(character) < 0x2E80)
        if (
            parts
            and in_word
            and not parts[-1][-1].isspace()
            and (parts[-1].isascii() or ord(parts[-1][0]) < 0x2E80)
        ):
            parts[-1] += character
        elif parts and not character.isalnum() and not character.isspace():
            parts[-1] += character  # a full stop does not start a line
        else:
            parts.append(character)
    return parts


@lru_cache(32)
def _loaded(font: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if font is None else ImageFont.truetype(str(font), size)


@lru_cache(1024)
def _mask(font: Path | None, size: int, text: str) -> tuple[NDArray[np.float32], int]:
    """Return the coverage of a text, shape (h, w), 0 to 1, and how far it starts below the line's top."""
    loaded = _loaded(font, size)
    mask = loaded.getmask(text, mode="L")
    width, height = mask.size
    top = round(loaded.getbbox(text)[1])
    return np.array(mask, np.float32).reshape(height, width) / np.float32(255), top


def _blend(image: Image, x: int, y: int, mask: NDArray[np.float32], colour: Colour) -> None:
    height, width = image.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + mask.shape[1], width), min(y + mask.shape[0], height)
    if left >= right or top >= bottom:
        return
    part = image[top:bottom, left:right]
    share = mask[top - y : bottom - y, left - x : right - x, None]
    part[:] = np.rint(part + share * (np.array(colour, np.float32) - part)).astype(np.uint8)


def fill(image: Image, rect: Rect, colour: Colour) -> None:
    """Fill a rectangle."""
    image[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = colour


def polyline(image: Image, points: NDArray[np.floating], colour: Colour, thickness: int = 1) -> None:
    """Draw a line through points, shape (n, 2), at fractions of a pixel."""
    fixed = np.rint(np.asarray(points) * 2**SHIFT).astype(np.int32)[:, None]
    cv2.polylines(image, [fixed], False, colour, thickness, cv2.LINE_AA, SHIFT)


def dots(image: Image, points: NDArray[np.floating], colour: Colour, radius: float) -> None:
    """Draw dots at points, shape (n, 2)."""
    for x, y in np.rint(np.asarray(points) * 2**SHIFT).astype(int).tolist():
        cv2.circle(image, (x, y), round(radius * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


def draw_face(image: Image, marks: Marks, scale: float, corner: tuple[int, int]) -> None:
    """Draw box, landmarks and gaze onto an enlarged frame.

    Parameters
    ----------
    scale
        Pixels of the image per pixel of the frame.
    corner
        x and y of the frame's top left pixel in the image.
    """

    def placed(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points + 0.5) * scale - 0.5 + corner

    if marks.box is not None:
        left, top, right, bottom = marks.box
        outline = placed(np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]))
        polyline(image, outline, BOX, 2)
    if marks.landmarks is not None:
        points = placed(marks.landmarks)
        dots(image, points, BACKGROUND, 2.2)
        dots(image, points, LANDMARK, 1.5)
    for ray in () if marks.gaze is None else marks.gaze:
        polyline(image, placed(ray), GAZE, 2)
        dots(image, placed(ray)[:1], GAZE, 3)


def draw_bars(
    image: Image, rect: Rect, values: Sequence[float], top: float, shown: bool, label_width: int
) -> None:
    """Draw one horizontal bar a value, evenly spaced over a rectangle; empty tracks where nothing is shown."""
    step = rect.height / len(values)
    for number, value in enumerate(values):
        y = rect.y + round(number * step) + round(step / 2) - 4
        track = Rect(rect.x + label_width, y, rect.width - label_width, 8)
        fill(image, track, GRID)
        if shown:
            filled = round(track.width * min(max(value / top, 0.0), 1.0))
            fill(image, track._replace(width=filled), BAR)


def curve_points(
    rect: Rect,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    seconds: float,
    low: float,
    high: float,
) -> list[NDArray[np.float64]]:
    """Place a curve in a rectangle whose width is `seconds`; NaN values divide it into pieces, shape (n, 2) each."""
    x = rect.x + times / max(seconds, 1e-9) * (rect.width - 1)
    y = rect.y + (1 - (values - low) / max(high - low, 1e-9)) * (rect.height - 1)
    known = np.isfinite(values) & (times <= seconds)
    edges = np.flatnonzero(np.diff(known.astype(int))) + 1
    points = np.column_stack([x, np.clip(y, rect.y, rect.y + rect.height - 1)])
    pieces = zip(np.split(points, edges), np.split(known, edges), strict=True)
    return [piece for piece, is_known in pieces if is_known.any()]
