"""A face that moves: the public-domain portrait that matplotlib ships, bent and painted frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIZE = 320  # side of the square picture, pixels

# Everything below is a place in this one photograph (Rear Admiral Grace Hopper, U.S. Navy, public domain;
# 512 x 600), in its own pixels. "Left" is the left of the picture.
_CROP = (45, 0, 440)  # x, y and side of the square that is shown
_PATCH = (150, 135, 235, 300)  # x, y, width and height of the part that the features may bend
_HEAD = (262, 215)  # the point about which the head turns
_HEAD_HALF, _HEAD_BOTTOM = 112, 345  # within these it turns as one piece, the hat's brim included
_HEAD_FADE = 95  # over which the turn dies away
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
# The brows, pale in the photograph, are pencilled in: behind the rims of the glasses nobody saw them move.
_BROWS = (
    ((186, 198, 212, 228, 246), (171, 165.5, 163, 163.5, 167)),
    ((283, 300, 315, 328, 341), (164, 160.5, 159.5, 162, 167)),
)
_MOUTH = (
    (235, 245, 256, 268, 280, 290, 300),
    (280, 279.3, 278.8, 278.8, 278, 277.3, 277),
)  # where the lips meet
_CHIN = 334.0  # y of its lowest point
_MOUTH_GAP = 21.0  # widest gap between the lips
_LID_FOLD = 6.0  # how far above the open lid the skin begins that follows it
_LID_OVERLAP = 2.0  # how far the shut upper lid goes past the lower lid's edge
# Bumps of movement: x, y, spread in x and y, movement to the right and down.
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
_STEP = 8  # pixels between the places where the head's turn is computed
_NECK = 405.0  # y below which nothing follows the jaw


@dataclass(frozen=True)
class Pose:
    """What the face does in one picture.

    Attributes
    ----------
    roll
        Degrees, clockwise as seen: the sense of OpenFace's ``pose_Rz``.
    shift_x, shift_y
        Of the head, pixels to the right and downwards.
    mouth
        Opening: 0 closed, 1 as wide as it goes.
    blink
        Closure of both lids: 0 open, 1 shut.
    smile
        Corners of the mouth: -1 down, 0 as photographed, 1 up.
    brow
        -1 lowered and drawn together, 0 as photographed, 1 raised.
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
    """Rows and columns of the patch that hold an eye; by column its lids' y, and 1 between its corners."""

    place: tuple[slice, slice]
    upper: Floats
    lower: Floats
    width: Floats


def _smoothstep(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


class Portrait:
    """The photograph and the fields that bend it; made once, drawn many times."""

    def __init__(self) -> None:
        x, y, side = _CROP
        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if photo is None:
            raise FileNotFoundError(
                f"{path}: matplotlib's sample photograph is not here; reinstall matplotlib"
            )
        self._scale = SIZE / side
        self._picture = cv2.resize(
            photo[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA
        )

        px, py, width, height = _PATCH
        left, top = round((px - x) * self._scale), round((py - y) * self._scale)
        right, bottom = round((px + width - x) * self._scale), round((py + height - y) * self._scale)
        self._patch = (slice(top, bottom), slice(left, right))
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        # Pixel centres: column c of the resized picture shows the photograph at (c + 1/2) / scale - 1/2.
        self._x = (columns + 0.5) / self._scale - 0.5 + x
        self._y = (rows + 0.5) / self._scale - 0.5 + y
        self._eyes = tuple(self._eye(*points) for points in _EYES)
        self._pencil_brows()
        self._smile, self._brow_up, self._brow_down = (
            np.sum([self._bump(*bump) for bump in bumps], axis=0) for bumps in (_SMILE, _BROW_UP, _BROW_DOWN)
        )
        self._smile_at_lips = self._at_lips(self._smile[1])
        self._coarse = (np.arange(SIZE // _STEP, dtype=np.float32) + 0.5) * _STEP - 0.5
        self._head = self._head_weight()

    def draw(self, pose: Pose) -> NDArray[np.uint8]:
        """Draw one picture.

        Returns
        -------
        ndarray
            RGB, uint8, shape (320, 320, 3).
        """
        picture = self._picture.copy()
        picture[self._patch] = self._features(pose)
        return self._turn(picture, pose)

    def _pencil_brows(self) -> None:
        patch = self._picture[self._patch].astype(np.float32)
        for x, y in _BROWS:
            ends = np.clip((self._x - x[0]) / 5, 0, 1) * np.clip((x[-1] - self._x) / 5, 0, 1)
            stroke = 0.75 * ends * np.exp(-(((self._y - np.interp(self._x, x, y)) / 3) ** 2))
            patch += stroke[..., None] * (_BROW - patch)
        self._picture[self._patch] = np.rint(patch).astype(np.uint8)

    def _bump(
        self, x: float, y: float, spread_x: float, spread_y: float, move_x: float, move_y: float
    ) -> Floats:
        """A Gaussian bump of movement; float32, shape (2, h, w): right and down, photograph's pixels."""
        weight = np.exp(-(((self._x - x) / spread_x) ** 2 + ((self._y - y) / spread_y) ** 2) / 2)
        return np.stack([move_x * weight, move_y * weight])

    def _at_lips(self, field: Floats) -> Floats:
        """A field's values along the line where the lips meet; shape (w,)."""
        rows = np.interp(self._x[0], *_MOUTH)
        nearest = np.abs(self._y[:, :1] - rows).argmin(axis=0)
        return np.asarray(field[nearest, np.arange(field.shape[1])])

    def _eye(self, x: tuple[float, ...], upper: tuple[float, ...], lower: tuple[float, ...]) -> _Eye:
        columns = np.flatnonzero((self._x[0] > x[0] - 2) & (self._x[0] < x[-1] + 2))
        rows = np.flatnonzero((self._y[:, 0] > min(upper) - _LID_FOLD - 2) & (self._y[:, 0] < max(lower) + 4))
        place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        at = self._x[0, place[1]]
        high, low = (np.interp(at, x, points).astype(np.float32) for points in (upper, lower))
        return _Eye(place, high, low, np.clip((low - high) / 3, 0, 1))

    def _head_weight(self) -> Floats:
        """1 where the head turns as one piece, 0 at the shoulders and far away; coarse, shape (n, n)."""
        x = (self._coarse + 0.5) / self._scale - 0.5 + _CROP[0]
        y = (self._coarse[:, None] + 0.5) / self._scale - 0.5 + _CROP[1]
        beside = 1 - _smoothstep((np.abs(x - _HEAD[0]) - _HEAD_HALF) / _HEAD_FADE)
        below = 1 - _smoothstep((y - _HEAD_BOTTOM) / _HEAD_FADE)
        return np.asarray(beside * below, np.float32)

    def _features(self, pose: Pose) -> NDArray[np.uint8]:
        """Bend and paint eyes, brows and mouth, the head held still."""
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
        """The still picture at places given in the photograph's pixels; float32, shape (h, w, 3)."""
        at_x = (x - _CROP[0] + 0.5) * self._scale - 0.5
        at_y = (y - _CROP[1] + 0.5) * self._scale - 0.5
        sampled = cv2.remap(self._picture, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(sampled, np.float32)

    def _open_mouth(self, lips: Floats, opening: float) -> tuple[Floats, Floats]:
        """How far what is seen at each place has come down, and how much of the place is the mouth's inside.

        The upper lip goes up a little, the lower lip goes down, and the jaw follows it as far as the neck.
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
        """Cover of a pixel that lies this far (photograph's pixels) inside an edge: 0 to 1."""
        return np.clip(distance * self._scale + 0.5, 0, 1)

    def _close(self, image: Floats, eye: _Eye, blink: float) -> None:
        """Draw the upper lid down over an eye, in place."""
        x, y = self._x[eye.place], self._y[eye.place]
        lid = eye.upper + blink * (eye.lower + _LID_OVERLAP * eye.width - eye.upper)
        fold = eye.upper - _LID_FOLD
        stretched = fold + (y - fold) * (eye.upper - fold) / (lid - fold)
        skin = self._sample(x, np.where(y > fold, stretched, y))
        paint = min(1.0, 2 * blink) * eye.width
        skin += (0.8 * paint * _smoothstep((y - fold) / 3))[..., None] * (_LID - skin)
        region = image[eye.place]
        region += self._edge(lid - y)[..., None] * (skin - region)
        lashes = paint * np.exp(-(((y - lid) / 1.3) ** 2))
        region += 0.8 * lashes[..., None] * (_LASHES - region)

    def _turn(self, picture: NDArray[np.uint8], pose: Pose) -> NDArray[np.uint8]:
        """Roll and shift the head; the frame's edge and the shoulders stay."""
        centre_x = (_HEAD[0] - _CROP[0] + 0.5) * self._scale - 0.5
        centre_y = (_HEAD[1] - _CROP[1] + 0.5) * self._scale - 0.5
        angle = -np.deg2rad(pose.roll) * self._head
        cos, sin = np.cos(angle), np.sin(angle)
        x = self._coarse - centre_x - self._head * pose.shift_x
        y = self._coarse[:, None] - centre_y - self._head * pose.shift_y
        from_x = (centre_x + cos * x - sin * y).astype(np.float32)
        from_y = (centre_y + sin * x + cos * y).astype(np.float32)
        fine = [cv2.resize(each, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for each in (from_x, from_y)]
        turned = cv2.remap(picture, fine[0], fine[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(turned, np.uint8)
