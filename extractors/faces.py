"""One face followed through a clip by MTCNN: where it is in every picture, and the pictures cut to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
from facenet_pytorch.models.utils.detect_face import extract_face
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from extractors.base import ExtractionError, Features, Frame, Reason
from extractors.columns import FACE_COLUMNS
from extractors.mtcnn import BOX, NO_FACES, SCORE, Faces, Image, Mtcnn
from extractors.settings import FacesSettings, VisionSettings

Face = NDArray[np.float32]  # one row of FACE_COLUMNS
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)

SAME_FACE = (
    0.5  # the largest step, in sizes of the face, that one person is thought to make between two looks
)
PATIENCE_S = 1.0  # how long a lost face is waited for before somebody who stood beside it is followed
SURENESS_POWER = (
    8  # hands and patterns score 0.7 to 0.95 time and again, faces 0.99: they must not win by size
)
STABLE_MARGIN, STABLE_SIGMA = 1.4, 3.0  # side of the stable crop in boxes; smoothing of its centre in rows


class Aligned(NamedTuple):
    """One picture as a vision backend is shown it.

    Attributes
    ----------
    slot, time
        As in `Frame`.
    image
        RGB, uint8, shape (image_size, image_size, 3), or the whole picture.
    found
        The track has a face in this row.
    """

    slot: int
    time: float
    image: Image
    found: bool


@dataclass(eq=False)
class _Picture:
    """A picture of the window, and what is known of it so far."""

    image: Image
    time: float
    rows: int = 1
    found: Faces | None = None  # every face, where the whole picture was searched
    face: Face | None = None  # the face followed


class FaceTracker:
    """Follows the main face of a clip; the networks are loaded once and serve any number of clips.

    Whole pictures are searched at keyframes. Between two keyframes that show the same face, its box is
    interpolated and R-Net and O-Net look again at every picture, in one batch. Where they are not sure, and
    where the keyframes disagree (a cut, a face that comes or goes), the pictures between are searched by
    halving, so that nothing is ever interpolated across a cut.

    Parameters
    ----------
    settings
        How small a face, how far apart the keyframes, how sure a tracked face.
    device
        Where the networks run, in torch's words.
    """

    def __init__(self, settings: FacesSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._mtcnn = Mtcnn(device)

    def extract(self, frames: Iterable[Frame]) -> Features:
        """Find the followed face in every frame.

        Parameters
        ----------
        frames
            Pictures in order of time. One keyframe interval of them is held, never the clip. A frame whose
            image is the very array of the frame before is not looked at twice.

        Returns
        -------
        Features
            Values of shape (T, 15), `columns.FACE_COLUMNS`, in pixels of the picture; a row without the face
            is zeros and not valid. Extra ``n_faces``: the faces seen in the row, or in the nearest row that
            was searched; once a face is followed, faces under half its size are not looked for.

        Raises
        ------
        ExtractionError
            With `Reason.NO_FACE` when no frame shows a face.
        ValueError
            When an image is not (H, W, 3) of uint8.
        """
        walk = _Walk(self._mtcnn, self._settings)
        window: list[_Picture] = []
        done: list[_Picture] = []
        times: list[float] = []
        since_keyframe = 0
        for frame in frames:
            _check(frame)
            times.append(frame.time)
            since_keyframe += 1
            if window and frame.image is window[-1].image:
                window[-1].rows += 1
            else:
                window.append(_Picture(frame.image, frame.time))
            if since_keyframe > self._settings.keyframe_every and len(window) > 1:
                walk.follow(window)
                done += _without_pixels(window[:-1])
                window, since_keyframe = window[-1:], 1
        if window:
            walk.follow(window)
            done += _without_pixels(window)
        return _features(done, times)


class _Walk:
    """The way through one clip: who is followed, where they were last, and who stood beside them."""

    def __init__(self, mtcnn: Mtcnn, settings: FacesSettings) -> None:
        self._mtcnn = mtcnn
        self._settings = settings
        self._last: Face | None = None
        self._last_time = 0.0
        self._bystanders = NO_FACES

    def follow(self, window: list[_Picture]) -> None:
        """Settle every picture of the window; its first is settled already unless it is the clip's first."""
        if window[0].found is None:
            self._search(window[0])
            self._settle_alone(window, 0)
        self._between(window, 0, len(window) - 1)

    def _between(self, window: list[_Picture], low: int, high: int) -> None:
        """Settle the pictures after `low`, which is settled, up to and with `high`."""
        if low == high:
            return
        self._search(window[high])
        start, end = window[low].face, self._choose(window, high)
        if start is None and end is None and high - low <= self._settings.keyframe_every // 4:
            for picture in window[low + 1 : high + 1]:
                self._settle(picture, None)
            return
        middle = (low + high) // 2
        if high - low == 1:
            self._settle_alone(window, high)
            return
        if start is not None and end is not None and _steps(start, end[None])[0] < SAME_FACE:
            faces, sure = self._interpolate(window[low : high + 1], start, end)
            doubtful = low + 1 + np.flatnonzero(~sure[:-1])
            if not len(doubtful):
                for picture, face in zip(window[low + 1 : high], faces, strict=False):
                    self._settle(picture, face)
                self._settle(window[high], faces[-1] if sure[-1] else end)
                return
            middle = int(doubtful[np.argmin(abs(doubtful - middle))])
        self._between(window, low, middle)
        self._between(window, middle, high)

    def _settle_alone(self, window: list[_Picture], place: int) -> None:
        """Settle a picture by its own search."""
        picture, face = window[place], self._choose(window, place)
        if face is not None:
            # The networks' second look at their own result: what every row between keyframes also had.
            again = self._mtcnn.refine([picture.image], face[None, BOX])
            if self._sure([picture], again, face[None])[0]:
                face = again[0]
        self._settle(picture, face)

    def _interpolate(self, span: list[_Picture], start: Face, end: Face) -> tuple[Faces, NDArray[np.bool_]]:
        """The face in every picture of the span but its first, and whether the networks are sure of it."""
        times = np.array([picture.time for picture in span])
        weight = ((times[1:] - times[0]) / (times[-1] - times[0])).astype(np.float32)[:, None]
        thought = start * (1 - weight) + end * weight
        faces = self._mtcnn.refine([picture.image for picture in span[1:]], thought[:, BOX])
        return faces, self._sure(span[1:], faces, thought)

    def _sure(self, pictures: list[_Picture], faces: Faces, thought: Faces) -> NDArray[np.bool_]:
        """Whether each face is clear, lies about where it was thought to be and has its middle in the picture."""
        middles = (faces[:, 0:2] + faces[:, 2:4]) / 2
        limits = np.array([picture.image.shape[1::-1] for picture in pictures])
        inside = ((middles >= 0) & (middles < limits)).all(axis=1)
        return (faces[:, SCORE] >= self._settings.min_score) & inside & (_steps(faces, thought) < SAME_FACE)

    def _search(self, picture: _Picture) -> Faces:
        """Every face of the picture, searched once; thoroughly where a coarse search loses the one followed."""
        if picture.found is None:
            smallest = self._settings.min_face * picture.image.shape[1] / 640
            last = self._last
            if last is None:
                picture.found = self._mtcnn.detect(picture.image, smallest)
                return picture.found
            found = self._mtcnn.detect(picture.image, max(smallest, _sizes(last) / 2))
            if not (_steps(last, found) < SAME_FACE).any():
                again = self._mtcnn.refine([picture.image], last[None, BOX])
                if self._sure([picture], again, last[None])[0]:
                    found = np.concatenate([found, again])
                else:
                    found = self._mtcnn.detect(picture.image, smallest)
            picture.found = found
        return picture.found

    def _choose(self, window: list[_Picture], place: int) -> Face | None:
        """The face of a searched picture that continues the track, or the main face where nothing does."""
        picture = window[place]
        found = NO_FACES if picture.found is None else picture.found
        if self._last is not None and len(found):
            steps = _steps(self._last, found)
            if steps.min() < SAME_FACE:
                return found[steps.argmin()]
            if picture.time - self._last_time < PATIENCE_S:
                found = found[~_near(found, self._bystanders)]
        found = found[found[:, SCORE] >= self._settings.min_score]
        return self._main(found, window[place:]) if len(found) else None

    def _main(self, found: Faces, pictures: list[_Picture]) -> Face:
        """The largest face, weighed by how long and how surely one is seen in its place in the pictures."""
        if len(found) == 1:
            return found[0]
        images = [picture.image for picture in pictures]
        seen = [
            self._mtcnn.refine(images, np.repeat(face[None, BOX], len(images), 0))[:, SCORE] for face in found
        ]
        sureness = np.mean(np.array(seen) ** SURENESS_POWER, axis=1)
        return found[np.argmax(_sizes(found) ** 2 * sureness)]

    def _settle(self, picture: _Picture, face: Face | None) -> None:
        picture.face = face
        if face is not None:
            self._last, self._last_time = face, picture.time
        if picture.found is not None:
            others = picture.found
            self._bystanders = others if face is None else others[_steps(face, others) >= SAME_FACE]


def aligned(frames: Iterable[Frame], track: Features, settings: VisionSettings) -> Iterator[Aligned]:
    """Show a vision backend the followed face.

    ``stable``: a square of one size for as long as the shot lasts, about a centre smoothed over time; what
    lies outside the picture repeats the picture's edge. Where the track has no face the centre runs on
    between its neighbours, so that the backend may still look. ``original``: each row's own box, stretched
    to a square by facenet-pytorch's own function; black where there is no face. ``frame``: the whole picture.

    Parameters
    ----------
    frames
        The frames that the track was made from.
    track
        The result of `FaceTracker.extract`.
    settings
        Which of the three, and the side of the crops.

    Yields
    ------
    Aligned
        One for each frame, in order.

    Raises
    ------
    ValueError
        When there are more or fewer frames than rows of the track.
    """
    squares = _stable_squares(track)
    for frame, row, found, square in zip(frames, track.values, track.valid, squares, strict=True):
        if settings.input == "stable":
            image = _cut(frame.image, square, settings.image_size)
        elif settings.input == "original":
            image = _original(frame.image, row if found else None, settings.image_size)
        else:
            image = frame.image
        yield Aligned(frame.slot, frame.time, image, bool(found))


def _stable_squares(track: Features) -> NDArray[np.float64]:
    """Corner x, y and side of the stable crop in each row, shape (T, 3)."""
    seen = np.flatnonzero(track.valid)
    faces = track.values[seen]
    jumps = np.flatnonzero(_steps(faces[:-1], faces[1:]) >= SAME_FACE) + 1
    shots = np.split(np.arange(len(seen)), jumps)
    # A stretch without a face between two shots is shared between them.
    ends = [(seen[first - 1] + seen[first] + 1) // 2 for first in jumps]
    squares = np.empty((len(track), 3))
    for shot, begin, end in zip(shots, [0, *ends], [*ends, len(track)], strict=True):
        boxes = faces[shot, BOX].astype(np.float64)
        side = STABLE_MARGIN * np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
        rows = np.arange(begin, end)
        for axis in (0, 1):
            middle = np.interp(rows, seen[shot], (boxes[:, axis] + boxes[:, axis + 2]) / 2)
            squares[begin:end, axis] = gaussian_filter1d(middle, STABLE_SIGMA, mode="nearest") - side / 2
        squares[begin:end, 2] = side
    return squares


def _cut(image: Image, square: NDArray[np.float64], size: int) -> Image:
    """A square of the picture, placed to a fraction of a pixel and brought to `size`."""
    x, y, side = square
    # Bilinear sampling skips pixels when it shrinks, so shrinking is done in whole steps by averaging.
    steps = max(1, round(side / size))
    scale = side / (size * steps)
    middle = (scale - 1) / 2
    matrix = np.array([[scale, 0, x + middle], [0, scale, y + middle]])
    crop = cv2.warpAffine(
        image,
        matrix,
        (size * steps, size * steps),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return crop if steps == 1 else cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def _original(image: Image, face: Face | None, size: int) -> Image:
    """The crop that facenet-pytorch makes of a PIL picture, as bytes."""
    if face is None:
        return np.zeros((size, size, 3), np.uint8)
    pixels = extract_face(PIL.Image.fromarray(image), face[BOX].astype(np.float64), size, 0)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).byte().numpy())


def _sizes(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """The geometric mean of a box's sides; of one face a scalar."""
    area = (faces[..., 2] - faces[..., 0]) * (faces[..., 3] - faces[..., 1])
    return np.sqrt(np.maximum(area, 1))


def _steps(these: NDArray[np.float32], those: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far apart faces are: the way between their middles in sizes, and the log of the ratio of sizes."""
    way = (these[..., 0:2] + these[..., 2:4] - those[..., 0:2] - those[..., 2:4]) / 2
    one, other = _sizes(these), _sizes(those)
    return np.hypot(way[..., 0], way[..., 1]) / np.sqrt(one * other) + abs(np.log(one / other))


def _near(faces: Faces, others: Faces) -> NDArray[np.bool_]:
    """Whether each face lies where one of the others does."""
    return (_steps(faces[:, None], others[None]) < SAME_FACE).any(axis=1)


def _check(frame: Frame) -> None:
    image = frame.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"the frame at {frame.time:.3f} s is {image.dtype} of shape {image.shape}; "
            "faces are sought in RGB pictures, uint8 of shape (H, W, 3)"
        )


def _without_pixels(pictures: list[_Picture]) -> list[_Picture]:
    return [replace(picture, image=NO_PIXELS) for picture in pictures]


def _features(pictures: list[_Picture], times: list[float]) -> Features:
    rows = np.repeat(np.arange(len(pictures)), [picture.rows for picture in pictures])
    valid = np.array([picture.face is not None for picture in pictures], bool)[rows]
    if not valid.any():
        raise ExtractionError(Reason.NO_FACE, f"MTCNN found no face in any of {len(times)} frames")
    nothing = np.zeros(len(FACE_COLUMNS), np.float32)
    values = np.stack([nothing if picture.face is None else picture.face for picture in pictures])[rows]
    counted = {
        place: len(picture.found) for place, picture in enumerate(pictures) if picture.found is not None
    }
    searched = np.array(list(counted))
    nearest = searched[abs(np.arange(len(pictures))[:, None] - searched).argmin(axis=1)]
    counts = np.array([counted[place] for place in nearest])[rows]
    names, units = zip(*FACE_COLUMNS, strict=True)
    return Features(
        values=values,
        columns=names,
        units=units,
        times=np.array(times, np.float64),
        valid=valid,
        extras={"n_faces": np.maximum(counts, valid).astype(np.int16)},
    )
