"""The FaceMesh graph: frames in, the 709 columns out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Reason
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.facemesh.action_units import action_units
from triptych.extractors.vision.facemesh.gaze import look
from triptych.extractors.vision.facemesh.landmarks import Points, face_points
from triptych.extractors.vision.facemesh.pose import (
    Camera,
    Heads,
    euler_angles,
    facing,
    heads,
    reference_face,
)
from triptych.extractors.vision.facemesh.shape import coefficients
from triptych.extractors.vision.stage import VisionSettings

_MESH_POINTS = 478
_FIRST_PASSES = 3  # passes after which the mesh of a new face no longer moves
_BLOCK = 512  # frames solved at a time, so that a long clip needs memory for its landmarks only
_MISFIT_SCALE = 0.15  # of the eyes' width: the residual of a good fit is 0.02 to 0.04


class TimedImage(Protocol):
    """The attributes of a frame that `FaceMesh` reads; `triptych.extractors.base.Frame` has them.

    A frame may also have ``found``: whether the face track holds a face here (true where it is missing).
    """

    @property
    def time(self) -> float:
        """Seconds from the container's start."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, shape (H, W, 3)."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what C++ code writes to standard error: MediaPipe has no option for it."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class _Deferred(ModuleType):
    """A placeholder for a module, which is imported when one of its attributes is read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextmanager
def _deferred(*names: str) -> Iterator[None]:
    """Defer the execution of imported modules until code that imports them here uses them.

    Parameters
    ----------
    names
        Modules; a package comes before its own modules.
    """
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        sys.modules[name] = _Deferred(name)
        package, _, own = name.rpartition(".")
        if package in missing:
            setattr(sys.modules[package], own, sys.modules[name])
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _started(graph: Any) -> Any:
    """Return the graph after it has processed a blank image: its threads log messages when they start."""
    graph.process(np.zeros((64, 64, 3), np.uint8))
    return graph


def _load_graph() -> Any:
    try:
        # For drawing and recording, which are not used here; they take most of the import time.
        unused = ("matplotlib", "matplotlib.pyplot", "sounddevice")
        with _quiet(), _deferred(*unused):
            from mediapipe.python.solutions.face_mesh import FaceMesh as Graph

            return _started(Graph(static_image_mode=False, max_num_faces=1, refine_landmarks=True))
    except ImportError as error:
        raise BackendMissingError(
            f"vision.backend=facemesh needs MediaPipe, which cannot be imported ({error}); "
            "install it with: pip install 'triptych[facemesh]'"
        ) from error


class FaceMesh:
    """MediaPipe's FaceMesh as a vision backend: loaded once, used for any number of clips.

    A clip's result depends on its own frames alone: the graph is reset before each, and its arithmetic is
    the same bit for bit from run to run.

    Parameters
    ----------
    settings
        The stage's settings. FaceMesh takes images of any size, so that none of them changes its numbers.

    Raises
    ------
    BackendMissingError
        MediaPipe is not installed.
    """

    def __init__(self, settings: VisionSettings) -> None:
        self.settings = settings
        self._graph = _load_graph()
        self._warned = False

    def extract(self, frames: Iterable[TimedImage]) -> Features:
        """Compute the 709 columns of one clip.

        A row is valid if FaceMesh sees a face **and** the frame is not marked as having none. FaceMesh is a
        regressor that fits a face to many images without one, and where the track has lost the face, the crop
        shows something else. Such frames are not given to it.

        Parameters
        ----------
        frames
            Read once, in order; their images are not stored.

        Returns
        -------
        Features
            One row a frame, shape (T, 709); the rows without a face hold zeros. The extra ``confidence`` is
            1 where the face seen fits the clip's own rigid face, falls towards 0 as it departs from it, and
            is 0 without one.

        Raises
        ------
        ExtractionError
            ``no_face``: no frame shows a face.
        """
        meshes, times, valid, camera = self._watch(frames)
        if camera is None:
            raise ExtractionError(Reason.NO_FACE, f"FaceMesh found no face in any of {len(times)} frames")
        values = np.zeros((len(times), len(VISION_COLUMNS)), np.float32)
        confidence = np.zeros(len(times), np.float32)
        values[valid], confidence[valid] = columns(np.stack(meshes), camera)
        names, units = zip(*VISION_COLUMNS, strict=True)
        return Features(values, names, units, np.array(times, np.float64), valid, {"confidence": confidence})

    def _watch(
        self, frames: Iterable[TimedImage]
    ) -> tuple[list[NDArray[np.float32]], list[float], NDArray[np.bool_], Camera | None]:
        """Return the meshes of frames with a face, every frame's time, whether it has a face, and the camera."""
        meshes: list[NDArray[np.float32]] = []
        times: list[float] = []
        valid: list[bool] = []
        camera = None
        with _quiet():
            self._graph.reset()
            _started(self._graph)
        for frame in frames:
            mesh = None
            if getattr(frame, "found", True):
                mesh = self._see(frame.image, tracking=bool(valid) and valid[-1])
            times.append(frame.time)
            valid.append(mesh is not None)
            if mesh is not None:
                meshes.append(mesh)
                height, width = frame.image.shape[:2]
                camera = camera or Camera.of_image(width, height)
        return meshes, times, np.array(valid, np.bool_), camera

    def _see(self, image: NDArray[np.uint8], *, tracking: bool) -> NDArray[np.float32] | None:
        """Return the mesh of one image, shape (478, 3) in pixels, or None.

        In video mode the search starts from the previous image's mesh, so the image of a new face is processed
        several times, until the mesh no longer moves.
        """
        image = np.ascontiguousarray(image)
        points = None
        for attempt in range(1 if tracking else _FIRST_PASSES):
            if attempt and points is None:
                break
            with nullcontext() if self._warned else _quiet():
                points = self._graph.process(image).multi_face_landmarks
        if points is None:
            return None
        self._warned = True  # MediaPipe warns of non-square images once per process, at the first face
        height, width = image.shape[:2]
        mesh = np.array([(p.x, p.y, p.z) for p in points[0].landmark], np.float32)
        mesh *= np.array([width, height, width], np.float32)
        return mesh if mesh.shape == (_MESH_POINTS, 3) and np.isfinite(mesh).all() else None


def columns(mesh: NDArray[np.float32], camera: Camera) -> tuple[Points, Points]:
    """Compute the 709 columns of a clip's meshes.

    Parameters
    ----------
    mesh
        shape (T, 478, 3): FaceMesh's points, x, y and z in pixels.
    camera
        Whose pixels they are.

    Returns
    -------
    tuple of Points
        values (T, 709) and confidence (T,).
    """
    face = reference_face(mesh)
    parts, frontal, misfit = [], [], []
    for start in range(0, len(mesh), _BLOCK):
        block = mesh[start : start + _BLOCK].astype(np.float64)
        posed = heads(block, face, camera)
        parts.append(_geometry(block, posed, camera))
        frontal.append(posed.frontal.astype(np.float32))
        misfit.append(posed.misfit)
    units = action_units(np.concatenate(frontal))
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
