"""A moving face: the public-domain portrait that matplotlib ships, warped and painted frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIZE = 320  # side of a square frame, pixels

# All positions below are pixels of this one photograph (Rear Admiral Grace Hopper, U.S. Navy, public domain;
# 512 x 600). "Left" is the left side of the photograph.
_CROP = (45, 0, 440)  # x, y and side of the square that is shown
_PATCH = (150, 135, 235, 300)  # x, y, width and height of the region that the facial features may move
_HEAD = (262, 215)  # centre of the head's rotation
_HEAD_HALF, _HEAD_BOTTOM = 112, 345  # half width and lower end of the rigid head, including the hat's brim
_HEAD_FADE = 95  # distance over which the rotation fades out
_EYES = (  # x of the lid points, upper lid, lower lid
    (
        (203, 206, 209, 213, 220, 227, 235, 241, 245),
        (194, 192, 190, 187.5, 185.5, 185, 187, 190.5, 194),
        (194, 194.5, 195.5, 196.5, 197.5, 197, 196, 194.5, 194),
    ),
    (
        (287, 290, 295, 302, 309, 316, 320, 323, 326),
        (192, 189.5, 186, 183, 182, 183, 185, 187, 189.5),
        (192, 192.3, 192.5, 192.8, 192.8, 192, 191, 190, 189.5),
    ),
)
# The brows are pale in the photograph and are darkened, so that they can be seen behind the rims of the glasses.
_BROWS = (
    ((186, 198, 212, 228, 246), (171, 165.5, 163, 163.5, 167)),
    ((283, 300, 315, 328, 341), (164, 160.5, 159.5, 162, 167)),
)
_MOUTH = (
    (235, 245, 256, 268, 280, 290, 300),
    (280, 279.3, 278.8, 278.8, 278, 277.3, 277),
)  # line between the lips: x, y
_CHIN = 334.0  # y of its lowest point
_MOUTH_GAP = 21.0  # widest gap between the lips
_LID_FOLD = 6.0  # height of the skin above the open lid that moves with it
_LID_OVERLAP = 2.0  # distance by which the closed upper lid covers the lower lid
# Gaussian displacements: x, y, spread in x and y, displacement to the right and down.
_SMILE = (
    (234, 279, 15, 14, -6, -9),
    (301, 276, 15, 14, 6, -9),
    (215, 245, 20, 18, -1, -4),
    (325, 242, 20, 18, 1, -4),
)
_BROW_UP = ((214, 156, 26, 8, 0, -12), (314, 151.5, 26, 8, 0, -12))
_BROW_DOWN = ((228, 163, 22, 7, 6, 8), (298, 160, 22, 7, -6, 8))
_MOUTH_INSIDE = np.array([58, 22, 22], np.float32)
_BROW = np.array([96, 66, 52], np.float32)
_LID = np.array([202, 141, 114], np.float32)
_LASHES = np.array([62, 36, 30], np.float32)
_STEP = 8  # spacing of the grid on which the head's rotation is computed, pixels
_NECK = 405.0  # y below which the jaw moves nothing


@dataclass(frozen=True)
class Pose:
    """The face in one frame.

    Attributes
    ----------
    roll
        Rotation of the head in degrees, clockwise as seen: the sign of OpenFace's ``pose_Rz``.
    shift_x, shift_y
        Shift of the head, pixels to the right and downwards.
    mouth
        Opening of the mouth: 0 closed, 1 fully open.
    blink
        Closure of both lids: 0 open, 1 closed.
    smile
        Corners of the mouth: -1 down, 0 as photographed, 1 up.
    brow
        Brows: -1 lowered and drawn together, 0 as photographed, 1 raised.
    """

    roll: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    mouth: float = 0.0
    blink: float = 0.0
    smile: float = 0.0
    brow: float = 0.0


@dataclass(frozen=True)
class _Eye:
    """Rows and columns of an eye in the patch; for each column the y of its lids, and 1 between its corners."""

    region: tuple[slice, slice]
    upper: Floats
    lower: Floats
    width: Floats


def _smoothstep(t: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    share = np.clip(t, 0, 1)
    step: NDArray[np.floating[Any]] = share * share * (3 - 2 * share)
    return step


class Portrait:
    """The photograph and the displacement fields that move it; created once, drawn for each frame."""

    def __init__(self) -> None:
        x, y, side = _CROP
        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if photo is None:
            raise FileNotFoundError(f"{path}: matplotlib's sample photograph not found; reinstall matplotlib")
        self._scale = SIZE / side
        self._image = cv2.resize(
            photo[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA
        )

        px, py, width, height = _PATCH
        left, top = round((px - x) * self._scale), round((py - y) * self._scale)
        right, bottom = round((px + width - x) * self._scale), round((py + height - y) * self._scale)
        self._patch = (slice(top, bottom), slice(left, right))
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        # Pixel centres: column c of the resized image shows the photograph at (c + 1/2) / scale - 1/2.
        self._x = (columns + 0.5) / self._scale - 0.5 + x
        self._y = (rows + 0.5) / self._scale - 0.5 + y
        self._eyes = tuple(self._eye(*points) for points in _EYES)
        self._darken_brows()
        self._smile, self._brow_up, self._brow_down = (
            np.sum([self._bump(*bump) for bump in bumps], axis=0) for bumps in (_SMILE, _BROW_UP, _BROW_DOWN)
        )
        self._smile_at_lips = self._at_lips(self._smile[1])
        self._coarse = (np.arange(SIZE // _STEP, dtype=np.float32) + 0.5) * _STEP - 0.5
        self._head = self._head_weight()

    def draw(self, pose: Pose) -> NDArray[np.uint8]:
        """Draw one frame.

        Returns
        -------
        ndarray
            RGB, uint8, shape (320, 320, 3).
        """
        image = self._image.copy()
        image[self._patch] = self._features(pose)
        return self._rotate(image, pose)

    def _darken_brows(self) -> None:
        patch = self._image[self._patch].astype(np.float32)
        for x, y in _BROWS:
            ends = np.clip((self._x - x[0]) / 5, 0, 1) * np.clip((x[-1] - self._x) / 5, 0, 1)
            stroke = 0.75 * ends * np.exp(-(((self._y - np.interp(self._x, x, y)) / 3) ** 2))
            patch += stroke[..., None] * (_BROW - patch)
        self._image[self._patch] = np.rint(patch).astype(np.uint8)

    def _bump(
        self, x: float, y: float, spread_x: float, spread_y: float, move_x: float, move_y: float
    ) -> Floats:
        """A Gaussian displacement to the right and down, in the photograph's pixels; shape (2, h, w)."""
        weight = np.exp(-(((self._x - x) / spread_x) ** 2 + ((self._y - y) / spread_y) ** 2) / 2)
        return np.stack([move_x * weight, move_y * weight])

    def _at_lips(self, field: Floats) -> Floats:
        """The values of a field along the line between the lips; shape (w,)."""
        rows = np.interp(self._x[0], *_MOUTH)
        nearest = np.abs(self._y[:, :1] - rows).argmin(axis=0)
        return np.asarray(field[nearest, np.arange(field.shape[1])])

    def _eye(self, x: tuple[float, ...], upper: tuple[float, ...], lower: tuple[float, ...]) -> _Eye:
        columns = np.flatnonzero((self._x[0] > x[0] - 2) & (self._x[0] < x[-1] + 2))
        rows = np.flatnonzero((self._y[:, 0] > min(upper) - _LID_FOLD - 2) & (self._y[:, 0] < max(lower) + 4))
        region = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        column_x = self._x[0, region[1]]
        high, low = (np.interp(column_x, x, points).astype(np.float32) for points in (upper, lower))
        return _Eye(region, high, low, np.clip((low - high) / 3, 0, 1))

    def _head_weight(self) -> Floats:
        """1 where the head rotates rigidly, 0 at the shoulders and the background; coarse, shape (n, n)."""
        x = (self._coarse + 0.5) / self._scale - 0.5 + _CROP[0]
        y = (self._coarse[:, None] + 0.5) / self._scale - 0.5 + _CROP[1]
        beside = 1 - _smoothstep((np.abs(x - _HEAD[0]) - _HEAD_HALF) / _HEAD_FADE)
        below = 1 - _smoothstep((y - _HEAD_BOTTOM) / _HEAD_FADE)
        return np.asarray(beside * below, np.float32)

    def _features(self, pose: Pose) -> NDArray[np.uint8]:
        """Move and paint eyes, brows and mouth, before the head's rotation."""
        brow = self._brow_up * max(pose.brow, 0.0) + self._brow_down * max(-pose.brow, 0.0)
        dx, dy = pose.smile * self._smile + brow
        lips = (np.interp(self._x[0], *_MOUTH) + pose.smile * self._smile_at_lips).astype(np.float32)
        drop, gap = self._open_mouth(lips, pose.mouth)
        image = self._sample(self._x - dx, self._y - dy - drop)
        image += gap[..., None] * (_MOUTH_INSIDE - image)
        for eye in self._eyes:
            self._close(image, eye, pose.blink)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def _sample(self, x: Floats, y: Floats) -> Floats:
        """The resting face at positions given in the photograph's pixels; float32, shape (h, w, 3)."""
        image_x = (x - _CROP[0] + 0.5) * self._scale - 0.5
        image_y = (y - _CROP[1] + 0.5) * self._scale - 0.5
        sampled = cv2.remap(self._image, image_x, image_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(sampled, np.float32)

    def _open_mouth(self, lips: Floats, opening: float) -> tuple[Floats, Floats]:
        """The downward displacement of each pixel, and the share of it that shows the inside of the mouth.

        The upper lip moves up a little, the lower lip down, and the jaw with it as far as the neck.
        """
        x, y = self._x[0], self._y
        left, right = _MOUTH[0][0], _MOUTH[0][-1]
        across = (x - (left + right) / 2) / ((right - left) / 2)
        gap = opening * _MOUTH_GAP * np.clip(1 - across**2, 0, None) ** 0.7
        jaw = opening * _MOUTH_GAP * np.exp(-((across / 2.4) ** 4))
        upper, lower, chin = lips - 0.2 * gap, lips + 0.8 * gap, _CHIN + jaw
        to_chin = _smoothstep((y - lower) / (chin - lower))
        past_chin = _smoothstep((y - chin) / (_NECK - chin))
        below = (0.8 * gap + (jaw - 0.8 * gap) * to_chin) * (1 - past_chin)
        above = -0.2 * gap * _smoothstep((y - upper + 24) / 24)
        inside = self._edge(y - upper) + self._edge(lower - y) - 1
        return np.where(y > (upper + lower) / 2, below, above), inside

    def _edge(self, distance: Floats) -> Floats:
        """Coverage, 0 to 1, of a pixel at this distance (in the photograph's pixels) inside an edge."""
        covered: Floats = np.clip(distance * self._scale + 0.5, 0, 1)
        return covered

    def _close(self, image: Floats, eye: _Eye, blink: float) -> None:
        """Draw the upper lid down over an eye, in place."""
        x, y = self._x[eye.region], self._y[eye.region]
        lid = eye.upper + blink * (eye.lower + _LID_OVERLAP * eye.width - eye.upper)
        fold = eye.upper - _LID_FOLD
        stretched = fold + (y - fold) * (eye.upper - fold) / (lid - fold)
        skin = self._sample(x, np.where(y > fold, stretched, y))
        paint = min(1.0, 2 * blink) * eye.width
        skin += (0.8 * paint * _smoothstep((y - fold) / 3))[..., None] * (_LID - skin)
        pixels = image[eye.region]
        pixels += self._edge(lid - y)[..., None] * (skin - pixels)
        lashes = paint * np.exp(-(((y - lid) / 1.3) ** 2))
        pixels += 0.8 * lashes[..., None] * (_LASHES - pixels)

    def _rotate(self, image: NDArray[np.uint8], pose: Pose) -> NDArray[np.uint8]:
        """Rotate and shift the head; the edge of the frame and the shoulders stay fixed."""
        centre_x = (_HEAD[0] - _CROP[0] + 0.5) * self._scale - 0.5
        centre_y = (_HEAD[1] - _CROP[1] + 0.5) * self._scale - 0.5
        angle = -np.deg2rad(pose.roll) * self._head
        cos, sin = np.cos(angle), np.sin(angle)
        x = self._coarse - centre_x - self._head * pose.shift_x
        y = self._coarse[:, None] - centre_y - self._head * pose.shift_y
        from_x = (centre_x + cos * x - sin * y).astype(np.float32)
        from_y = (centre_y + sin * x + cos * y).astype(np.float32)
        fine = [cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for grid in (from_x, from_y)]
        rotated = cv2.remap(image, fine[0], fine[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(rotated, np.uint8)
