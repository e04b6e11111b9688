"""The vision stage as the CSV files of OpenFace 2.x, for programs that read those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.extractors.base import Features
from triptych.extractors.vision.columns import VISION_GROUPS
from triptych.extractors.vision.openface.table import ABOUT_THE_FRAME, NAMES
from triptych.pipeline.atomic import replacing
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted
from triptych.pipeline.storage.store import FeatureStore

STAGE = "vision"
FACE_ID = 0  # OpenFace's FeatureExtraction follows one face, whose number is always 0
DIGITS = {
    "gaze": 6,
    "eye_landmarks_2d": 1,
    "eye_landmarks_3d": 1,
    "pose": 1,
    "landmarks_2d": 1,
    "landmarks_3d": 1,
    "rigid_shape": 3,
    "shape": 3,
    "au_intensity": 2,
    "au_presence": 2,
}  # digits that OpenFace prints after the point, by group of columns
ROUNDED = 0.1  # rows by which a time may be early
OTHER_DIGITS = {"gaze_angle_": 3, "pose_R": 3}  # those of columns that differ from their group, by prefix


@dataclass(frozen=True)
class Written:
    """What was written: the number of files, and notes for the user."""

    files: int
    notes: tuple[str, ...]


def export_openface_csv(
    store: FeatureStore, folder: Path, clips: Sequence[str] = (), *, spaces: bool = True
) -> Written:
    """Write ``<id>.csv`` for each clip, with OpenFace's 714 columns in its order and with its digits.

    `frame` counts from 1 on the grid of the stage's rows; `timestamp` is the row's time in the clip; `face_id` is 0;
    `success` is 1 for valid rows. Rows that are not valid have 0 in all further columns, where OpenFace leaves numbers
    without meaning.

    Parameters
    ----------
    store
        The feature folder.
    folder
        Where the files are written; created if it is missing.
    clips
        Ids; by default all clips with vision features.
    spaces
        Separate by a comma and a space, as OpenFace 2.0 does, instead of a comma.

    Raises
    ------
    InputError
        A clip has no vision features, or their columns are not OpenFace's.
    """
    known = store.ids(STAGE)
    if missing := [clip_id for clip_id in clips if clip_id not in known]:
        raise InputError(
            [f"clip {quoted(clip_id)}: no vision features in {store.folder}" for clip_id in missing]
        )
    if not known:
        raise InputError(f"{store.folder}: no vision features; extract them first")
    if store.read(STAGE, known[0]).columns != NAMES:
        raise InputError(
            f"{store.folder}: its vision columns are not OpenFace's 709, so they cannot be written as its CSV; "
            "extract vision from the clips"
        )
    folder.mkdir(parents=True, exist_ok=True)
    chosen = tuple(dict.fromkeys(clips)) or known
    for clip_id in chosen:
        write_openface_csv(
            folder / f"{clip_id}.csv",
            store.read(STAGE, clip_id),
            store.frame_rate(STAGE, clip_id),
            spaces=spaces,
        )
    backend = store.recipe["recipe"].get(STAGE, {}).get("backend")
    notes = () if backend == "openface" else (f"the values are of the backend {backend}, not OpenFace's own",)
    return Written(len(chosen), notes)


def write_openface_csv(file: Path, features: Features, frame_rate: float, *, spaces: bool = True) -> None:
    """Write one clip's rows as `export_openface_csv` does.

    Parameters
    ----------
    file
        The CSV; its folder exists.
    features
        Rows of OpenFace's 709 columns, shape (T, 709), with `confidence`.
    frame_rate
        Rows per second.
    spaces
        Separate by a comma and a space.
    """
    separator = ", " if spaces else ","
    row = separator.join(["%d", "%d", "%.3f", "%.2f", "%d", *(f"%.{digits}f" for digits in _digits())])
    # The number on the grid, since a recipe may leave out rows. A mean of several rows has the time of their middle,
    # less than half a row after its place; times may be rounded.
    frames = np.floor(features.times * frame_rate + ROUNDED).astype(int) + 1
    values = np.where(features.valid[:, None], features.values, 0).tolist()
    about = zip(
        frames.tolist(),
        features.times.tolist(),
        features.extras["confidence"].tolist(),
        features.valid.tolist(),
        values,
        strict=True,
    )
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        opened.write(separator.join((*ABOUT_THE_FRAME, *NAMES)) + "\n")
        opened.writelines(
            row % (frame, FACE_ID, time, confidence, valid, *numbers) + "\n"
            for frame, time, confidence, valid, numbers in about
        )


def _digits() -> list[int]:
    """Digits after the point of each of the 709 columns."""
    return [
        next((other for prefix, other in OTHER_DIGITS.items() if name.startswith(prefix)), DIGITS[group])
        for group, columns in VISION_GROUPS.items()
        for name, _ in columns
    ]
