"""A clip as a strip of frames with the landmarks of its vision rows drawn."""

from __future__ import annotations

import base64
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Frame
from triptych.extractors.faces.crops import STABLE_MARGIN, _stable_squares, _whole_pixels
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.stage import FACES
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.margins import SECOND_MARGIN
from triptych.extractors.vision.stage import VisionSettings
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.report.gather import read_rows
from triptych.pipeline.storage.store import FeatureStore

FRAMES, HEIGHT = 6, 180  # of a strip; the height in pixels
LATEST = 60.0  # [s]: frames after it are not decoded
QUALITY = 72  # of JPEG
_COLUMN = {name: place for place, (name, _) in enumerate(VISION_COLUMNS)}
_LANDMARKS = [[_COLUMN[f"{axis}_{i}"] for axis in "xy"] for i in range(68)]
_POINT, _BOX = (80, 230, 255), (255, 190, 60)  # RGB

Points = NDArray[np.float64]


def strip(store: FeatureStore, clip: Clip, note: str = "") -> tuple[str, tuple[float, ...]] | None:
    """Draw a strip of a clip.

    Parameters
    ----------
    note
        The ledger's note on the clip's vision rows, which states where crops have another margin.

    Returns
    -------
    A JPEG in base64 and the times of its frames [s]; None where the clip has no frames that can be decoded.
    """
    if "imported" in store.recipe["recipe"] or not clip.path or not Path(clip.file).is_file():
        return None
    faces, vision = (read_rows(store, stage, clip.id) for stage in (FACES, "vision"))
    drawn = [_drawn(frame, faces, vision, store, note) for frame in _frames(store, clip, faces, vision)]
    if not drawn:
        return None
    images, times = zip(*drawn, strict=True)
    encoded, data = cv2.imencode(
        ".jpg", cv2.cvtColor(cv2.hconcat(images), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return (base64.b64encode(data.tobytes()).decode("ascii"), times) if encoded else None


def _frames(store: FeatureStore, clip: Clip, faces: Features | None, vision: Features | None) -> list[Frame]:
    """Decode frames at even distances, up to the last one that is drawn."""
    settings = MediaSettings.model_validate({**store.recipe["recipe"].get("media", {}), "truncated": "note"})
    rows = vision if vision is not None else faces
    last = float(rows.times[-1]) if rows is not None and len(rows) else 1.0
    last = min(last, LATEST) if np.isfinite(last) else LATEST
    wanted = {round(share * last * settings.frame_rate) for share in (np.arange(FRAMES) + 0.5) / FRAMES}
    found = []
    try:
        with closing(MediaSource(clip.file, settings, buffer_bytes=0).frames()) as frames:  # type: ignore[type-var]
            for frame in frames:
                if frame.slot in wanted:
                    found.append(frame)
                if frame.slot >= max(wanted):
                    break
    except ExtractionError:  # the stages have reported it
        pass
    return found


def _drawn(
    frame: Frame, faces: Features | None, vision: Features | None, store: FeatureStore, note: str
) -> tuple[NDArray[np.uint8], float]:
    """Scale a frame to the strip's height, and draw the face's box and landmarks."""
    height, width = frame.image.shape[:2]
    scale = HEIGHT / height
    image: Any = cv2.resize(frame.image, (max(1, round(width * scale)), HEIGHT), interpolation=cv2.INTER_AREA)
    row = None if faces is None else _row(faces, frame.time)
    if faces is not None and row is not None and faces.valid[row]:
        x, y, right, bottom = (round(float(edge) * scale) for edge in faces.values[row, :4])
        cv2.rectangle(image, (x, y), (right, bottom), _BOX, 1, cv2.LINE_AA)
    landmarks = None if vision is None else _landmarks(frame, faces, row, vision, store, note)
    for x, y in [] if landmarks is None else landmarks * scale:
        if abs(x) < 10_000 and abs(y) < 10_000:  # OpenCV draws nothing farther away
            cv2.circle(image, (round(x), round(y)), 1, _POINT, -1)
    return image, frame.time


def _row(rows: Features, time: float) -> int | None:
    """Return the row nearest to a time; None if it is of another frame."""
    if not len(rows) or not np.isfinite(rows.times).all():
        return None
    row = int(np.abs(rows.times - time).argmin())
    step = float(np.median(np.diff(rows.times))) if len(rows) > 1 else np.inf
    return row if abs(rows.times[row] - time) <= 0.75 * step else None


def _landmarks(
    frame: Frame,
    faces: Features | None,
    track_row: int | None,
    vision: Features,
    store: FeatureStore,
    note: str,
) -> Points | None:
    """Return the 68 landmarks of a frame, shape (68, 2) [pixels of the frame]; None without them."""
    row = _row(vision, frame.time)
    if row is None or not vision.valid[row] or vision.columns != tuple(_COLUMN):
        return None
    settings = VisionSettings.model_validate(store.recipe["recipe"].get("vision", {}))
    points: Points = vision.values[row, _LANDMARKS].astype(np.float64)
    if settings.input == "frame":
        return points
    if faces is None or track_row is None:
        return None
    cut = _cut(frame, faces, track_row, settings, f"margin {SECOND_MARGIN}" in note)
    return None if cut is None else cut[:2] + (points + 0.5) * cut[2:] / settings.image_size - 0.5


def _cut(
    frame: Frame, faces: Features, row: int, settings: VisionSettings, wider: bool
) -> NDArray[np.float64] | None:
    """Return the part of the frame that the vision stage was given: left, top, width and height [pixels]."""
    if settings.input == "stable":
        x, y, side = _stable_squares(faces)[row]
        more = side * (SECOND_MARGIN / STABLE_MARGIN - 1) if wider else 0.0
        return np.array([x - more / 2, y - more / 2, side + more, side + more])
    if not faces.valid[row]:
        return None
    x, y, right, bottom = _whole_pixels(frame.image, faces.values[row])
    return np.array([x, y, right - x, bottom - y], dtype=np.float64)
