"""One face tracked through a clip by MTCNN: where it is in every frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.faces.columns import FACE_COLUMNS
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
from triptych.extractors.faces.stage import FacesSettings

__all__ = ["Aligned", "FaceTracker", "aligned"]

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)

DOUBT = 0.15  # in steps: a face this far from its interpolated position means that interpolation failed
FLICKER_S, SURE = 0.25, 0.95  # a face seen for less time and with a lower mean score is a pattern, not a face
LEVELS = 2  # of 255: if every fourth pixel of every fourth line changes less, the frame is unchanged
HINT_S = 1.0  # for so long, only faces near the place that was named are tracked
NAMED = 1.0  # their distance from that place, in sizes of a face
PATIENCE_S = 1.0  # time to wait for a lost face before another face beside it is tracked
# Hands and patterns often score 0.7 to 0.95, faces 0.99: size must not let the former win.
SURENESS_POWER = 8


@dataclass(eq=False)
class _WindowFrame:
    """A frame of the window, with the results so far."""

    image: Image
    time: float
    rows: int = 1
    found: Faces | None = None  # every face, where the whole frame was searched
    face: Face | None = None  # the tracked face


class FaceTracker:
    """Track the main face of a clip; the networks are loaded once and serve any number of clips.

    Whole frames are searched at keyframes. Between two keyframes that show the same face, its box is interpolated, and
    R-Net and O-Net refine it in every frame, in one batch. If their scores are low, or if the keyframes disagree (a
    cut, a face that appears or disappears), the frame in the middle is searched and both halves are handled likewise,
    so that no box is interpolated across a cut.

    Parameters
    ----------
    settings
        The smallest face, the keyframe interval, the lowest score of a tracked face, and the runtime.
    device
        The networks' device, by torch's name.
    """

    def __init__(self, settings: FacesSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._mtcnn = Mtcnn(device, settings.runtime)

    def extract(self, frames: Iterable[Frame], centre: tuple[float, float] | None = None) -> Features:
        """Find the tracked face in every frame.

        Parameters
        ----------
        frames
            Frames in order of time. Only one keyframe interval of them is in memory. A frame that shares its image
            array with the previous frame is not searched again.
        centre
            Of the face to track, in the first second, as shares of width and height; None for the main face.

        Returns
        -------
        Features
            Values of shape (T, 15), `columns.FACE_COLUMNS`, in pixels of the frame; a row without the face
            is zeros and not valid. Extra ``n_faces``: the number of faces in the row, or in the nearest row
            that was searched; while a face is tracked, faces of less than half its size are not searched for.

        Raises
        ------
        ExtractionError
            With `Reason.NO_FACE` when no frame shows a face.
        ValueError
            When an image is not (H, W, 3) of uint8.
        """
        clip_tracker = _ClipTracker(self._mtcnn, self._settings, centre)
        window: list[_WindowFrame] = []
        done: list[_WindowFrame] = []
        times: list[float] = []
        since_keyframe = 0
        for frame in frames:
            _check(frame)
            times.append(frame.time)
            since_keyframe += 1
            if window and frame.image is window[-1].image:
                window[-1].rows += 1
            else:
                window.append(_WindowFrame(frame.image, frame.time))
            if since_keyframe > self._settings.keyframe_every and len(window) > 1:
                clip_tracker.track(window)
                done += _without_pixels(window[:-1])
                window, since_keyframe = window[-1:], 1
        if window:
            clip_tracker.track(window)
            done += _without_pixels(window)
        return replace(_features(done, times), notes=(*self._mtcnn.notes, *clip_tracker.notes))


class _ClipTracker:
    """The state of tracking in one clip: the tracked face, its last position, and the other faces."""

    def __init__(self, mtcnn: Mtcnn, settings: FacesSettings, centre: tuple[float, float] | None) -> None:
        self._mtcnn = mtcnn
        self._settings = settings
        self._centre = centre
        self.notes: tuple[str, ...] = ()
        self._last: Face | None = None
        self._last_time = 0.0
        self._bystanders = NO_FACES
        self._empty = NO_PIXELS  # the last frame that was searched and shows no face at all

    def track(self, window: list[_WindowFrame]) -> None:
        """Find the face in every frame of the window; the first frame has it already, except at a clip's start."""
        if window[0].found is None:
            self._search(window[0])
            self._set_by_search(window, 0)
        self._fill(window, 0, len(window) - 1)

    def _fill(self, window: list[_WindowFrame], low: int, high: int) -> None:
        """Find the face in the frames after `low`, whose face is known, up to and including `high`."""
        if low == high:
            return
        if all(self._shows_nothing(frame) for frame in window[low + 1 : high + 1]):
            for frame in window[low + 1 : high + 1]:
                frame.found = NO_FACES
                self._set_face(frame, None)
            return
        self._search(window[high])
        start, end = window[low].face, self._choose(window, high)
        if start is None and end is None and high - low <= self._settings.keyframe_every // 4:
            for frame in window[low + 1 : high + 1]:
                self._set_face(frame, None)
            return
        middle = (low + high) // 2
        if high - low == 1:
            self._set_by_search(window, high)
            return
        if start is not None and end is not None and steps(start, end[None])[0] < SAME_FACE:
            faces, sure = self._interpolate(window[low : high + 1], start, end)
            doubtful = low + 1 + np.flatnonzero(~sure[:-1])
            if not len(doubtful):
                for frame, face in zip(window[low + 1 : high], faces, strict=False):
                    self._set_face(frame, face)
                self._set_face(window[high], faces[-1] if sure[-1] else end)
                return
            middle = int(doubtful[np.argmin(abs(doubtful - middle))])
        self._fill(window, low, middle)
        self._fill(window, middle, high)

    def _set_by_search(self, window: list[_WindowFrame], index: int) -> None:
        """Find the face of a frame by a search of that frame alone."""
        frame, face = window[index], self._choose(window, index)
        if face is not None:
            # The networks refine their own result, as they do in every row between keyframes.
            again = self._mtcnn.refine([frame.image], face[None, BOX])
            if self._sure([frame], again, face[None], SAME_FACE)[0]:
                face = again[0]
        self._set_face(frame, face)

    def _interpolate(
        self, span: list[_WindowFrame], start: Face, end: Face
    ) -> tuple[Faces, NDArray[np.bool_]]:
        """Interpolate the face in every frame of the span except the first; return the faces and if each is certain."""
        times = np.array([frame.time for frame in span])
        weight = ((times[1:] - times[0]) / (times[-1] - times[0])).astype(np.float32)[:, None]
        expected = start * (1 - weight) + end * weight
        faces = self._mtcnn.refine([frame.image for frame in span[1:]], expected[:, BOX])
        return faces, self._sure(span[1:], faces, expected, DOUBT)

    def _sure(
        self, frames: list[_WindowFrame], faces: Faces, expected: Faces, step: float
    ) -> NDArray[np.bool_]:
        """Return whether each face has a high score, is near the expected one, and has its centre in the frame."""
        middles = (faces[:, 0:2] + faces[:, 2:4]) / 2
        limits = np.array([frame.image.shape[1::-1] for frame in frames])
        inside = ((middles >= 0) & (middles < limits)).all(axis=1)
        clear = faces[:, SCORE] >= self._settings.min_score
        sure: NDArray[np.bool_] = clear & inside & (steps(faces, expected) < step)
        return sure

    def _search(self, frame: _WindowFrame) -> Faces:
        """Find every face of the frame, once; search for small faces too if a coarse search loses the track."""
        if frame.found is None:
            smallest = self._settings.min_face * frame.image.shape[1] / 640
            last = self._last
            least = smallest if last is None else max(smallest, float(sizes(last)) / 2)
            found = self._mtcnn.detect(frame.image, least)
            if last is not None and not (steps(last, found) < SAME_FACE).any():
                again = self._mtcnn.refine([frame.image], last[None, BOX])
                if self._sure([frame], again, last[None], SAME_FACE)[0]:
                    found = np.concatenate([found, again])
                else:
                    found = self._mtcnn.detect(frame.image, smallest)
            frame.found = found
        if not len(frame.found):
            self._empty = frame.image
        return frame.found

    def _shows_nothing(self, frame: _WindowFrame) -> bool:
        """Return whether the frame equals the last one without a face, such as black frames, a slide, an empty room."""
        empty, image = self._empty[::4, ::4], frame.image[::4, ::4]
        return empty.shape == image.shape and int(cv2.norm(empty, image, cv2.NORM_INF)) < LEVELS

    def _choose(self, window: list[_WindowFrame], index: int) -> Face | None:
        """Choose the face that continues the track or, without one, the main face of the frame."""
        frame = window[index]
        found = NO_FACES if frame.found is None else frame.found
        if self._last is not None and len(found):
            distances = steps(self._last, found)
            if distances.min() < SAME_FACE:
                nearest: Face = found[distances.argmin()]
                return nearest
            if frame.time - self._last_time < PATIENCE_S:
                found = found[~_near(found, self._bystanders)]
        found = found[found[:, SCORE] >= self._settings.min_score]
        if self._centre is not None and len(found):
            return self._named(found, frame, self._centre)
        if len(found) > 1:
            return self._main(found, window[index:])
        return found[0] if len(found) else None

    def _named(self, found: Faces, frame: _WindowFrame, centre: tuple[float, float]) -> Face | None:
        """Choose the face nearest to the place that was named; in the first second, only one that is near it."""
        place = np.array(centre, np.float32) * frame.image.shape[1::-1]
        middles = (found[:, 0:2] + found[:, 2:4]) / 2
        distances = np.linalg.norm(middles - place, axis=1) / sizes(found)
        nearest: Face = found[distances.argmin()]
        if self._last is None and distances.min() > NAMED:
            if frame.time < HINT_S:
                return None
            x, y = centre
            self.notes = (f"no face is at {x:g} {y:g} in the first second: the nearest one is tracked",)
        return nearest

    def _main(self, found: Faces, frames: list[_WindowFrame]) -> Face:
        """Choose the main face by its size, weighted by the scores at its position in this and later frames."""
        images = [frame.image for frame in frames]
        seen = [
            self._mtcnn.refine(images, np.repeat(face[None, BOX], len(images), 0))[:, SCORE] for face in found
        ]
        sureness = np.mean(np.array(seen) ** SURENESS_POWER, axis=1)
        main: Face = found[np.argmax(sizes(found) ** 2 * sureness)]
        return main

    def _set_face(self, frame: _WindowFrame, face: Face | None) -> None:
        frame.face = face
        if face is not None:
            self._last, self._last_time = face, frame.time
        if frame.found is not None:
            others = frame.found
            self._bystanders = others if face is None else others[steps(face, others) >= SAME_FACE]


def _near(faces: Faces, others: Faces) -> NDArray[np.bool_]:
    """Return whether each face is near one of the others."""
    return np.asarray((steps(faces[:, None], others[None]) < SAME_FACE).any(axis=1))


def _check(frame: Frame) -> None:
    image = frame.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"the frame at {frame.time:.3f} s is {image.dtype} of shape {image.shape}; "
            "pass RGB images, uint8 of shape (H, W, 3)"
        )


def _without_pixels(frames: list[_WindowFrame]) -> list[_WindowFrame]:
    return [replace(frame, image=NO_PIXELS) for frame in frames]


def _features(frames: list[_WindowFrame], times: list[float]) -> Features:
    """Make the rows of all frames from the frames of all windows."""
    rows = np.repeat(np.arange(len(frames)), [frame.rows for frame in frames])
    nothing = np.zeros(len(FACE_COLUMNS), np.float32)
    tracked = [nothing if frame.face is None else frame.face for frame in frames]
    values = np.array(tracked, np.float32).reshape(-1, len(FACE_COLUMNS))[rows]
    _drop_flickers(values, np.array(times))
    valid = values[:, SCORE] > 0
    if not valid.any():
        raise ExtractionError(Reason.NO_FACE, f"MTCNN found no lasting face in any of {len(times)} frames")
    counts = {index: len(frame.found) for index, frame in enumerate(frames) if frame.found is not None}
    nearest = np.rint(np.interp(np.arange(len(frames)), list(counts), np.arange(len(counts)))).astype(int)
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
    """Remove short stretches of low score: MTCNN sees faces in wallpaper and leaves."""
    seen = np.flatnonzero(values[:, SCORE])
    faces = values[seen]
    ends = np.flatnonzero((np.diff(seen) > 1) | (steps(faces[:-1], faces[1:]) >= SAME_FACE)) + 1
    for stretch in np.split(seen, ends):
        if len(stretch) and np.ptp(times[stretch]) < FLICKER_S and values[stretch, SCORE].mean() < SURE:
            values[stretch] = 0
