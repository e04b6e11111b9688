"""Measure how well the embedded vision backend agrees with real OpenFace output: by group, over clips.

    python tests/bench/facemesh_agreement.py OPENFACE [RAW] [--input stable] [--each]

OPENFACE is a folder of FeatureExtraction's CSV files (also gzipped, also in a folder ``clips`` inside), of whole
frames, one row a frame. The video of ``name.csv`` is ``name.wmv`` or ``name.mp4`` beside it; that of
``folder_0001.csv.gz`` is ``RAW/folder/0001.mp4``. Ours is MTCNN's track and then facemesh, with the
whole frames or, as the default recipe has it, with a steady crop (its pixels are mapped back; distances and angles
are of another camera then). Medians and means over clips; where OpenFace's own values hardly vary, r is noise.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from triptych.extractors.base import Features, Frame
from triptych.extractors.faces.crops import aligned
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.vision.columns import AU_INTENSITIES, AU_PRESENCES
from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.extractors.vision.stage import VisionSettings

ANGLES = ("pose_Rx", "pose_Ry", "pose_Rz", "gaze_angle_x", "gaze_angle_y")
Table = dict[str, float]


def read_openface(path: Path) -> dict[str, np.ndarray]:
    """OpenFace's CSV by column name; old builds write a space after the comma."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    values = np.array(rows[1:], float)
    return {name: values[:, index] for index, name in enumerate(rows[0])}


def pairs(openface: Path, raw: Path | None) -> Iterator[tuple[str, Path, Path]]:
    """Name, CSV and video of every clip for which both are there."""
    for table in sorted([*openface.glob("*.csv"), *openface.glob("clips/*.csv*")]):
        name = table.name.split(".")[0]
        folder, _, number = name.rpartition("_")
        videos = [table.with_name(f"{name}{suffix}") for suffix in (".wmv", ".mp4", ".avi")]
        videos += [raw / folder / f"{number}.mp4"] if raw else []
        if video := next((video for video in videos if video.is_file()), None):
            yield name, table, video


def extract(video: Path, settings: VisionSettings) -> Features:
    """FaceMesh's features of the video's own frames; the landmarks in the video's pixels."""
    with av.open(str(video)) as container:
        frames = [
            Frame(slot, float(decoded.time or 0.0), decoded.to_ndarray(format="rgb24"))
            for slot, decoded in enumerate(container.decode(video=0))
        ]
    track = FaceTracker(FacesSettings()).extract(frames)
    crops = list(aligned(frames, track, settings))
    features = FaceMesh(settings).extract(crops)
    box = np.array([crop.face[:4] for crop in crops])
    scale = (track.values[:, 2:4] - track.values[:, :2]) / np.maximum(box[:, 2:] - box[:, :2], 1e-6)
    shift = track.values[:, :2] - scale * box[:, :2]
    for axis, name in enumerate("xy"):
        places = [
            k
            for k, column in enumerate(features.columns)
            if column.startswith((f"{name}_", f"eye_lmk_{name}_"))
        ]
        features.values[:, places] = features.values[:, places] * scale[:, axis, None] + shift[:, axis, None]
    return features


def points(columns: dict[str, np.ndarray], prefix: str = "", count: int = 68) -> np.ndarray:
    """Points in the image, shape (T, count, 2)."""
    return np.stack([[columns[f"{prefix}{axis}_{i}"] for i in range(count)] for axis in "xy"], -1).transpose(
        1, 0, 2
    )


def correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    return (
        float(np.corrcoef(ours, theirs)[0, 1]) if ours.std() > 1e-6 and theirs.std() > 1e-6 else float("nan")
    )


def agreement(features: Features, openface: dict[str, np.ndarray]) -> Table:
    """The table of one clip, over the frames in which both found a face."""
    if len(features) != len(openface["success"]):
        raise ValueError(f"{len(features)} frames in the video, {len(openface['success'])} rows in the CSV")
    both = features.valid & (openface["success"] == 1)
    theirs = {name: values[both] for name, values in openface.items()}
    ours = {name: features.values[both, index].astype(float) for index, name in enumerate(features.columns)}
    width = np.linalg.norm(points(theirs)[:, 36] - points(theirs)[:, 45], axis=1)[:, None]
    miss = 100 * np.linalg.norm(points(ours) - points(theirs), axis=-1) / width
    eyes = points(ours, "eye_lmk_", 56) - points(theirs, "eye_lmk_", 56)
    table = {
        "face found, %": 100 * float(features.valid.mean()),
        "68 points, % of eye distance": float(np.median(miss.mean(1))),
        "inner 51, % of eye distance": float(np.median(miss[:, 17:].mean(1))),
        "eye points, % of eye distance": float((100 * np.linalg.norm(eyes, axis=-1) / width).mean()),
        "pose_Tx, error in mm": float(np.abs(ours["pose_Tx"] - theirs["pose_Tx"]).mean()),
    }
    for name in ANGLES:
        seen, shown = np.degrees(ours[name]), np.degrees(theirs[name])
        table[f"{name}, r"] = correlation(seen, shown)
        table[f"{name}, error in degrees"] = float(np.abs(seen - shown).mean())
    for unit in AU_INTENSITIES:
        table[f"AU{unit}_r, r"] = correlation(ours[f"AU{unit}_r"], theirs[f"AU{unit}_r"])
    levels = [np.mean([values[f"AU{unit}_r"].mean() for unit in AU_INTENSITIES]) for values in (ours, theirs)]
    table["AU_r, mean level"], table["AU_r, OpenFace's mean level"] = map(float, levels)
    marks = [f"AU{unit}_c" for unit in AU_PRESENCES]
    table["AU_c alike, %"] = 100 * float(np.mean([(ours[name] == theirs[name]).mean() for name in marks]))
    table["AU_c alike if always 0, %"] = 100 * float(np.mean([(theirs[name] == 0).mean() for name in marks]))
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("openface", type=Path)
    parser.add_argument("raw", type=Path, nargs="?")
    parser.add_argument(
        "--input", choices=("frame", "stable"), default="frame", help="what FaceMesh is shown"
    )
    parser.add_argument("--each", action="store_true", help="also a column for each clip")
    arguments = parser.parse_args()
    settings = VisionSettings(backend="facemesh", input=arguments.input)
    tables: dict[str, Table] = {}
    for name, table, video in pairs(arguments.openface, arguments.raw):
        tables[name] = agreement(extract(video, settings), read_openface(table))
        sys.stderr.write(f"{name}\n")
    shown = list(tables) if arguments.each else []
    sys.stdout.write(f"{len(tables)} clips, input {arguments.input}\n")
    sys.stdout.write(
        f"{'':<30}{'median':>8}{'mean':>8}" + "".join(f"{name[-12:]:>14}" for name in shown) + "\n"
    )
    for line in next(iter(tables.values())):
        values = np.array([table[line] for table in tables.values()])
        each = "".join(f"{tables[name][line]:>14.2f}" for name in shown)
        sys.stdout.write(f"{line:<30}{np.nanmedian(values):>8.2f}{np.nanmean(values):>8.2f}{each}\n")
    units = np.array([[table[f"AU{unit}_r, r"] for unit in AU_INTENSITIES] for table in tables.values()])
    sys.stdout.write(
        f"{'AU_r over clips and units, r':<30}{np.nanmedian(units):>8.3f}{np.nanmean(units):>8.3f}\n"
    )


if __name__ == "__main__":
    main()
