"""The two networks of the Face Landmarker, run by LiteRT: an image of a face to 478 points, these to 52 blendshapes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import BackendMissingError
from triptych.extractors.vision.facemesh.bundle import networks, not_a_bundle

SIDE = 256
"""Side of the landmark network's input [pixels]."""

POINTS = 478

BLENDSHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67,
    70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146,
    148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181,
    185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293,
    295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361,
    362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398,
    400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
"""The points that the blendshape network reads, in its order."""

BLENDSHAPES = (
    "neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""Names of the blendshapes, ARKit's, in the network's order."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what C++ code writes to standard error: LiteRT has no option for it."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class FaceNetworks:
    """The networks of a model file, loaded once; one thread.

    Parameters
    ----------
    file
        MediaPipe's ``face_landmarker.task``.

    Raises
    ------
    BackendMissingError
        The package ai-edge-litert is not installed, or the file holds other networks.
    """

    def __init__(self, file: Path) -> None:
        try:
            with _quiet():
                from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise BackendMissingError(
                f"vision.backend=facemesh needs ai-edge-litert, which cannot be imported ({error}); "
                "install it with: pip install 'triptych[facemesh]'"
            ) from error
        contents = networks(file)
        try:
            with _quiet():
                self._landmarks, self._blendshapes = (
                    Interpreter(model_content=content, num_threads=1) for content in contents
                )
                for network in (self._landmarks, self._blendshapes):
                    network.allocate_tensors()
            self._ports = _ports(self._landmarks, (1, SIDE, SIDE, 3), (3 * POINTS, 1))
            self._shape_ports = _ports(self._blendshapes, (1, len(BLENDSHAPE_POINTS), 2), (len(BLENDSHAPES),))
        except (OSError, ValueError, RuntimeError) as error:
            raise not_a_bundle(file, error) from error

    def landmarks(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Find the points of a face.

        Parameters
        ----------
        image
            shape (256, 256, 3), RGB from 0 to 1: the region about the face, upright.

        Returns
        -------
        tuple
            points, shape (478, 3): x, y and relative depth in the region's pixels; presence, 0 to 1: how sure the
            network is that they lie on a face.
        """
        given, points, score = self._ports
        self._landmarks.set_tensor(given, image[None])
        self._landmarks.invoke()
        presence = 1.0 / (1.0 + np.exp(-float(self._landmarks.get_tensor(score).item())))
        return self._landmarks.get_tensor(points).reshape(POINTS, 3), presence

    def blendshapes(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score the blendshapes, shape (52,), 0 to 1, of points, shape (478, 2 or more): x and y in any pixels."""
        given, scores = self._shape_ports
        self._blendshapes.set_tensor(given, points[None, list(BLENDSHAPE_POINTS), :2].astype(np.float32))
        self._blendshapes.invoke()
        found: NDArray[np.float32] = self._blendshapes.get_tensor(scores).reshape(-1).copy()
        return found


def _ports(network: Any, shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of a network's input and of its first outputs, whose shape and sizes are checked."""
    (given,), results = network.get_input_details(), network.get_output_details()
    found = tuple(int(np.prod(one["shape"])) for one in results[: len(sizes)])
    if tuple(given["shape"]) != shape or found != sizes:
        raise ValueError(f"its network maps {tuple(given['shape'])} to {found}, not {shape} to {sizes}")
    return (given["index"], *(one["index"] for one in results[: len(sizes)]))
