"""One face followed through a clip by MTCNN: where it is in every picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.columns import FACE_COLUMNS
from triptych.extractors.faces.crops import Aligned, aligned
from triptych.extractors.faces.mtcnn import (
    BOX,
    NO_FACES,
    SAME_FACE,
    SCORE,
    Face,
    Faces,
    Image,
    Mtcnn,
    sizes,
    steps,
)
from triptych.extractors.settings import FacesSettings

__all__ = ["Aligned", "FaceTracker", "aligned"]

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)

DOUBT = 0.15  # in steps: a face this far from where interpolation put it; the clip did something between
FLICKER_S, SURE = 0.25, 0.95  # a face seen for less, on the average less surely, is a pattern and no face
LEVELS = 2  # of 255: where every fourth pixel of every fourth line changes less, nothing has appeared
PATIENCE_S = 1.0  # how long a lost face is waited for before somebody who stood beside it is followed
# Hands and patterns score 0.7 to 0.95 time and again, faces 0.99: they must not win by size.
SURENESS_POWER = 8


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
        How small a face, how far apart the keyframes, how sure a tracked face, and the runtime.
    device
        Where the networks run, as torch names it.
    """

    def __init__(self, settings: FacesSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._mtcnn = Mtcnn(device, settings.runtime)

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
        return replace(_features(done, times), notes=self._mtcnn.notes)


class _Walk:
    """The way through one clip: who is followed, where they were last, and who stood beside them."""

    def __init__(self, mtcnn: Mtcnn, settings: FacesSettings) -> None:
        self._mtcnn = mtcnn
        self._settings = settings
        self._last: Face | None = None
        self._last_time = 0.0
        self._bystanders = NO_FACES
        self._empty = NO_PIXELS  # the last picture that was searched and shows no face at all

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
        if all(self._shows_nothing(picture) for picture in window[low + 1 : high + 1]):
            for picture in window[low + 1 : high + 1]:
                picture.found = NO_FACES
                self._settle(picture, None)
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
        if start is not None and end is not None and steps(start, end[None])[0] < SAME_FACE:
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
            if self._sure([picture], again, face[None], SAME_FACE)[0]:
                face = again[0]
        self._settle(picture, face)

    def _interpolate(self, span: list[_Picture], start: Face, end: Face) -> tuple[Faces, NDArray[np.bool_]]:
        """The face in every picture of the span but its first, and whether the networks are sure of it."""
        times = np.array([picture.time for picture in span])
        weight = ((times[1:] - times[0]) / (times[-1] - times[0])).astype(np.float32)[:, None]
        thought = start * (1 - weight) + end * weight
        faces = self._mtcnn.refine([picture.image for picture in span[1:]], thought[:, BOX])
        return faces, self._sure(span[1:], faces, thought, DOUBT)

    def _sure(self, pictures: list[_Picture], faces: Faces, thought: Faces, step: float) -> NDArray[np.bool_]:
        """Whether each face is clear, within a step of the one thought, its middle in the picture."""
        middles = (faces[:, 0:2] + faces[:, 2:4]) / 2
        limits = np.array([picture.image.shape[1::-1] for picture in pictures])
        inside = ((middles >= 0) & (middles < limits)).all(axis=1)
        clear = faces[:, SCORE] >= self._settings.min_score
        sure: NDArray[np.bool_] = clear & inside & (steps(faces, thought) < step)
        return sure

    def _search(self, picture: _Picture) -> Faces:
        """Every face of the picture, searched once; thoroughly where a coarse search loses the track."""
        if picture.found is None:
            smallest = self._settings.min_face * picture.image.shape[1] / 640
            last = self._last
            least = smallest if last is None else max(smallest, float(sizes(last)) / 2)
            found = self._mtcnn.detect(picture.image, least)
            if last is not None and not (steps(last, found) < SAME_FACE).any():
                again = self._mtcnn.refine([picture.image], last[None, BOX])
                if self._sure([picture], again, last[None], SAME_FACE)[0]:
                    found = np.concatenate([found, again])
                else:
                    found = self._mtcnn.detect(picture.image, smallest)
            picture.found = found
        if not len(picture.found):
            self._empty = picture.image
        return picture.found

    def _shows_nothing(self, picture: _Picture) -> bool:
        """Whether the picture is the last empty one over again: black, a slide, a room before somebody enters."""
        empty, image = self._empty[::4, ::4], picture.image[::4, ::4]
        return empty.shape == image.shape and int(cv2.norm(empty, image, cv2.NORM_INF)) < LEVELS

    def _choose(self, window: list[_Picture], place: int) -> Face | None:
        """The face of a searched picture that continues the track, or the main face where nothing does."""
        picture = window[place]
        found = NO_FACES if picture.found is None else picture.found
        if self._last is not None and len(found):
            way = steps(self._last, found)
            if way.min() < SAME_FACE:
                nearest: Face = found[way.argmin()]
                return nearest
            if picture.time - self._last_time < PATIENCE_S:
                found = found[~_near(found, self._bystanders)]
        found = found[found[:, SCORE] >= self._settings.min_score]
        if len(found) > 1:
            return self._main(found, window[place:])
        return found[0] if len(found) else None

    def _main(self, found: Faces, pictures: list[_Picture]) -> Face:
        """The largest face, weighed by how long and how surely one is seen in its place in the pictures."""
        images = [picture.image for picture in pictures]
        seen = [
            self._mtcnn.refine(images, np.repeat(face[None, BOX], len(images), 0))[:, SCORE] for face in found
        ]
        sureness = np.mean(np.array(seen) ** SURENESS_POWER, axis=1)
        main: Face = found[np.argmax(sizes(found) ** 2 * sureness)]
        return main

    def _settle(self, picture: _Picture, face: Face | None) -> None:
        picture.face = face
        if face is not None:
            self._last, self._last_time = face, picture.time
        if picture.found is not None:
            others = picture.found
            self._bystanders = others if face is None else others[steps(face, others) >= SAME_FACE]


def _near(faces: Faces, others: Faces) -> NDArray[np.bool_]:
    """Whether each face lies where one of the others does."""
    near: NDArray[np.bool_] = (steps(faces[:, None], others[None]) < SAME_FACE).any(axis=1)
    return near


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
    """The rows of all frames, from the settled pictures."""
    rows = np.repeat(np.arange(len(pictures)), [picture.rows for picture in pictures])
    nothing = np.zeros(len(FACE_COLUMNS), np.float32)
    settled = [nothing if picture.face is None else picture.face for picture in pictures]
    values = np.array(settled, np.float32).reshape(-1, len(FACE_COLUMNS))[rows]
    _drop_flickers(values, np.array(times))
    valid = values[:, SCORE] > 0
    if not valid.any():
        raise ExtractionError(Reason.NO_FACE, f"MTCNN found no lasting face in any of {len(times)} frames")
    counts = {
        place: len(picture.found) for place, picture in enumerate(pictures) if picture.found is not None
    }
    nearest = np.rint(np.interp(np.arange(len(pictures)), list(counts), np.arange(len(counts)))).astype(int)
    n_faces = np.array(list(counts.values()))[nearest][rows]
    names, units = zip(*FACE_COLUMNS, strict=True)
    return Features(
        values=values,
        columns=names,
        units=units,
        times=np.array(times, np.float64),
        valid=valid,
        extras={"n_faces": np.maximum(n_faces, valid).astype(np.int16)},
    )


def _drop_flickers(values: Faces, times: NDArray[np.float64]) -> None:
    """Blank the short and unsure stretches, in which MTCNN sees faces in wallpaper and leaves."""
    seen = np.flatnonzero(values[:, SCORE])
    faces = values[seen]
    ends = np.flatnonzero((np.diff(seen) > 1) | (steps(faces[:-1], faces[1:]) >= SAME_FACE)) + 1
    for stretch in np.split(seen, ends):
        if len(stretch) and np.ptp(times[stretch]) < FLICKER_S and values[stretch, SCORE].mean() < SURE:
            values[stretch] = 0
