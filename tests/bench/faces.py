"""CPU time of tracking a face against MTCNN on every frame, and how close the two are.

    python tests/bench/faces.py CLIPS [--frames 90] [--rounds 1] [--runtime onnx]

CLIPS is a folder (searched through) or a file. The plain implementation is facenet-pytorch's
`MTCNN.detect` on one frame after the other, as its documentation shows, with the largest face of each. Both read the
same decoded frames at 30 Hz and take turns in one process of one thread; figures are medians of CPU time.

A clip's residual is the mean distance of ours from the plain implementation's five points, in percent of the distance
between the eyes; jitter is their mean second difference in time, ours over plain. Both are of the rows in which
the two boxes overlap; where they do not, another person (or pattern) is tracked.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from numpy.typing import NDArray
from PIL import Image
from turns import Turns, files, line, summary

from triptych.extractors.base import ExtractionError, Frame
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.faces.mtcnn import BOX, POINTS, SCORE
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

SAME = 0.3  # shared over joint area, above which two boxes are of one face
Rows = NDArray[np.float64]  # (T, 15), as columns.FACE_COLUMNS; zeros where there is no face


def plain(mtcnn: MTCNN, images: list[Image.Image]) -> Rows:
    rows = np.zeros((len(images), len(FACE_COLUMNS)))
    for row, image in zip(rows, images, strict=True):
        boxes, scores, points = mtcnn.detect(image, landmarks=True)
        if boxes is not None:
            row[BOX], row[SCORE], row[POINTS] = boxes[0], scores[0], np.ravel(points[0])
    return rows


def tracked(tracker: FaceTracker, frames: list[Frame]) -> Rows:
    try:
        return tracker.extract(frames).values.astype(np.float64)
    except ExtractionError:
        return np.zeros((len(frames), len(FACE_COLUMNS)))


def overlap(one: Rows, other: Rows) -> Rows:
    """Shared over joint area of two boxes a row."""
    shared = np.minimum(one[:, 2:4], other[:, 2:4]) - np.maximum(one[:, :2], other[:, :2])
    shared = shared.clip(0).prod(axis=1)
    areas = (one[:, 2:4] - one[:, :2]).prod(axis=1) + (other[:, 2:4] - other[:, :2]).prod(axis=1)
    return shared / np.maximum(areas - shared, 1)


class Nearness:
    """Compare our rows of one clip with the plain implementation's."""

    def __init__(self, ours: Rows, theirs: Rows) -> None:
        both = (ours[:, SCORE] > 0) & (theirs[:, SCORE] > 0)
        same = both & (overlap(ours, theirs) > SAME)
        self.found = int((theirs[:, SCORE] > 0).sum())
        self.lost = int(((theirs[:, SCORE] > 0) & (ours[:, SCORE] == 0)).sum())
        self.gained = int(((theirs[:, SCORE] == 0) & (ours[:, SCORE] > 0)).sum())
        self.others = int((both & ~same).sum())
        self.residual = self.jitter = np.nan
        if not same.any():
            return
        mine, its = (rows[:, POINTS].reshape(-1, 5, 2) for rows in (ours, theirs))
        eyes = np.median(np.linalg.norm(its[same, 0] - its[same, 1], axis=1))
        self.residual = 100 * np.linalg.norm(mine - its, axis=2)[same].mean() / eyes
        thrice = same[:-2] & same[1:-1] & same[2:]
        if thrice.any():
            shaken = [np.linalg.norm(np.diff(p, 2, axis=0), axis=2)[thrice].mean() for p in (mine, its)]
            self.jitter = shaken[0] / shaken[1]


def decoded(path: Path, count: int) -> list[Frame]:
    try:
        return list(islice(MediaSource(path, MediaSettings()).frames(), count))
    except ExtractionError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--frames", type=int, help="of each clip, from its first; all of them by default")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runtime", choices=("onnx", "torch"), default="onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mtcnn, tracker = MTCNN(image_size=224, margin=0), FaceTracker(FacesSettings(runtime=arguments.runtime))
    costs, nearness, rows = [], [], 0
    for name, path in files(arguments.clips).items():
        frames = decoded(path, arguments.frames)
        if not frames:
            continue
        images = [Image.fromarray(frame.image) for frame in frames]
        turns = Turns()
        near = None
        for _ in range(arguments.rounds):
            theirs: list[Rows] = []
            turns.take(
                lambda f=frames: tracked(tracker, f),
                lambda p=images, into=theirs: into.append(plain(mtcnn, p)),
                ours_a_round=3,
            )
            near = near or Nearness(tracked(tracker, frames), theirs[0])
        costs.append(turns.medians())
        nearness.append(near)
        rows += len(frames)
        print(
            f"{len(frames):4} rows  {line(*costs[-1])}  residual {near.residual:4.1f} %  jitter {near.jitter:4.2f}  "
            f"lost {near.lost}  gained {near.gained}  another {near.others}  {name}",
            flush=True,
        )
    ours, theirs = np.array(costs)[:, :, 0].sum(axis=0) / rows * 1e3
    print(f"faces: {summary(costs)}; a row: ours {ours:.1f} ms, plain {theirs:.1f} ms")
    print(
        f"residual {np.nanmean([n.residual for n in nearness]):.1f} % of the distance between the eyes, "
        f"jitter {np.nanmean([n.jitter for n in nearness]):.2f} x plain (means of clips); "
        f"of {sum(n.found for n in nearness)} rows in which plain finds a face "
        f"{sum(n.lost for n in nearness)} lost, "
        f"{sum(n.others for n in nearness)} with another; {sum(n.gained for n in nearness)} gained"
    )


if __name__ == "__main__":
    main()
