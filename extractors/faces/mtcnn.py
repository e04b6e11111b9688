"""MTCNN's three networks: all faces of an image, or a refinement of faces already roughly known.

The weights are facenet-pytorch's. The code between the networks is our own, because the library's fails
on images too small for its pyramid, on candidates outside the image and on grey images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.model_cache import ExportError

if TYPE_CHECKING:
    from triptych.extractors.faces.networks import TorchNetworks
    from triptych.extractors.faces.onnx_networks import OnnxNetworks

Image = NDArray[np.uint8]
Face = NDArray[np.float32]  # shape (15,), one row of FACE_COLUMNS
Faces = NDArray[np.float32]  # shape (N, 15)

BOX, SCORE, POINTS = slice(0, 4), 4, slice(5, 15)

# The thresholds with which the networks were trained and with which facenet-pytorch runs them.
PNET_THRESHOLD, RNET_THRESHOLD, ONET_THRESHOLD = 0.6, 0.7, 0.7
PNET_CELL, PNET_STRIDE, PYRAMID_STEP = 12, 2, 0.709
SAME_FACE = 0.5  # the largest of `steps` that one person makes between two detections
NO_FACES: Faces = np.zeros((0, len(FACE_COLUMNS)), np.float32)


class Mtcnn:
    """Multi-task cascaded networks (Zhang et al. 2016), loaded once.

    Faces are rows of `columns.FACE_COLUMNS`: box, score and five points. Coordinates count from 0
    at the first pixel; facenet-pytorch's boxes, which count from 1, lie a pixel further.

    Parameters
    ----------
    device
        The networks' device, by torch's name; ONNX Runtime is used on ``cpu`` only.
    runtime
        ``onnx``, or ``torch``, which also runs the networks where ``onnx`` fails.

    Attributes
    ----------
    notes
        Why torch runs the networks instead of ``onnx``; empty if ``onnx`` runs them.
    """

    def __init__(self, device: str = "cpu", runtime: str = "onnx") -> None:
        self._networks, self.notes = _load(device, runtime)

    def detect(self, image: Image, min_face: float) -> Faces:
        """Find every face of an image.

        Parameters
        ----------
        image
            RGB, shape (H, W, 3).
        min_face
            Side of the smallest face looked for, pixels; below P-Net's 12 there is nothing to find.

        Returns
        -------
        Faces
            Shape (N, 15), by falling score.
        """
        boxes = self._propose(image, max(min_face, PNET_CELL))
        squares = _squares(boxes, image.shape)
        scores, regressed = self._run_rnet([image] * len(squares), squares)
        likely = np.flatnonzero(scores > RNET_THRESHOLD)
        likely = likely[_suppress(_corners(squares[likely]), scores[likely], 0.7)]
        squares = _squares(regressed[likely], image.shape)
        faces = self._run_onet([image] * len(squares), squares)
        faces = faces[faces[:, SCORE] > ONET_THRESHOLD]
        return _without_nested(faces[np.argsort(-faces[:, SCORE], kind="stable")])

    def refine(self, images: Sequence[Image], boxes: NDArray[np.float32]) -> Faces:
        """Refine one rough box in each of several images, by R-Net and O-Net alone.

        Parameters
        ----------
        images
            N images, RGB, of any sizes.
        boxes
            Shape (N, 4): where the face is expected.

        Returns
        -------
        Faces
            Shape (N, 15); the score is 0 where R-Net sees no face.
        """
        scores, regressed = self._run_rnet(images, _enclosing(boxes))
        faces = self._run_onet(images, _enclosing(regressed))
        faces[scores <= RNET_THRESHOLD, SCORE] = 0
        return faces

    def _propose(self, image: Image, min_face: float) -> NDArray[np.float32]:
        """Return the boxes that P-Net proposes for faces of any size, shape (N, 4)."""
        height, width = image.shape[:2]
        found: list[NDArray[np.float32]] = []
        scale, level = PNET_CELL / min_face, image
        while min(height, width) * scale >= PNET_CELL:
            size = (int(width * scale + 1), int(height * scale + 1))
            level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
            offsets, probability = self._networks.pnet(level[None])
            rows, columns = np.nonzero(probability[0] >= np.float32(PNET_THRESHOLD))
            corner = np.stack([columns, rows, columns, rows], 1).astype(np.float32) * np.float32(PNET_STRIDE)
            corner[:, 2:] += PNET_CELL
            corner += offsets[0][:, rows, columns].T * np.float32(PNET_CELL)
            corner *= np.array([width / size[0], height / size[1]] * 2, np.float32)
            scores = probability[0, rows, columns]
            selected = _suppress(corner, scores, 0.5)
            found.append(np.column_stack([corner, scores])[selected])
            scale *= PYRAMID_STEP
        if not found:
            return np.zeros((0, 4), np.float32)
        boxes = np.concatenate(found)
        return boxes[_suppress(boxes[:, BOX], boxes[:, SCORE], 0.7), BOX]

    def _run_rnet(
        self, images: Sequence[Image], squares: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return R-Net's score (N,) and refined box (N, 4) for each square."""
        if not len(squares):
            return np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
        offsets, probability = self._networks.rnet(_crops(images, squares, 24))
        return probability, _corners(squares) + offsets * squares[:, 2:]

    def _run_onet(self, images: Sequence[Image], squares: NDArray[np.int32]) -> Faces:
        """Return O-Net's face for each square, before any selection."""
        if not len(squares):
            return NO_FACES
        offsets, points, probability = self._networks.onet(_crops(images, squares, 48))
        faces = np.empty((len(squares), len(FACE_COLUMNS)), np.float32)
        faces[:, BOX] = _corners(squares) + offsets * squares[:, 2:]
        faces[:, SCORE] = probability
        # O-Net gives the five x, then the five y.
        relative = points.reshape(-1, 2, 5).transpose(0, 2, 1)
        faces[:, POINTS] = (squares[:, None, :2] + relative * squares[:, None, 2:]).reshape(-1, 10)
        return faces


def _load(device: str, runtime: str) -> tuple[OnnxNetworks | TorchNetworks, tuple[str, ...]]:
    """Load the networks in the runtime asked for, or in torch with a note where that fails."""
    notes: tuple[str, ...] = ()
    if runtime == "onnx" and device == "cpu":
        from triptych.extractors.faces.onnx_networks import OnnxNetworks

        try:
            return OnnxNetworks(), ()
        except ExportError as error:
            notes = (f"computed by torch, not ONNX Runtime: {error}",)
    from triptych.extractors.faces.networks import TorchNetworks

    return TorchNetworks(device), notes


def sizes(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the geometric mean of each box's sides; a scalar for a single face."""
    area = (faces[..., 2] - faces[..., 0]) * (faces[..., 3] - faces[..., 1])
    sides: NDArray[np.float32] = np.sqrt(np.maximum(area, 1))
    return sides


def steps(these: NDArray[np.float32], those: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure the distance of faces: of their centres, in units of their size, plus the log of the ratio of sizes."""
    shift = (these[..., 0:2] + these[..., 2:4] - those[..., 0:2] - those[..., 2:4]) / 2
    one, other = sizes(these), sizes(those)
    distance = np.hypot(shift[..., 0], shift[..., 1]) / np.sqrt(one * other)
    step: NDArray[np.float32] = distance + np.abs(np.log(one / other))
    return step


def _enclosing(boxes: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the square (x, y, side) around each box, in whole pixels, since offsets are relative to the crop."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = np.maximum(np.rint(size.max(axis=1, initial=1)), 1)
    corner = np.rint((boxes[:, :2] + boxes[:, 2:] - side[:, None]) / 2)
    return np.column_stack([corner, side]).astype(np.int32)


def _squares(boxes: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.int32]:
    """The enclosing squares that touch an image of that shape."""
    squares = _enclosing(boxes)
    corners = _corners(squares)
    inside = (corners[:, 2:] > 0).all(axis=1) & (corners[:, :2] < (shape[1], shape[0])).all(axis=1)
    touching: NDArray[np.int32] = squares[inside]
    return touching


def _corners(squares: NDArray[np.int32]) -> NDArray[np.float32]:
    """Boxes (N, 4) of squares (N, 3)."""
    return np.column_stack([squares[:, :2], squares[:, :2] + squares[:, 2:]]).astype(np.float32)


def _crops(images: Sequence[Image], squares: NDArray[np.int32], side: int) -> Image:
    """Cut each square out of its image, black outside the image, shape (N, side, side, 3)."""
    crops = np.empty((len(squares), side, side, 3), np.uint8)
    for crop, image, (x, y, size) in zip(crops, images, squares.tolist(), strict=True):
        height, width = image.shape[:2]
        inside = image[max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)]
        if inside.shape[:2] != (size, size):
            if not inside.size:
                crop[:] = 0
                continue
            missing = (max(-y, 0), max(y + size - height, 0), max(-x, 0), max(x + size - width, 0))
            inside = cv2.copyMakeBorder(inside, *missing, cv2.BORDER_CONSTANT)
        cv2.resize(inside, (side, side), dst=crop, interpolation=cv2.INTER_AREA)
    return crops


def _suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that overlap no box of a higher score, by falling score."""
    sides = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).astype(np.float64)
    return np.array(cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, overlap), np.int64)


def _without_nested(faces: Faces) -> Faces:
    """Drop each face that shares over 0.7 of the smaller box with one of a higher score; ordered by falling score."""
    corner, far = faces[:, None, 0:2], faces[:, None, 2:4]
    shared = np.minimum(far, far.swapaxes(0, 1)) - np.maximum(corner, corner.swapaxes(0, 1))
    area = (faces[:, 2] - faces[:, 0]) * (faces[:, 3] - faces[:, 1])
    nested = shared.clip(0).prod(axis=2) > 0.7 * np.minimum(area[:, None], area)
    separate: list[int] = []
    for index in range(len(faces)):
        if not nested[index, separate].any():
            separate.append(index)
    return faces[separate]
