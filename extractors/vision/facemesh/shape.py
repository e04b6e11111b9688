"""The face's shape in 34 numbers: p_0 to p_33.

In OpenFace these are coefficients of its point distribution model, licensed for research only. Here they are
coefficients in a basis of our own, which does not depend on data: **the 17 lowest modes of the 68 points' graph**.
The points are joined by `EDGES` as a face is drawn; the eigenvectors of the graph's Laplacian with the
smallest eigenvalues above zero are its standing waves, from "jaw against brow" to single features. Mode k is
applied to the sideways and to the downward coordinate of the frontal face:

    p_2k   = mean over the 68 points of mode_k * x      (mm)
    p_2k+1 = mean over the 68 points of mode_k * y      (mm)

Modes have unit mean square, so a coefficient is in millimetres. They cannot be compared with OpenFace's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from triptych.extractors.vision.facemesh.landmarks import Points

MODES = 17

SHAPE_BASIS = "x and y of the frontal 68 points, mm, on the 17 lowest Laplacian modes of their graph"
"""One line that describes p_0 to p_33, for labels of the columns."""


def _path(*points: int, closed: bool = False) -> list[tuple[int, int]]:
    ends = (*points[1:], points[0]) if closed else points[1:]
    return list(zip(points, ends, strict=False))


EDGES: tuple[tuple[int, int], ...] = (
    # The drawn lines: jaw, brows, ridge and base of the nose, eyes, lips.
    *_path(*range(17)),
    *_path(*range(17, 22)),
    *_path(*range(22, 27)),
    *_path(*range(27, 31)),
    *_path(*range(31, 36)),
    *_path(*range(36, 42), closed=True),
    *_path(*range(42, 48), closed=True),
    *_path(*range(48, 60), closed=True),
    *_path(*range(60, 68), closed=True),
    # What joins them: temples to brows, brows to each other, to the ridge and to the eyes,
    *(
        (0, 17),
        (16, 26),
        (21, 22),
        (21, 27),
        (22, 27),
        (17, 36),
        (26, 45),
        (19, 37),
        (24, 44),
        (20, 38),
        (23, 43),
    ),
    # eyes to the temples and to the ridge, the nose's tip to its base and the base's ends to the eyes,
    *((0, 36), (16, 45), (27, 39), (27, 42), (30, 33), (30, 31), (30, 35), (31, 39), (35, 42)),
    # the base to the upper lip, the two contours of the lips, and the lips to the jaw.
    *(
        (33, 51),
        (31, 48),
        (35, 54),
        (48, 60),
        (54, 64),
        (51, 62),
        (57, 66),
        (50, 61),
        (52, 63),
        (56, 65),
        (58, 67),
    ),
    *((57, 8), (58, 7), (56, 9), (48, 4), (54, 12)),
)
"""The graph of the 68 points, symmetric in left and right."""


@cache
def modes() -> Points:
    """Compute the basis, shape (17, 68): ascending eigenvalue, unit mean square, the largest entry positive."""
    laplacian = np.zeros((68, 68))
    for a, b in EDGES:
        laplacian[[a, b], [a, b]] += 1
        laplacian[[a, b], [b, a]] -= 1
    waves = np.linalg.eigh(laplacian)[1][:, 1 : MODES + 1].T * np.sqrt(68)
    # Odd modes have two peaks of opposite sign: rounding must not decide which one is made positive.
    peak = (np.abs(waves).round(6) == np.abs(waves).max(1, keepdims=True).round(6)).argmax(1)
    basis: Points = waves * np.sign(waves[np.arange(MODES), peak])[:, None]
    return basis


def coefficients(frontal: Points) -> Points:
    """Compute p_0 to p_33, shape (T, 34), from the 68 points in the head's axes, shape (T, 68, 3), mm."""
    on_modes: Points = np.einsum("kn,tna->tka", modes(), frontal[..., :2]) / 68
    return on_modes.reshape(len(frontal), 2 * MODES)
