"""Camera, reference face, head pose and depth, in OpenFace's conventions.

Camera axes: x to the image's right, y down, z away from the camera; millimetres and radians. A head that
faces the camera has R = 0; ``R = Rx(pitch) Ry(yaw) Rz(roll)``. Its origin is the mean of its 68 points.

OpenFace's reference face is its point distribution model, which is licensed for research only. Here the reference is
computed from the clip: FaceMesh gives every point a depth, so the mean of the clip's aligned meshes is the person's
face in three dimensions. Anatomy gives what the meshes leave open: the left-right axis is that of mirrored pairs of
points, a level head has its facial plane at the mean angle, and the size is the mean adult width across the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.vision.facemesh.landmarks import Points, face_points

EYES_WIDTH = 90.0
"""Outer corner to outer corner of the eyes, mm: about the adult mean."""

FACIAL_ANGLE = 87.8
"""Nasion-pogonion line to the Frankfort horizontal, degrees: Downs' (1948) mean for a level head."""

_NASION, _POGONION = 168, 199
_OUTER_CORNERS = (33, 263)

# Points that the face's muscles hardly move: forehead, temples, ridge of the nose, corners of the eyes.
_MIDLINE = (151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2)
_LEFT = (33, 133, 127, 234, 162, 21, 54, 103, 193, 122, 196, 129, 98, 116, 143)
_RIGHT = (263, 362, 356, 454, 389, 251, 284, 332, 417, 351, 419, 358, 327, 345, 372)
RIGID = (*_MIDLINE, *_LEFT, *_RIGHT)
_MIRRORED = (*_MIDLINE, *_RIGHT, *_LEFT)

_REFERENCE_FRAMES = 600  # at most, evenly spaced: enough for the median face
_ALIGNMENTS = 3  # alignments of the clip's meshes to their mean, which no longer changes after two


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: its focal length and the image's centre, in pixels."""

    focal: float
    centre: Points

    @classmethod
    def of_image(cls, width: int, height: int) -> Camera:
        """Return the camera that OpenFace assumes for this image size: a focal length of 500 pixels at 640 x 480."""
        return cls((500 * width / 640 + 500 * height / 480) / 2, np.array([width / 2, height / 2]))

    def unproject(self, pixels: Points, depth: Points) -> Points:
        """Compute camera points [mm], shape (..., 3), from pixels (..., 2) at depths (...)."""
        flat = (pixels - self.centre) / self.focal
        points: Points = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1) * depth[..., None]
        return points

    def project(self, points: Points) -> Points:
        """Compute the pixels, shape (..., 2), of camera points (..., 3)."""
        pixels: Points = self.focal * points[..., :2] / points[..., 2:] + self.centre
        return pixels


@dataclass(frozen=True)
class Heads:
    """The poses of the head in T frames.

    Attributes
    ----------
    rotation
        shape (T, 3, 3), from the head's axes to the camera's.
    translation
        shape (T, 3), mm: the head's origin before the camera.
    mesh
        shape (T, 478, 3), mm: the face in camera axes; its pixels are FaceMesh's own.
    frontal
        shape (T, 478, 3), mm: the same face in the head's axes, without its pose. It does not depend on the camera,
        so a face moves equally in a crop and in the whole image, although their assumed cameras differ.
    misfit
        shape (T,): root mean square distance between the rigid points seen and those of the posed reference,
        over the width across the eyes.
    """

    rotation: Points
    translation: Points
    mesh: Points
    frontal: Points
    misfit: Points


def align(reference: Points, points: Points) -> tuple[Points, Points]:
    """Find the rotation and scale that best map a reference to points, both centred (Umeyama 1991).

    Parameters
    ----------
    reference
        shape (N, 3).
    points
        shape (T, N, 3).

    Returns
    -------
    tuple of Points
        rotations (T, 3, 3) and scales (T,).
    """
    source = reference - reference.mean(0)
    target = points - points.mean(1, keepdims=True)
    u, spread, vt = np.linalg.svd(np.einsum("tni,nj->tij", target, source))
    sign = np.ones_like(spread)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    return (u * sign[:, None, :]) @ vt, (spread * sign).sum(1) / (source**2).sum()


def euler_angles(rotation: Points) -> Points:
    """Compute Rx, Ry, Rz in radians, shape (..., 3), from ``R = Rx Ry Rz`` (..., 3, 3)."""
    pitch = np.arctan2(-rotation[..., 1, 2], rotation[..., 2, 2])
    yaw = np.arcsin(np.clip(rotation[..., 0, 2], -1, 1))
    roll = np.arctan2(-rotation[..., 0, 1], rotation[..., 0, 0])
    return np.stack([pitch, yaw, roll], axis=-1)


def facing(directions: Points) -> Points:
    """Compute the smallest rotations (T, 3, 3) that turn the camera's axis to directions (T, 3)."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    axis = np.cross([0.0, 0.0, 1.0], unit)
    skew = np.zeros((len(axis), 3, 3))
    skew[:, [2, 0, 1], [1, 2, 0]] = axis
    skew[:, [1, 2, 0], [2, 0, 1]] = -axis
    turn: Points = np.eye(3) + skew + skew @ skew / (1 + unit[:, 2])[:, None, None]
    return turn


def _head_axes(mesh: Points) -> Points:
    """Compute the head's x, y, z axes as rows, in the axes of an upright mesh (478, 3)."""
    x = (mesh[list(_RIGHT)] - mesh[list(_LEFT)]).sum(0)
    x /= np.linalg.norm(x)
    down = mesh[_POGONION] - mesh[_NASION]
    down -= (down @ x) * x
    down /= np.linalg.norm(down)
    recede = np.radians(90 - FACIAL_ANGLE)
    y = np.cos(recede) * down - np.sin(recede) * np.cross(x, down)
    return np.stack([x, y, np.cross(x, y)])


def reference_face(mesh: NDArray[np.float32] | Points) -> Points:
    """Compute the clip's reference face in the head's axes.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels.

    Returns
    -------
    Points
        shape (478, 3), mm: the median face of the clip, its rigid points made symmetric.
    """
    mesh = mesh[:: -(-len(mesh) // _REFERENCE_FRAMES)].astype(np.float64)
    rigid = list(RIGID)
    centred = mesh - mesh[:, rigid].mean(1, keepdims=True)
    face: Points = centred[0]
    for _ in range(_ALIGNMENTS):
        rotation, scale = align(face[rigid], mesh[:, rigid])
        face = np.median(np.einsum("tji,tnj->tni", rotation, centred) / scale[:, None, None], axis=0)
        face = face @ _head_axes(face).T
        face *= EYES_WIDTH / np.linalg.norm(face[_OUTER_CORNERS[0]] - face[_OUTER_CORNERS[1]])
    face = face - [face[rigid, 0].mean(), 0, 0]
    face[rigid] = (face[rigid] + face[list(_MIRRORED)] * [-1, 1, 1]) / 2
    face[:, 1:] -= face_points(face).mean(0)[1:]
    return face


def _solve(
    reference: Points, pixels: Points, camera: Camera, start: Points, depth: float
) -> tuple[Points, Points]:
    """Compute one frame's pose by OpenCV's iterative PnP, starting from the pose given by the mesh's depth."""
    matrix = np.array([[camera.focal, 0, camera.centre[0]], [0, camera.focal, camera.centre[1]], [0, 0, 1]])
    position = camera.unproject(pixels.mean(0), np.array(depth)) - start @ reference.mean(0)
    solved, turn, shift = cv2.solvePnP(
        reference,
        pixels,
        matrix,
        None,
        cv2.Rodrigues(start)[0],
        position[:, None].copy(),
        True,
        cv2.SOLVEPNP_ITERATIVE,
    )
    if not (solved and np.isfinite(turn).all() and 0.5 < shift[2, 0] / position[2] < 2):
        return start, position  # it diverged: the pose given by the mesh is better
    return cv2.Rodrigues(turn)[0], shift[:, 0]


def frontal_faces(mesh: Points, face: Points) -> tuple[Points, Points, Points]:
    """Undo the pose of every frame by the mesh's own depth.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels.
    face
        shape (478, 3), mm: the clip's `reference_face`.

    Returns
    -------
    tuple of Points
        the faces in the head's axes, mm, shape (T, 478, 3); their rotations (T, 3, 3) and scales [pixel/mm] (T,).
    """
    rigid = list(RIGID)
    rotation, scale = align(face[rigid], mesh[:, rigid])
    centred = mesh - mesh[:, rigid].mean(1, keepdims=True)
    frontal = np.einsum("tji,tnj->tni", rotation, centred) / scale[:, None, None] + face[rigid].mean(0)
    return frontal, rotation, scale


def heads(mesh: Points, face: Points, camera: Camera) -> Heads:
    """Compute the pose of every frame, and the face in three dimensions.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels.
    face
        shape (478, 3), mm: the clip's `reference_face`.
    camera
        The camera of these pixels.
    """
    rigid = list(RIGID)
    anchor, seen = face[rigid], np.ascontiguousarray(mesh[:, rigid, :2])
    frontal, rotation, scale = frontal_faces(mesh, face)
    depth = camera.focal / scale
    ray = facing(camera.unproject(seen.mean(1), depth))
    poses = [
        _solve(anchor, pixels, camera, start, far)
        for pixels, start, far in zip(seen, ray @ rotation, depth, strict=True)
    ]
    turn, shift = (np.stack(part) for part in zip(*poses, strict=True))
    posed = np.einsum("tij,nj->tni", turn, anchor) + shift[:, None]
    # FaceMesh's depth is relative, in pixels: it is added to the posed reference's depth and scaled to mm.
    middle = posed[..., 2].mean(1, keepdims=True)
    nearer = mesh[..., 2] - mesh[:, rigid, 2].mean(1, keepdims=True)
    points = camera.unproject(mesh[..., :2], middle * np.maximum(1 + nearer / camera.focal, 0.1))
    miss = np.linalg.norm(camera.project(posed) - seen, axis=-1) * middle / camera.focal
    return Heads(turn, shift, points, frontal, np.sqrt((miss**2).mean(1)) / EYES_WIDTH)
