"""The frames of a clip with its face: box, landmarks and gaze in the pixels of the whole frame.

The vision stage reads crops, so its landmarks are in the pixels of a crop that the face track decides. Here they are
mapped back through the same cut.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.faces.crops import cuts, in_frame
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.stage import FACES
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.margins import is_wider, widened
from triptych.extractors.vision.stage import VisionSettings
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.store import FeatureStore, MissingFeaturesError

if TYPE_CHECKING:
    from triptych.pipeline.manifest.clips import Clip

VISION = "vision"
RAY = 60.0  # length of a gaze ray [mm]
_BOX, _POINTS = slice(0, 4), slice(5, 15)  # of a row of the face track
_COLUMN = {name: number for number, (name, _) in enumerate(VISION_COLUMNS)}
_LANDMARKS = [[_COLUMN[f"{axis}_{i}"] for axis in "xy"] for i in range(68)]
# Of the 28 points of an eye, the first eight are the edge of the iris.
_IRISES_2D = [
    [[_COLUMN[f"eye_lmk_{axis}_{28 * eye + i}"] for axis in "xy"] for i in range(8)] for eye in (0, 1)
]
_IRISES_3D = [
    [[_COLUMN[f"eye_lmk_{axis}_{28 * eye + i}"] for axis in "XYZ"] for i in range(8)] for eye in (0, 1)
]
_GAZES = [[_COLUMN[f"gaze_{eye}_{axis}"] for axis in "xyz"] for eye in (0, 1)]

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """What the rows say about one frame, in the pixels of the frame; whole numbers are centres of pixels.

    Attributes
    ----------
    box
        Left, top, right, bottom of the tracked face, shape (4,).
    points
        Its eyes, nose and corners of the mouth, shape (5, 2).
    landmarks
        The 68 landmarks, shape (68, 2).
    gaze
        Shape (2, 2, 2): by eye, the pupil and the end of its ray, `RAY` mm along the gaze.
    vision_row
        The number of the frame's row of the vision stage, also where that row is not valid.
    """

    box: Points | None = None
    points: Points | None = None
    landmarks: Points | None = None
    gaze: Points | None = None
    vision_row: int | None = None


@dataclass(frozen=True)
class MarkedFrame:
    """One frame of the clip's grid with its marks; `image` is RGB, uint8, shape (H, W, 3)."""

    slot: int
    time: float
    image: NDArray[np.uint8]
    marks: Marks


class ClipMarks:
    """The face of a clip, by slot of its frame grid.

    Parameters
    ----------
    track, vision
        Rows of the stages ``faces`` and ``vision``, or None.
    settings
        The vision stage's settings, which decide how its images were cut.
    frame_rate
        Slots per second [Hz].
    vision_note
        The ledger's notes on the clip's vision rows.
    """

    def __init__(
        self,
        track: Features | None,
        vision: Features | None,
        settings: VisionSettings,
        frame_rate: float,
        vision_note: str = "",
    ) -> None:
        self.track, self.vision, self.settings, self.frame_rate = track, vision, settings, frame_rate
        if vision is not None and vision.columns != tuple(_COLUMN):
            self.vision = None  # columns of another program
        self._wider = is_wider(vision_note)
        self._track_rows = {} if track is None else _by_slot(track, frame_rate, 1)
        self._vision_rows = {} if self.vision is None else _by_slot(self.vision, frame_rate, settings.average)
        self._cuts = lru_cache(1)(self._find_cuts)

    def at(self, slot: int, frame_size: tuple[int, int]) -> Marks:
        """Return the marks of one slot; `frame_size` is the frames' width and height [pixels]."""
        row, vision_row = self._track_rows.get(slot), self._vision_rows.get(slot)
        box = points = landmarks = gaze = None
        if self.track is not None and row is not None and self.track.valid[row]:
            values = self.track.values[row].astype(np.float64)
            box, points = values[_BOX], values[_POINTS].reshape(5, 2)
        if self.vision is not None and vision_row is not None and self.vision.valid[vision_row]:
            cut = self._cut(row, frame_size)
            if cut is not None:
                landmarks, gaze = self._mapped(self.vision.values[vision_row], cut, frame_size)
        return Marks(box, points, landmarks, gaze, vision_row)

    def _cut(self, row: int | None, frame_size: tuple[int, int]) -> Points | None:
        """Return the part of the frame that the vision stage was given; None where that is unknown."""
        if self.settings.input == "frame":
            return np.array([0.0, 0.0, *frame_size])
        if self.track is None or row is None:
            return None
        cut: Points = self._cuts(frame_size)[row]
        return cut if np.isfinite(cut).all() else None

    def _find_cuts(self, frame_size: tuple[int, int]) -> Points:
        assert self.track is not None
        return cuts(widened(self.track) if self._wider else self.track, self.settings, frame_size)

    def _mapped(
        self, values: NDArray[np.float32], cut: Points, frame_size: tuple[int, int]
    ) -> tuple[Points, Points | None]:
        side = self.settings.image_size
        size = frame_size if self.settings.input == "frame" else (side, side)
        landmarks = in_frame(values[_LANDMARKS], cut, size)
        rays = _rays(values.astype(np.float64), size)
        return landmarks, None if rays is None else in_frame(rays.reshape(4, 2), cut, size).reshape(2, 2, 2)


def _by_slot(rows: Features, frame_rate: float, average: int) -> dict[int, int]:
    """Map the slots of the frame grid to rows; a row that averages several frames belongs to all their slots."""
    found: dict[int, int] = {}
    reach = average / 2 + 1e-6
    for row, at in enumerate(np.asarray(rows.times) * frame_rate):
        if average == 1:
            found[round(at)] = row
        else:
            slots = range(int(np.ceil(at - reach)), int(np.ceil(at + reach)))
            found |= dict.fromkeys(slots, row)
    return found


def _rays(values: Points, size: tuple[int, int]) -> Points | None:
    """Project both gaze rays, shape (2, 2, 2), into the image that the vision stage was given.

    The camera is OpenFace's: its focal length follows from the image's size, its centre is the image's.
    """
    width, height = size
    focal = (500 * width / 640 + 500 * height / 480) / 2
    rays = np.empty((2, 2, 2))
    for eye in (0, 1):
        pupil = values[_IRISES_3D[eye]].mean(axis=0)
        end = pupil + RAY * values[_GAZES[eye]]
        if min(pupil[2], end[2]) <= 1:  # [mm]; behind the camera
            return None
        rays[eye, 0] = values[_IRISES_2D[eye]].mean(axis=0)
        rays[eye, 1] = rays[eye, 0] + focal * (end[:2] / end[2] - pupil[:2] / pupil[2])
    return rays


def media_settings(recipe: dict[str, Any]) -> MediaSettings:
    """Return the media settings of a feature folder; what cannot be decoded is left out, as in its rows."""
    return MediaSettings.model_validate({**recipe.get("media", {}), "truncated": "note"})


def clip_marks(store: FeatureStore, clip_id: str, vision_note: str = "") -> ClipMarks:
    """Read the rows of a clip that are marks on its frames."""
    recipe = store.recipe["recipe"]
    track, vision = rows_or_none(store, FACES, clip_id), rows_or_none(store, VISION, clip_id)
    if track is not None and track.columns != tuple(name for name, _ in FACE_COLUMNS):
        track = None
    settings = VisionSettings.model_validate({} if "imported" in recipe else recipe.get(VISION, {}))
    return ClipMarks(track, vision, settings, media_settings(recipe).frame_rate, vision_note)


def rows_or_none(store: FeatureStore, stage: str, clip_id: str) -> Features | None:
    """Read a clip's rows of a stage; None where the folder has none."""
    try:
        return store.read(stage, clip_id) if stage in store.stages else None
    except MissingFeaturesError:
        return None


def clip_source(store: FeatureStore, clip: Clip, buffer_bytes: int = 0) -> MediaSource:
    """Return a reader of a clip's media file, as the folder's rows were read.

    Raises
    ------
    InputError
        The folder was imported and has no media files, or the file is missing.
    """
    recipe = store.recipe["recipe"]
    if "imported" in recipe:
        raise InputError(
            f"{store.folder}: imported from {recipe['imported']['file']}, so its clips have no media files to show. "
            "Extract the videos into a folder of their own"
        )
    if not Path(clip.file).is_file():
        raise InputError(
            f"{clip.file}: the media file of clip {clip.id!r} is missing. Restore it, or run `triptych extract` on "
            "the clips' new folder"
        )
    return MediaSource(clip.file, media_settings(recipe), buffer_bytes=buffer_bytes, span=clip.span)


def marked_frames(
    store: FeatureStore, clip: Clip, vision_note: str = ""
) -> Generator[MarkedFrame, None, None]:
    """Yield every frame of a clip with its marks, in order; nothing where the clip has sound alone.

    Parameters
    ----------
    vision_note
        The ledger's notes on the clip's vision rows: they state where crops have another margin.

    Raises
    ------
    InputError
        The clip has no media file.
    ExtractionError
        The file cannot be read; as `MediaSource.frames`.
    """
    source, marks = clip_source(store, clip), clip_marks(store, clip.id, vision_note)
    try:
        for frame in source.frames():
            yield with_marks(frame, marks)
    except ExtractionError as error:
        if error.reason != Reason.NO_VIDEO_STREAM:
            raise


def with_marks(frame: Frame, marks: ClipMarks) -> MarkedFrame:
    """Join a frame and its marks."""
    height, width = frame.image.shape[:2]
    return MarkedFrame(frame.slot, frame.time, frame.image, marks.at(frame.slot, (width, height)))


def frames_at(
    store: FeatureStore, clip: Clip, times: Sequence[float], vision_note: str = ""
) -> Generator[MarkedFrame, None, None]:
    """Yield the frames that are shown at some times [s], in order and each once; the clip is decoded up to the last.

    Times before the first frame, or after the last, give no frame. Raises as `marked_frames`.
    """
    rate = media_settings(store.recipe["recipe"]).frame_rate
    wanted = {round(time * rate) for time in times}
    with closing(marked_frames(store, clip, vision_note)) as frames:
        for frame in frames:
            if frame.slot in wanted:
                yield frame
            if not wanted or frame.slot >= max(wanted):
                return
