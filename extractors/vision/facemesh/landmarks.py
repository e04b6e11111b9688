"""Conversion of FaceMesh's 478 points to OpenFace's 68 points of the face and 28 points of each eye.

Points are named by the part of the face that they mark. "Left" is the left side of the image, which is also the side
of OpenFace's eye 0. All functions take any leading axes and treat x, y and z alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Lines along the mesh, on which OpenFace's points are spread evenly.
_JAW_LEFT = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)  # temple to chin
_JAW_RIGHT = (356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152)  # temple to chin
_NOSE_RIDGE = (168, 6, 197, 195, 5, 4)  # nasion to tip

_JAW_STEPS = np.array([0, 0.125, 0.25, 0.375, 0.5, 0.64, 0.77, 0.9, 1])  # OpenFace's stand closer at the chin

_BROW_LEFT, _BROW_RIGHT = (
    (70, 63, 105, 66),
    (300, 293, 334, 296),
)  # upper edges from outside, less the inner ends
_BROW_ENDS = ((107, 55), (336, 285))  # upper and lower edge of each inner end, left and right
_NOSE_BASE = (98, 97, 2, 326, 327)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_OUTER_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181)
_INNER_LIPS = (78, 82, 13, 312, 308, 317, 14, 87)

# An eye: the outline of its lids, each from one corner to the other, and the five points of its iris.
_UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
_LOWER_LIDS = ((133, 155, 154, 153, 145, 144, 163, 7, 33), (263, 249, 390, 373, 374, 380, 381, 382, 362))
_IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))

PUPIL_TO_IRIS = 0.4
"""Pupil over iris diameter. FaceMesh gives no pupil; indoors it is 4 to 5 mm wide, an iris 11.7 mm."""

MIRROR_68: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)
"""Index of each of the 68 points in the mirrored image."""

EYE_MIRROR: tuple[int, ...] = (
    *(4, 3, 2, 1, 0, 7, 6, 5),
    *(14, 13, 12, 11, 10, 9, 8, 19, 18, 17, 16, 15),
    *(22, 21, 20, 27, 26, 25, 24, 23),
)
"""Index of each of an eye's 28 points in the other eye of the mirrored image."""


def spread(line: Points, count: int) -> Points:
    """Place points at equal distances along a polyline: as `along`, `count` of them, both ends included."""
    return along(line, np.linspace(0, 1, count))


def along(line: Points, shares: Points) -> Points:
    """Place points along a polyline.

    Parameters
    ----------
    line
        shape (..., K, D): the corners of the line.
    shares
        shape (N,): how far along, 0 to 1 of its length.

    Returns
    -------
    Points
        shape (..., N, D).
    """
    length = np.cumsum(np.linalg.norm(np.diff(line, axis=-2), axis=-1), axis=-1)
    length = np.concatenate([np.zeros_like(length[..., :1]), length], axis=-1)
    wanted = length[..., -1:] * shares
    segment = (wanted[..., :, None] >= length[..., None, 1:-1]).sum(-1)
    start, end = (np.take_along_axis(length, segment + step, -1) for step in (0, 1))
    share = ((wanted - start) / np.maximum(end - start, np.finfo(float).tiny))[..., None]
    near, far = (np.take_along_axis(line, segment[..., None] + step, -2) for step in (0, 1))
    points: Points = near + share * (far - near)
    return points


def face_points(mesh: Points) -> Points:
    """Compute OpenFace's 68 points.

    Parameters
    ----------
    mesh
        shape (..., 478, D), D = 2 or 3.

    Returns
    -------
    Points
        shape (..., 68, D): jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67.
    """
    left, right = (along(mesh[..., line, :], _JAW_STEPS) for line in (_JAW_LEFT, _JAW_RIGHT))
    brows = (_brow(mesh, _BROW_LEFT, _BROW_ENDS[0]), _brow(mesh, _BROW_RIGHT, _BROW_ENDS[1])[..., ::-1, :])
    ridge = spread(mesh[..., _NOSE_RIDGE, :], 4)
    rest = (mesh[..., part, :] for part in (_NOSE_BASE, _EYES, _OUTER_LIPS, _INNER_LIPS))
    return np.concatenate([left, right[..., -2::-1, :], *brows, ridge, *rest], axis=-2)


def _brow(mesh: Points, edge: tuple[int, ...], end: tuple[int, int]) -> Points:
    """Compute a brow's five points from its outer to its inner end, which lies between its two edges."""
    inner = mesh[..., end, :].mean(-2, keepdims=True)
    return spread(np.concatenate([mesh[..., edge, :], inner], axis=-2), 5)


def lid_points(mesh: Points) -> Points:
    """Compute the twelve lid points of each eye (OpenFace's 8 to 19).

    Parameters
    ----------
    mesh
        shape (..., 478, D).

    Returns
    -------
    Points
        shape (..., 2, 12, D): from the left corner over the upper lid to the right one and back below.
    """
    eyes = []
    for upper, lower in zip(_UPPER_LIDS, _LOWER_LIDS, strict=True):
        halves = (spread(mesh[..., half, :], 7)[..., :-1, :] for half in (upper, lower))
        eyes.append(np.concatenate([*halves], axis=-2))
    return np.stack(eyes, axis=-3)


def iris_centres(mesh: Points) -> Points:
    """Compute the centre of each iris, shape (..., 2, D): the mean of its five points."""
    return np.stack([mesh[..., iris, :].mean(-2) for iris in _IRISES], axis=-2)


def iris_points(mesh: Points) -> tuple[Points, Points]:
    """Compute the circle of each iris and of each pupil (OpenFace's 0 to 7 and 20 to 27), in the image.

    The iris runs clockwise from its left end, the pupil anticlockwise from its lower left.

    Parameters
    ----------
    mesh
        shape (..., 478, D); x and y alone are used.

    Returns
    -------
    tuple of Points
        iris and pupil, each of shape (..., 2, 8, 2).
    """
    centres = iris_centres(mesh)[..., :2]
    rims = np.stack([mesh[..., iris[1:], :2] for iris in _IRISES], axis=-3)
    radius = np.linalg.norm(rims - centres[..., None, :], axis=-1).mean(-1)[..., None, None]

    def circle(first: float, step: float) -> Points:
        turn = np.radians(first + step * np.arange(8))  # clockwise in the image, whose y points down
        return np.stack([np.cos(turn), np.sin(turn)], axis=-1)

    centres = centres[..., None, :]
    return centres + radius * circle(180, 45), centres + PUPIL_TO_IRIS * radius * circle(135, -45)
