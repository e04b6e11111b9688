"""The stage `scenes`: the shots of a recording and all its faces, with how their mouths move, in one decoding pass.

Its rows are of three kinds, by time: the begin of a shot, a face at one moment, and the end of the frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.cutting.tracks import Track

if TYPE_CHECKING:
    from triptych.extractors.cutting.settings import ScenesSettings
    from triptych.extractors.media.source import MediaSource

SHOT, FACE, END = 0.0, 1.0, 2.0
COLUMNS = (
    ("kind", ""),
    ("transition", "s"),
    ("track", ""),
    ("left", "share of width"),
    ("top", "share of height"),
    ("right", "share of width"),
    ("bottom", "share of height"),
    ("score", "probability"),
    ("motion", ""),
    ("opening", ""),
    ("stillness", ""),
    ("width", "pixel"),
    ("height", "pixel"),
    ("second", "s"),
    ("fraction", "s"),
)
UNKNOWN = -1.0  # motion and stillness of a face that was not seen shortly before


def extract_scenes(source: MediaSource, settings: ScenesSettings, mtcnn: Any) -> Features:
    """Read the frames of a file once.

    Parameters
    ----------
    mtcnn
        The face detector, `triptych.extractors.faces.mtcnn.Mtcnn`.

    Returns
    -------
    Features
        Shape (T, 15). A row of kind 0 is the begin of a shot, whose `transition` from the shot before took so long; one
        of kind 1 a face of a track; the last one, of kind 2, the end of the frames. Several rows may have one time,
        which is `second` plus `fraction`: one number of 32 bits has no milliseconds after three hours.

    Raises
    ------
    triptych.extractors.base.ExtractionError
        As for reading frames.
    """
    from triptych.extractors.cutting.reading import Recording
    from triptych.extractors.cutting.shots import ShotFinder
    from triptych.extractors.cutting.tracks import SIDE, TrackFinder

    recording = Recording(source.path, source.settings)
    shots = ShotFinder(settings.cut_threshold)
    tracks = TrackFinder(mtcnn, settings.smallest_face, 1 / settings.detection_rate)
    start, end = source.span or (0.0, None)
    due = 0.0
    for time, frame in recording.frames():
        if time < start:
            continue
        if end is not None and time >= end:
            break
        time -= start
        shots.add(time, recording.small(frame))
        if time >= due - 1e-3:
            due = max(due + 1 / settings.mouth_rate, time)
            tracks.add(time, recording.reduced(frame, SIDE))
    last = recording.end - start if end is None else min(recording.end, end) - start
    return _features(shots.transitions(), tracks.tracks(), recording, max(last, 0.0))


def _features(transitions: NDArray[np.float64], tracks: list[Track], recording: Any, end: float) -> Features:
    width = len(COLUMNS)
    rows = [_row(SHOT, 0.0)]
    times: list[float] = [0.0]
    for begin, finish in transitions:
        rows.append(_row(SHOT, finish - begin))
        times.append(float(finish))
    blocks = [np.array(rows, np.float32)]
    for number, track in enumerate(tracks):
        block = np.zeros((len(track.times), width), np.float32)
        block[:, 0], block[:, 2] = FACE, number
        block[:, 3:7], block[:, 7] = track.boxes, track.scores
        block[:, 8:11] = np.where(np.isnan(track.mouth), UNKNOWN, track.mouth)
        blocks.append(block)
        times += track.times.tolist()
    blocks.append(np.array([_row(END, 0.0)], np.float32))
    times.append(max(end, *times))
    values = np.concatenate(blocks)
    values[:, 11:13] = recording.size
    at = np.array(times)
    values[:, 13], values[:, 14] = np.floor(at), at - np.floor(at)
    values = values[np.argsort(at, kind="stable")]
    names, units = zip(*COLUMNS, strict=True)
    return Features(
        values=np.ascontiguousarray(values),
        columns=names,
        units=units,
        times=np.full(len(values), np.nan),
        valid=np.ones(len(values), np.bool_),
        notes=recording.notes,
    )


def _row(kind: float, transition: float) -> list[float]:
    return [kind, transition, UNKNOWN, *[0.0] * (len(COLUMNS) - 3)]


def read_scenes(
    rows: Features | None,
) -> tuple[tuple[int, int], float, NDArray[np.float64], tuple[Track, ...]]:
    """Return the frame size, the end of the frames [s], the transitions between shots, and the tracks."""
    if rows is None:
        return (0, 0), 0.0, np.zeros((0, 2)), ()
    values = rows.values
    times = values[:, 13].astype(np.float64) + values[:, 14]
    shots = (values[:, 0] == SHOT) & (times > 0)
    ends = times[shots]
    faces = values[:, 0] == FACE
    tracks = []
    for number in np.unique(values[faces, 2]):
        own = faces & (values[:, 2] == number)
        mouth = values[own, 8:11].copy()
        mouth[mouth[:, 0] == UNKNOWN, 0] = np.nan
        mouth[mouth[:, 2] == UNKNOWN, 2] = np.nan
        tracks.append(Track(times[own], values[own, 3:7], values[own, 7], mouth))
    size = (int(values[0, 11]), int(values[0, 12]))
    return size, float(times[-1]), np.column_stack([ends - values[shots, 1], ends]), tuple(tracks)
