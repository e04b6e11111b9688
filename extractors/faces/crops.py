"""Crops of a clip about the tracked face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from triptych.extractors.base import Features, Frame
from triptych.extractors.faces.mtcnn import BOX, POINTS, SAME_FACE, Face, Faces, Image, steps

STABLE_MARGIN, STABLE_SIGMA = 1.4, 3.0  # side of the stable crop in boxes; smoothing of its centre in rows
# A larger step between rows that does not go back is a cut: 99.9 % of a person's own steps are below 0.12.
CUT = 0.2


class CropSettings(Protocol):
    """How frames are cut: `input` chooses the kind of crop, `image_size` is the side of a crop [pixels]."""

    @property
    def input(self) -> Literal["stable", "original", "frame"]: ...
    @property
    def image_size(self) -> int: ...


class Aligned(NamedTuple):
    """One frame as a vision backend reads it.

    Attributes
    ----------
    slot, time
        As in `Frame`.
    image
        RGB, uint8, shape (image_size, image_size, 3), or the whole image.
    found
        The track has a face in this row.
    face
        The track's row, shape (15,), its box and points in the image's pixels.
    """

    slot: int
    time: float
    image: Image
    found: bool
    face: Face


def aligned(frames: Iterable[Frame], track: Features, settings: CropSettings) -> Iterator[Aligned]:
    """Cut the tracked face out of every frame for a vision backend.

    ``stable``: a square of one size for as long as the shot lasts, about a centre smoothed over time; what
    lies outside the image repeats the image's edge. Where the track has no face the centre is interpolated
    between its neighbours, so that the backend may still find one. ``original``: each row's own box, stretched
    to a square as facenet-pytorch does it; black where there is no face. ``frame``: the whole image.

    Parameters
    ----------
    frames
        The frames that the track was made from.
    track
        The result of `FaceTracker.extract`.
    settings
        Which of the three, and the side of the crops.

    Yields
    ------
    Aligned
        One for each frame, in order.

    Raises
    ------
    ValueError
        When there are more or fewer frames than rows of the track.
    """
    squares = _stable_squares(track)
    size = settings.image_size
    for frame, row, found, square in zip(frames, track.values, track.valid, squares, strict=True):
        image, face = frame.image, row
        if settings.input == "stable":
            x, y, side = square
            image, face = _crop(frame.image, square, size), _moved(row, (x, y, side, side), size)
        elif settings.input == "original":
            box = _whole_pixels(frame.image.shape[1::-1], row) if found else None
            image = _original(frame.image, box, size)
            face = _moved(row, (box[0], box[1], box[2] - box[0], box[3] - box[1]), size) if box else row
        yield Aligned(frame.slot, frame.time, image, bool(found), face)


def cuts(track: Features, settings: CropSettings, frame_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return which part of its frame each crop of `aligned` shows.

    Parameters
    ----------
    frame_size
        Width and height of the frames [pixels].

    Returns
    -------
    NDArray[np.float64]
        Shape (T, 4): left, top, width and height [pixels of the frame]; NaN where a crop shows nothing of it. A
        stable crop may reach beyond the frame.
    """
    width, height = frame_size
    if settings.input == "frame":
        return np.tile([0.0, 0.0, width, height], (len(track), 1))
    if settings.input == "stable":
        squares = _stable_squares(track)
        return np.column_stack([squares, squares[:, 2]])
    found = np.full((len(track), 4), np.nan)
    for row in np.flatnonzero(track.valid):
        x, y, right, bottom = _whole_pixels(frame_size, track.values[row])
        found[row] = x, y, right - x, bottom - y
    return found


def in_frame(
    points: NDArray[np.floating[Any]], cut: NDArray[np.float64], image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Map points of a crop to its frame: the inverse of the transform by which the crop was cut.

    Whole numbers are the centres of pixels on both sides, as `cv2.warpAffine` and OpenFace count them.

    Parameters
    ----------
    points
        Shape (n, 2), x and y [pixels of the crop].
    cut
        One row of `cuts`.
    image_size
        Width and height of the crop [pixels].

    Returns
    -------
    NDArray[np.float64]
        Shape (n, 2), x and y [pixels of the frame].
    """
    return cut[:2] + (np.asarray(points, np.float64) + 0.5) * (cut[2:] / image_size) - 0.5


def _moved(face: Face, cut: tuple[float, float, float, float], size: int) -> Face:
    """Return a row of the track in the pixels of a crop: cut at x, y, width and height, resized to `size`."""
    moved = face.copy()
    for part in (BOX, POINTS):
        pairs = moved[part].reshape(-1, 2)
        moved[part] = ((pairs - cut[:2]) * size / np.maximum(cut[2:], 1)).reshape(-1)
    return moved


def _stable_squares(track: Features) -> NDArray[np.float64]:
    """Corner x, y and side of the stable crop in each row, shape (T, 3)."""
    seen = np.flatnonzero(track.valid)
    faces = track.values[seen]
    jumps = _cuts(faces, seen)
    shots = np.split(np.arange(len(seen)), jumps)
    # Rows without a face between two shots are divided between the shots.
    ends = [(seen[first - 1] + seen[first] + 1) // 2 for first in jumps]
    squares = np.empty((len(track), 3))
    for shot, begin, end in zip(shots, [0, *ends], [*ends, len(track)], strict=True):
        boxes = faces[shot, BOX].astype(np.float64)
        side = STABLE_MARGIN * np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
        rows = np.arange(begin, end)
        for axis in (0, 1):
            middle = np.interp(rows, seen[shot], (boxes[:, axis] + boxes[:, axis + 2]) / 2)
            squares[begin:end, axis] = gaussian_filter1d(middle, STABLE_SIGMA, mode="nearest") - side / 2
        squares[begin:end, 2] = side
    return squares


def _cuts(faces: Faces, rows: NDArray[np.int64]) -> list[int]:
    """Return the indices of the faces with which another shot starts."""
    limits = np.where(np.diff(rows) == 1, CUT, SAME_FACE)
    cuts = []
    for index in np.flatnonzero(steps(faces[:-1], faces[1:]) >= limits) + 1:
        # One wrong row is no cut: the medians before and after it must differ by such a step too.
        before, after = (
            np.median(side, axis=0) for side in (faces[max(index - 5, 0) : index], faces[index : index + 5])
        )
        if steps(before, after) >= limits[index - 1]:
            cuts.append(int(index))
    return cuts


def _crop(image: Image, square: NDArray[np.float64], size: int) -> Image:
    """Cut a square out of the image, at sub-pixel precision, and resize it to `size`."""
    x, y, side = square
    # Bilinear sampling skips pixels when it shrinks, so shrinking is done in whole steps by averaging.
    shrink = max(1, round(side / size))
    scale = side / (size * shrink)
    middle = (scale - 1) / 2
    matrix = np.array([[scale, 0, x + middle], [0, scale, y + middle]])
    # Outside the image its edge is repeated: black would draw a line across the face, and contours are what
    # landmark models look for.
    crop: Image = cv2.warpAffine(
        image,
        matrix,
        (size * shrink, size * shrink),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if shrink > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return crop


def _whole_pixels(frame_size: tuple[int, ...], face: Face) -> tuple[int, int, int, int]:
    """Return a face's box as facenet-pytorch's ``extract_face`` cuts it: whole pixels, within the image."""
    width, height = frame_size
    x, y, right, bottom = face[BOX].astype(np.float64)
    return int(max(x, 0)), int(max(y, 0)), int(min(right, width)), int(min(bottom, height))


def _original(image: Image, box: tuple[int, int, int, int] | None, size: int) -> Image:
    """Cut as facenet-pytorch's ``extract_face`` does with a PIL image, bilinear; black without a box."""
    if box is None:
        return np.zeros((size, size, 3), np.uint8)
    import PIL.Image  # only this crop needs it

    cropped = PIL.Image.fromarray(image).crop(box)
    return np.asarray(cropped.resize((size, size), PIL.Image.Resampling.BILINEAR))
