"""A clip as a strip of frames with its face's box and landmarks drawn."""

from __future__ import annotations

import base64
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError
from triptych.extractors.stage import FACES
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.report.frames import MarkedFrame, frames_at
from triptych.pipeline.report.gather import read_rows
from triptych.pipeline.storage.schema import ShardError
from triptych.pipeline.storage.store import FeatureStore

FRAMES, HEIGHT = 6, 180  # of a strip; the height in pixels
LATEST = 60.0  # [s]: frames after it are not decoded
QUALITY = 72  # of JPEG
_POINT, _BOX = (80, 230, 255), (255, 190, 60)  # RGB


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
    frames = _frames(store, clip, note)
    if not frames:
        return None
    encoded, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(cv2.hconcat(list(map(_drawn, frames))), cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    )
    times = tuple(frame.time for frame in frames)
    return (base64.b64encode(data.tobytes()).decode("ascii"), times) if encoded else None


def _frames(store: FeatureStore, clip: Clip, note: str) -> list[MarkedFrame]:
    """Decode frames at even distances, up to the last one that is drawn or can be decoded."""
    rows = read_rows(store, "vision", clip.id) or read_rows(store, FACES, clip.id)
    last = 1.0 if rows is None else float(rows.times[-1])
    last = min(last, LATEST) if np.isfinite(last) else LATEST
    times = (np.arange(FRAMES) + 0.5) / FRAMES * last
    found: list[MarkedFrame] = []
    # The stages have reported what cannot be decoded, and the folder's state lists damaged shards.
    with (
        suppress(ExtractionError, ShardError),
        closing(frames_at(store, clip, times.tolist(), note)) as frames,
    ):
        for frame in frames:
            found.append(frame)
    return found


def _drawn(frame: MarkedFrame) -> NDArray[np.uint8]:
    """Scale a frame to the strip's height, and draw the face's box and landmarks."""
    height, width = frame.image.shape[:2]
    scale = HEIGHT / height
    image: Any = cv2.resize(frame.image, (max(1, round(width * scale)), HEIGHT), interpolation=cv2.INTER_AREA)
    if frame.marks.box is not None:
        x, y, right, bottom = (round(float(edge) * scale) for edge in frame.marks.box)
        cv2.rectangle(image, (x, y), (right, bottom), _BOX, 1, cv2.LINE_AA)
    for x, y in [] if frame.marks.landmarks is None else frame.marks.landmarks * scale:
        if abs(x) < 10_000 and abs(y) < 10_000:  # OpenCV draws nothing farther away
            cv2.circle(image, (round(x), round(y)), 1, _POINT, -1)
    drawn: NDArray[np.uint8] = image
    return drawn
