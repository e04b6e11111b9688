"""The FaceMesh backend: frames with a tracked face in, the 709 columns out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.facemesh.action_units import action_units
from triptych.extractors.vision.facemesh.bundle import model_file
from triptych.extractors.vision.facemesh.gaze import look
from triptych.extractors.vision.facemesh.landmarks import Points, face_points
from triptych.extractors.vision.facemesh.networks import FaceNetworks
from triptych.extractors.vision.facemesh.pose import (
    Camera,
    Heads,
    euler_angles,
    facing,
    frontal_faces,
    heads,
    reference_face,
)
from triptych.extractors.vision.facemesh.region import Region, about_face, about_points
from triptych.extractors.vision.facemesh.shape import coefficients
from triptych.extractors.vision.facemesh.smoothing import Smoother
from triptych.extractors.vision.stage import VisionSettings

_FIRST_PASSES = 3  # passes after which the points of a new face no longer move
_SURE = 0.5  # presence from which the next region follows the points, as in MediaPipe's graph
_BLOCK = 512  # frames solved at a time, so that a long clip needs memory for its landmarks only
_MISFIT_SCALE = 0.15  # of the eyes' width: the residual of a good fit is 0.02 to 0.04


class TrackedImage(Protocol):
    """The attributes of a frame that `FaceMesh` reads; `triptych.extractors.faces.crops.Aligned` has them."""

    @property
    def time(self) -> float:
        """Seconds from the container's start."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, shape (H, W, 3)."""

    @property
    def found(self) -> bool:
        """Whether the track has a face here."""

    @property
    def face(self) -> NDArray[np.float32]:
        """The track's row, shape (15,): box, score and five points, in the image's pixels."""


@dataclass
class Seen:
    """What the networks saw in a clip.

    Attributes
    ----------
    times, presence
        One entry a frame; the presence is 0 where there is no tracked face.
    meshes, moving, blendshapes
        One entry for each frame with a face: the points, shape (478, 3) in pixels, as MediaPipe smooths them and
        as the network gives them; the scores of the latter, shape (52,).
    camera
        The first such frame's.
    """

    times: list[float] = field(default_factory=list)
    presence: list[float] = field(default_factory=list)
    meshes: list[NDArray[np.float32]] = field(default_factory=list)
    moving: list[NDArray[np.float32]] = field(default_factory=list)
    blendshapes: list[NDArray[np.float32]] = field(default_factory=list)
    camera: Camera | None = None


class FaceMesh:
    """MediaPipe's Face Landmarker as a vision backend: loaded once, used for any number of clips.

    The tracked face gives the first region; each frame's points give the next frame's, as long as the network is
    sure of them. A clip's result depends on its own frames alone, and is the same bit for bit from run to run.

    Parameters
    ----------
    settings
        The stage's settings: `model` names the model file, `min_confidence` decides which rows are valid.

    Raises
    ------
    BackendMissingError
        ai-edge-litert is not installed, or the model file cannot be had.
    """

    def __init__(self, settings: VisionSettings) -> None:
        self.settings = settings
        self._networks = FaceNetworks(model_file(settings.model))

    def extract(self, frames: Iterable[TrackedImage]) -> Features:
        """Compute the 709 columns of one clip.

        A row is valid if the frame has a tracked face **and** `confidence` reaches `min_confidence`. Frames without
        a tracked face are not given to the network: it fits a face to many images without one, and where the track
        has lost the face, the crop shows something else.

        Parameters
        ----------
        frames
            Read once, in order; their images are not stored.

        Returns
        -------
        Features
            One row a frame, shape (T, 709); rows that are not valid hold zeros. The extra ``confidence`` is the
            network's presence score, lowered as the points depart from the clip's own rigid face: 1 for a face in
            full view, towards 0 for one that is covered or turned far aside, 0 without one.

        Raises
        ------
        ExtractionError
            ``no_face``: no frame shows a face.
        """
        seen = self.watch(frames)
        least = self.settings.min_confidence
        confidence = np.array(seen.presence, np.float32)
        used = np.array([shown > 0 and shown >= least for shown in seen.presence], np.bool_)
        values = np.zeros((len(used), len(VISION_COLUMNS)), np.float32)
        valid = used.copy()
        if seen.camera is not None:
            rows, fit = columns(
                np.stack(seen.meshes), np.stack(seen.moving), np.stack(seen.blendshapes), seen.camera
            )
            confidence[used] *= fit
            valid[used] = confidence[used] >= least
            values[valid] = rows[valid[used]]
        if not valid.any():
            raise ExtractionError(
                Reason.NO_FACE,
                f"no frame of {len(used)} shows a face with a confidence of {least:g} "
                f"(vision.min_confidence); the highest is {confidence.max(initial=0):.2f}",
            )
        names, units = zip(*VISION_COLUMNS, strict=True)
        return Features(values, names, units, np.array(seen.times), valid, {"confidence": confidence})

    def watch(self, frames: Iterable[TrackedImage]) -> Seen:
        """Read every frame; nothing of a clip before counts."""
        seen = Seen()
        last: Region | None = None
        smoother = Smoother()
        for frame in frames:
            seen.times.append(frame.time)
            seen.presence.append(0.0)
            if not frame.found:
                last = None
                continue
            points, presence, follows = self._see(frame, last)
            if not follows:
                smoother = Smoother()
            last = about_points(points) if presence >= _SURE else None
            seen.presence[-1] = presence
            if presence > 0 and presence >= self.settings.min_confidence:
                seen.meshes.append(smoother(points, frame.time).astype(np.float32))
                seen.moving.append(points.astype(np.float32))
                seen.blendshapes.append(self._networks.blendshapes(seen.moving[-1]))
                height, width = frame.image.shape[:2]
                seen.camera = seen.camera or Camera.of_image(width, height)
        return seen

    def _see(self, frame: TrackedImage, last: Region | None) -> tuple[Points, float, bool]:
        """Return a frame's points, shape (478, 3) in pixels, their presence, and whether they follow the last ones."""
        start = about_face(frame.face)
        if last is not None and last.covers(start):
            points, presence = self._pass(frame, last)
            if presence >= _SURE:
                return points, presence, True
        region = start
        for _ in range(_FIRST_PASSES):
            points, presence = self._pass(frame, region)
            if presence < _SURE:
                break
            region = about_points(points)
        return points, presence, False

    def _pass(self, frame: TrackedImage, region: Region) -> tuple[Points, float]:
        points, presence = self._networks.landmarks(region.cut(frame.image))
        return region.place(points), presence


def columns(
    mesh: NDArray[np.float32], moving: NDArray[np.float32], blendshapes: NDArray[np.float32], camera: Camera
) -> tuple[Points, Points]:
    """Compute the 709 columns of a clip's meshes.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels, smoothed.
    moving
        The same, not smoothed: a causal filter would show a blink half a row late.
    blendshapes
        shape (T, 52): the scores of the same frames.
    camera
        Whose pixels they are.

    Returns
    -------
    tuple of Points
        values (T, 709) and how well the points fit the clip's own rigid face, 0 to 1, shape (T,).
    """
    face = reference_face(mesh)
    parts, frontal, misfit = [], [], []
    for start in range(0, len(mesh), _BLOCK):
        block = mesh[start : start + _BLOCK].astype(np.float64)
        posed = heads(block, face, camera)
        parts.append(_geometry(block, posed, camera))
        undone, _, _ = frontal_faces(moving[start : start + _BLOCK].astype(np.float64), face)
        frontal.append(undone.astype(np.float32))
        misfit.append(posed.misfit)
    units = action_units(np.concatenate(frontal), blendshapes)
    fit = np.exp(-((np.concatenate(misfit) / _MISFIT_SCALE) ** 2))
    return np.concatenate([np.concatenate(parts), *units], axis=1), fit


def _geometry(mesh: Points, posed: Heads, camera: Camera) -> Points:
    """Compute all columns before the action units, shape (T, 674), in order."""
    gaze = look(mesh, posed, camera)
    face = face_points(posed.mesh)
    pixels = camera.project(face)
    # OpenFace's p_ are of a camera without perspective that looks straight at the face.
    ahead = facing(face.mean(1)).transpose(0, 2, 1) @ posed.rotation
    groups = (
        gaze.directions,
        gaze.angles,
        _by_axis(gaze.pixels.reshape(len(mesh), 56, 2)),
        _by_axis(gaze.points.reshape(len(mesh), 56, 3)),
        posed.translation,
        euler_angles(posed.rotation),
        _by_axis(pixels),
        _by_axis(face),
        camera.focal / face[..., 2].mean(1),
        euler_angles(ahead),
        pixels.mean(1),
        coefficients(face_points(posed.frontal)),
    )
    return np.concatenate([group.reshape(len(mesh), -1) for group in groups], axis=1)


def _by_axis(points: Points) -> Points:
    """Flatten points, shape (T, N, D), in OpenFace's order: all x, then all y, then all z."""
    return points.transpose(0, 2, 1)
