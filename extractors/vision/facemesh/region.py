"""The rotated square about a face that the landmark network is shown."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.faces.mtcnn import BOX, POINTS
from triptych.extractors.vision.facemesh.networks import SIDE

AROUND_POINTS = 1.5
"""Side of the region in sides of the box about the last frame's points, as in MediaPipe's graph."""

AROUND_BOX, LOWER = 1.35, 0.06
"""Side of the region in sides of MTCNN's box, and how far its middle lies below the box's, in sides."""

_EYE_CORNERS = (33, 263)


@dataclass(frozen=True)
class Region:
    """A square in an image.

    Attributes
    ----------
    x, y
        Its middle, pixels.
    side
        Pixels.
    angle
        Radians: its rows run along the line from the left eye to the right one, which turns clockwise.
    """

    x: float
    y: float
    side: float
    angle: float

    def _axes(self) -> NDArray[np.float64]:
        """Return the steps of one pixel of the region along its rows and columns, shape (2, 2), as columns."""
        step = self.side / SIDE
        cosine, sine = step * np.cos(self.angle), step * np.sin(self.angle)
        return np.array([[cosine, -sine], [sine, cosine]])

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Cut the region out of an RGB image: shape (256, 256, 3), 0 to 1; outside, the image's edge is repeated."""
        axes, middle = self._axes(), np.array([self.x, self.y])
        matrix = np.column_stack([axes, middle - axes.sum(1) * SIDE / 2])
        cut: NDArray[np.uint8] = cv2.warpAffine(
            image,
            matrix,
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        scaled: NDArray[np.float32] = cut.astype(np.float32) / np.float32(255)
        return scaled

    def place(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return points of the region's pixels, shape (N, 3), in the image's pixels; depth is scaled alike."""
        placed = np.empty((len(points), 3))
        placed[:, :2] = (points[:, :2] - SIDE / 2) @ self._axes().T + [self.x, self.y]
        placed[:, 2] = points[:, 2] * self.side / SIDE
        return placed

    def covers(self, other: Region) -> bool:
        """Return whether another region is about the same place: its middle is in the inner half of this one."""
        return max(abs(self.x - other.x), abs(self.y - other.y)) < self.side / 4


def _upright(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the angle of the line from the left eye to the right one."""
    return float(np.arctan2(right[1] - left[1], right[0] - left[0]))


def about_points(points: NDArray[np.float64]) -> Region:
    """Return the region for the next frame from this frame's points, shape (478, 3), in the image's pixels."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    (x, y), side = (low + high) / 2, AROUND_POINTS * (high - low).max()
    return Region(float(x), float(y), float(side), _upright(*points[list(_EYE_CORNERS), :2]))


def about_face(face: NDArray[np.float32]) -> Region:
    """Return the region about a face of the track, shape (15,): a row of the stage ``faces`` in the image's pixels."""
    box = face[BOX].astype(np.float64)
    eyes = face[POINTS].astype(np.float64).reshape(5, 2)[:2]
    angle, size = _upright(*eyes), float((box[2:] - box[:2]).max())
    x, y = (box[:2] + box[2:]) / 2
    below = LOWER * size
    return Region(x - below * np.sin(angle), y + below * np.cos(angle), AROUND_BOX * size, angle)
