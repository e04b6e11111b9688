"""All faces of a recording over time, and how their mouths move.

Whole frames are searched a few times a second. Between two searches a face's box is interpolated, and MTCNN's last two
networks refine it in every frame, so that its points follow the head. The face is then cut out by its points: what
changes in the mouth's region is the mouth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.faces.mtcnn import BOX, POINTS, SAME_FACE, SCORE, Face, Faces, Image, sizes, steps

if TYPE_CHECKING:
    from triptych.extractors.faces.mtcnn import Mtcnn

SIDE = 360  # shorter side of the frames that faces are searched in [pixels]
MOST_FACES = 6  # the largest ones of a frame
SURE = 0.7  # the lowest score of a face in a frame
BYSTANDER = 0.4  # of a tracked face's size: smaller faces beside it are not searched for
SMALLER = 0.7  # faces of this share of the smallest one are found too, so that they can be reported
PATCH = 96  # side of a face that is cut out by its points
# Where the five points of a face lie in it, as shares of its side.
PLACES = np.array([[0.31, 0.36], [0.69, 0.36], [0.5, 0.55], [0.35, 0.74], [0.65, 0.74]], np.float32)
MOUTH = (slice(int(0.58 * PATCH), int(0.98 * PATCH)), slice(int(0.22 * PATCH), int(0.78 * PATCH)))
UPPER = (slice(int(0.15 * PATCH), int(0.52 * PATCH)), slice(int(0.15 * PATCH), int(0.85 * PATCH)))
COLUMNS = ("motion", "opening", "stillness")


@dataclass(frozen=True)
class Track:
    """One face over time.

    Attributes
    ----------
    times
        float64, shape (T,), rising [s].
    boxes
        float32, shape (T, 4): left, top, right, bottom, as shares of the frame's width and height.
    scores
        float32, shape (T,): the detector's confidence.
    mouth
        float32, shape (T, 3): the change of the mouth's region since the value before, its darkness (an open mouth
        is dark), and the change of the upper face, all relative to the contrast of the upper face. NaN where there
        was no value shortly before.
    """

    times: NDArray[np.float64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    mouth: NDArray[np.float32]


@dataclass
class _Growing:
    """A track that may go on."""

    last: Face
    times: list[float] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    patch: NDArray[np.float32] | None = None


class TrackFinder:
    """Find the tracks of all faces while frames come in; only those since the last search are in memory.

    Parameters
    ----------
    mtcnn
        The detector.
    min_face
        The smallest face, as a share of the frame's shorter side.
    interval
        Time between two searches of whole frames [s].
    """

    def __init__(self, mtcnn: Mtcnn, min_face: float, interval: float) -> None:
        self._mtcnn = mtcnn
        self._min_face = min_face
        self._interval = interval
        self._window: list[tuple[float, Image]] = []
        self._growing: list[_Growing] = []
        self._ended: list[_Growing] = []

    def add(self, time: float, image: Image) -> None:
        """Add a frame: its time [s] and its copy, RGB, upright."""
        self._window.append((time, image))
        if (len(self._window) == 1 and not self._growing) or time - self._window[0][
            0
        ] >= self._interval - 1e-6:
            self._search()

    def tracks(self) -> list[Track]:
        """Return the tracks of all frames so far, by their beginning."""
        if self._window:
            self._search()
        done = sorted(self._ended + self._growing, key=lambda track: track.times[0] if track.times else 0.0)
        return [_finished(track) for track in done if track.times]

    def _search(self) -> None:
        """Search the window's last frame for faces, and follow the tracks to it."""
        times = [time for time, _ in self._window]
        images = [image for _, image in self._window]
        found, pairs = self._found(images[-1])
        for index, track in enumerate(self._growing):
            end = found[pairs[index]] if index in pairs else track.last
            self._follow(track, times, images, track.last, end)
        new = [_Growing(face) for k, face in enumerate(found) if k not in pairs.values()]
        for track in new:  # it may have come into view since the search before
            self._follow(track, times, images, track.last, track.last)
        lost = [track for k, track in enumerate(self._growing) if k not in pairs]
        self._ended += [track for track in lost if track.times]
        self._growing = [track for k, track in enumerate(self._growing) if k in pairs] + new
        self._window = []

    def _found(self, image: Image) -> tuple[Faces, dict[int, int]]:
        """Search an image; return its faces, largest first, and which of them continues which track."""
        last = [track.last for track in self._growing]
        least = max(self._min_face * SMALLER * min(image.shape[:2]), 16)
        # Much smaller faces than one that is tracked are no speakers, and cost most of the time.
        coarse = max([least, *(float(sizes(face)) * BYSTANDER for face in last)])
        for smallest in (coarse, least):
            found = self._mtcnn.detect(image, smallest)
            found = found[np.argsort(-sizes(found), kind="stable")][:MOST_FACES]
            pairs = _pairs(last, found)
            if len(pairs) == len(last) or coarse == least:
                break
        return found, pairs

    def _follow(
        self, track: _Growing, times: list[float], images: list[Image], start: Face, end: Face
    ) -> None:
        """Refine the face in every frame of the window between its two positions."""
        weight = np.linspace(1 / len(times), 1, len(times), dtype=np.float32)[:, None]
        expected = start * (1 - weight) + end * weight
        faces = self._mtcnn.refine(images, expected[:, BOX])
        seen = (faces[:, SCORE] >= SURE) & (steps(faces, expected) < SAME_FACE)
        for time, image, face in zip(
            np.array(times)[seen], [images[k] for k in np.flatnonzero(seen)], faces[seen], strict=True
        ):
            patch = face_patch(image, face[POINTS])
            height, width = image.shape[:2]
            box = face[BOX] / np.array([width, height] * 2, np.float32)
            recent = track.patch is not None and time - track.times[-1] < self._interval / 2
            changes = mouth_values(patch, track.patch if recent else None)
            track.times.append(float(time))
            track.rows.append(np.concatenate([box, face[SCORE, None], changes]).astype(np.float32))
            track.patch = patch
        track.last = end


def face_patch(image: Image, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut a face out of an image by its five points, grey, shape (96, 96), [levels].

    Parameters
    ----------
    points
        Shape (10,): x and y of five points [pixels].
    """
    given = points.reshape(5, 2)
    centre, place = given.mean(0), PLACES.mean(0)
    a, b = given - centre, (PLACES - place) * PATCH
    power = float((a * a).sum()) or 1.0
    cosine, sine = float((a * b).sum()) / power, float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / power
    turn = np.array([[cosine, -sine], [sine, cosine]])
    # Only the face's surroundings become grey.
    reach = 1.2 * PATCH / max(np.hypot(cosine, sine), 1e-3)
    height, width = image.shape[:2]
    left, top = (int(np.clip(centre[k] - reach, 0, limit - 1)) for k, limit in ((0, width), (1, height)))
    right, bottom = (max(int(centre[k] + reach) + 1, start + 1) for k, start in ((0, left), (1, top)))
    near = image[top:bottom, left:right]
    shift = place * PATCH - turn @ (centre - (left, top))
    grey = cv2.cvtColor(near, cv2.COLOR_RGB2GRAY)
    patch = cv2.warpAffine(grey, np.column_stack([turn, shift]), (PATCH, PATCH), flags=cv2.INTER_LINEAR)
    result: NDArray[np.float32] = patch.astype(np.float32)
    return result


def mouth_values(patch: NDArray[np.float32], before: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the mouth's change, its darkness and the upper face's change, shape (3,), see `Track`."""
    now = _standardised(patch)
    opening = -float(_centre(now[MOUTH]).mean())
    if before is None:
        return np.array([np.nan, opening, np.nan], np.float32)
    change = np.abs(now - _standardised(before))
    return np.array([change[MOUTH].mean(), opening, change[UPPER].mean()], np.float32)


def _standardised(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    upper = patch[UPPER]
    result: NDArray[np.float32] = (patch - upper.mean()) / (upper.std() + 1)
    return result


def _centre(region: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = region.shape
    return region[height // 5 : height * 4 // 5, width // 4 : width * 3 // 4]


def _pairs(tracks: Sequence[Face], found: Faces) -> dict[int, int]:
    """Pair each track with the nearest face of a search, nearest pairs first."""
    pairs: dict[int, int] = {}
    if not tracks or not len(found):
        return pairs
    distances = steps(np.array(tracks)[:, None], found[None])
    for flat in np.argsort(distances, axis=None, kind="stable"):
        track, face = (int(k) for k in np.unravel_index(flat, distances.shape))
        if distances[track, face] >= SAME_FACE:
            break
        if track not in pairs and face not in pairs.values():
            pairs[track] = face
    return pairs


def _finished(track: _Growing) -> Track:
    rows = np.array(track.rows, np.float32)
    return Track(np.array(track.times), rows[:, BOX], rows[:, SCORE], rows[:, 5:8])
