"""Measure how well the embedded vision backend agrees with real OpenFace output, group by group.

    python tests/bench/facemesh_agreement.py OPENFACE.csv VIDEO [--input frame|crop]

The CSV is FeatureExtraction's of the same video, one row a frame. With `frame` FaceMesh reads the whole frames, as
OpenFace did; with `crop` a steady square of 224 pixels around the face, and its pixels are mapped back to the frame
(distances and angles of the two cameras then differ by more than the backends do). "Reached" is the median over 45
clips of a first, plain version, and "to beat" the goal derived from it. A single clip may be far above or below a
median, and if OpenFace's own values hardly vary (sd), r is noise.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from triptych.extractors.base import Features, Frame
from triptych.extractors.vision.columns import AU_INTENSITIES, AU_PRESENCES
from triptych.extractors.vision.facemesh import FaceMesh
from triptych.extractors.vision.stage import VisionSettings

CROP = 224


class Line(NamedTuple):
    """One line of the table: error in its unit, its constant part, correlation with OpenFace (nan: none)."""

    name: str
    error: float
    offset: float
    r: float
    sd: float
    reached: str
    to_beat: str


def read_openface(path: Path) -> dict[str, np.ndarray]:
    """OpenFace's CSV by column name; old builds write a space after the comma."""
    with path.open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    values = np.array(rows[1:], float)
    return {name: values[:, index] for index, name in enumerate(rows[0])}


def landmarks(columns: dict[str, np.ndarray], prefix: str = "", count: int = 68) -> np.ndarray:
    """2D points, shape (T, count, 2)."""
    return np.stack([[columns[f"{prefix}{axis}_{i}"] for i in range(count)] for axis in "xy"], -1).transpose(
        1, 0, 2
    )


def steady_square(points: np.ndarray) -> np.ndarray:
    """The affine map of each frame, shape (T, 2, 3), to a crop of one size round a smoothed centre."""
    low, high = points.min(1), points.max(1)
    side = 1.4 * np.median(high - low, axis=0).max()
    centre = cv2.GaussianBlur((low + high) / 2, (1, 19), 3, borderType=cv2.BORDER_REPLICATE)
    scale = CROP / side
    return np.stack(
        [np.array([[scale, 0, CROP / 2 - scale * x], [0, scale, CROP / 2 - scale * y]]) for x, y in centre]
    )


def read_frames(video: Path, maps: np.ndarray | None) -> Iterator[Frame]:
    """The video's own frames, through the maps if there are any."""
    with av.open(str(video)) as container:
        for slot, decoded in enumerate(container.decode(video=0)):
            image = decoded.to_ndarray(format="rgb24")
            if maps is not None:
                if slot == len(maps):
                    return
                image = cv2.warpAffine(image, maps[slot], (CROP, CROP), borderMode=cv2.BORDER_REPLICATE)
            yield Frame(slot, float(decoded.time or 0.0), image)


def run(openface: dict[str, np.ndarray], video: Path, shown: str) -> Features:
    """FaceMesh's features of the video; landmarks in the video's pixels, for frames and for crops."""
    maps = steady_square(landmarks(openface)) if shown == "crop" else None
    features = FaceMesh(VisionSettings()).extract(read_frames(video, maps))
    if maps is not None:
        for axis, name in enumerate("xy"):
            for prefix in ("", "eye_lmk_"):
                positions = [
                    k for k, column in enumerate(features.columns) if column.startswith(f"{prefix}{name}_")
                ]
                features.values[:, positions] = (features.values[:, positions] - maps[:, axis, 2:]) / maps[
                    :, axis, axis, None
                ]
    return features


def _against(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float, float]:
    difference = ours - theirs
    moves = ours.std() > 0 and theirs.std() > 0
    r = float(np.corrcoef(ours, theirs)[0, 1]) if moves else float("nan")
    return float(np.abs(difference).mean()), float(difference.mean()), r, float(theirs.std())


def agreement(features: Features, openface: dict[str, np.ndarray]) -> list[Line]:
    """The table, over the frames in which both found a face."""
    if len(features) != len(openface["success"]):
        raise ValueError(f"{len(features)} frames in the video, {len(openface['success'])} rows in the CSV")
    both = features.valid & (openface["success"] == 1)
    theirs = {name: values[both] for name, values in openface.items()}
    ours = {name: features.values[both, index].astype(float) for index, name in enumerate(features.columns)}
    nan = float("nan")

    width = np.linalg.norm(landmarks(theirs)[:, 36] - landmarks(theirs)[:, 45], axis=1)[:, None]
    miss = 100 * np.linalg.norm(landmarks(ours) - landmarks(theirs), axis=-1) / width
    eyes = landmarks(ours, "eye_lmk_", 56) - landmarks(theirs, "eye_lmk_", 56)
    lines = [
        Line("face found, %", 100 * float(features.valid.mean()), nan, nan, nan, "100", ""),
        Line("68 points, NME %", float(np.median(miss.mean(1))), nan, nan, nan, "4.1", "3.5"),
        Line("inner 51, NME %", float(np.median(miss[:, 17:].mean(1))), nan, nan, nan, "3.2", ""),
        Line(
            "eye points, NME %",
            float((100 * np.linalg.norm(eyes, axis=-1) / width).mean()),
            nan,
            nan,
            nan,
            "",
            "",
        ),
    ]
    angles = {
        "pose_Rx": ("3.0; r .81", "r .85"),
        "pose_Ry": ("1.8; r .91", "r .93"),
        "pose_Rz": ("1.0; r .94", "r .93"),
        "gaze_angle_x": ("4.1; r .40", "r .6"),
        "gaze_angle_y": ("4.0; r .58", "r .6"),
    }
    for name, (reached, aim) in angles.items():
        lines.append(
            Line(
                f"{name}, degrees",
                *_against(*(np.degrees(columns[name]) for columns in (ours, theirs))),
                reached,
                aim,
            )
        )
    for name in ("pose_Tx", "pose_Ty", "pose_Tz"):
        lines.append(Line(f"{name}, mm", *_against(ours[name], theirs[name]), "", ""))
    known = {"45": (".71", ".75"), "12": (".82", ".83"), "01": (".61", ".65")}
    units = [
        Line(f"AU{au}_r", *_against(ours[f"AU{au}_r"], theirs[f"AU{au}_r"]), *known.get(au, ("", "")))
        for au in AU_INTENSITIES
    ]
    measured = [line.r for line in units if np.isfinite(line.r)]
    lines += [
        *units,
        Line(f"mean of {len(measured)} AU_r", nan, nan, float(np.mean(measured)), nan, ".42", ".5"),
    ]
    same = np.mean([(ours[f"AU{au}_c"] == theirs[f"AU{au}_c"]).mean() for au in AU_PRESENCES])
    return [*lines, Line("AU_c alike, %", 100 * float(same), nan, nan, nan, "", "")]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--input", choices=("frame", "crop"), default="frame", help="what FaceMesh is shown")
    arguments = parser.parse_args()
    openface = read_openface(arguments.csv)
    form = "{:<24}{:>8}{:>8}{:>7}{:>7}   {:<12}{}\n"
    sys.stdout.write(form.format("", "error", "offset", "r", "sd", "reached", "to beat"))
    for line in agreement(run(openface, arguments.video, arguments.input), openface):
        numbers = ("" if np.isnan(value) else f"{value:.2f}" for value in line[1:5])
        sys.stdout.write(form.format(line.name, *numbers, *line[5:]))


if __name__ == "__main__":
    main()
