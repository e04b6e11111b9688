"""The direction of gaze, and the points of the eyes in three dimensions.

An eyeball is modelled as a sphere behind the corners of its lids. The gaze points from the sphere's centre to the point
where the ray through the middle of the iris meets the sphere (OpenFace's construction; the eyeball's position is ours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triptych.extractors.vision.facemesh.landmarks import Points, iris_centres, iris_points, lid_points
from triptych.extractors.vision.facemesh.pose import Camera, Heads

EYEBALL_RADIUS = 12.0
"""mm: an adult eye is 24 mm long."""

EYEBALL_OFFSET = (0.0, -3.0, 11.0)
"""Vector from the midpoint of an eye's two corners to the eyeball's centre, mm, in the head's axes.

The corners of the lids lie a few millimetres behind the pupil's plane, and the eyeball's centre a radius behind its
surface. The lower lid is about 3 mm below the line of the corners, and 5 mm below the pupil of an eye that looks
straight ahead.
"""

_LEFT_CORNER, _RIGHT_CORNER = 0, 6  # among an eye's lid points


@dataclass(frozen=True)
class Gaze:
    """The eyes of T frames; eye 0 is the image's left one.

    Attributes
    ----------
    directions
        shape (T, 2, 3): unit vectors in camera axes; towards the camera z is negative.
    angles
        shape (T, 2): both eyes' mean direction, radians, to the image's right and down.
    pixels
        shape (T, 2, 28, 2): OpenFace's points of the eyes.
    points
        shape (T, 2, 28, 3): the same in camera axes, mm.
    """

    directions: Points
    angles: Points
    pixels: Points
    points: Points


def _on_sphere(rays: Points, centre: Points) -> Points:
    """Return where rays from the camera first meet an eyeball, or the nearest point of a ray that misses it.

    Parameters
    ----------
    rays
        shape (..., N, 3), of any length.
    centre
        shape (..., 3), mm.
    """
    unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    along = (unit * centre[..., None, :]).sum(-1)
    behind = (centre**2).sum(-1)[..., None] - EYEBALL_RADIUS**2
    depth = along - np.sqrt(np.maximum(along**2 - behind, 0))
    points: Points = unit * depth[..., None]
    return points


def look(mesh: Points, heads: Heads, camera: Camera) -> Gaze:
    """Compute the gaze and the eye points of every frame.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels.
    heads
        The heads in the same frames.
    camera
        The camera of these pixels.
    """
    lids = lid_points(heads.mesh)
    # The corners of this frame's mesh, not those of the posed reference: an eyeball is so small that
    # a millimetre of error in the head's position is five degrees of gaze.
    corners = lids[:, :, [_LEFT_CORNER, _RIGHT_CORNER]].mean(2)
    centres = corners + (heads.rotation @ np.array(EYEBALL_OFFSET))[:, None]

    def on_eyeball(pixels: Points) -> Points:
        return _on_sphere(camera.unproject(pixels, np.ones(pixels.shape[:-1])), centres)

    seen = on_eyeball(iris_centres(mesh)[..., None, :2])[..., 0, :]
    directions = seen - centres
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    mean = directions.mean(1)
    angles = np.stack([np.arctan2(mean[:, 0], -mean[:, 2]), np.arctan2(mean[:, 1], -mean[:, 2])], axis=-1)

    iris, pupil = iris_points(mesh)
    pixels = np.concatenate([iris, camera.project(lids), pupil], axis=2)
    points = np.concatenate([on_eyeball(iris), lids, on_eyeball(pupil)], axis=2)
    return Gaze(directions, angles, pixels, points)
