"""Compare the CPU time of decoding in this process with that of ffmpeg, whose PNG and WAV files are then read.

    python tests/bench/decode.py CLIPS [--rounds 3] [--ffmpeg PROGRAM]

For each clip both take turns, one thread each; ffmpeg's CPU time is counted. Every frame is also compared with the
frame that ffmpeg's ``fps=30`` gives at its index: a row is wrong if a neighbouring frame is nearer.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
import soundfile
from by_files import find_ffmpeg, stored_frames, write_files
from turns import Turns, files, line, summary

from triptych.extractors.base import ExtractionError
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings


def ours(path: Path) -> None:
    source = MediaSource(path, MediaSettings(), buffer_bytes=0)
    for _ in source.frames():
        pass
    source.waveform()


def plain(ffmpeg: str, path: Path, folder: Path) -> None:
    write_files(ffmpeg, path, folder)
    for _ in stored_frames(folder):
        pass
    soundfile.read(folder / "sound.wav", dtype="float32")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return 0.0 if np.array_equal(one, other) else float(np.abs(one.astype(np.int16) - other).mean())


def compare(path: Path, folder: Path) -> tuple[int, int, float]:
    """Count the rows and the wrong ones (missing and surplus rows included), and return the mean difference."""
    mine = [frame.image for frame in MediaSource(path, MediaSettings()).frames()]
    wrong, differences = 0, []
    count = len(list(folder.glob("*.png")))
    for index, its in enumerate(stored_frames(folder)):
        if index >= len(mine):
            wrong += 1
            continue
        # ffmpeg leaves oblong pixels as they are stored; ours are square.
        its = cv2.resize(its, mine[index].shape[1::-1], interpolation=cv2.INTER_LINEAR)
        own = difference(mine[index], its)
        near = [k for k in (index - 1, index + 1) if 0 <= k < len(mine)]
        wrong += own > 0 and any(difference(mine[k], its) < own for k in near)
        differences.append(own)
    return len(mine), wrong + max(len(mine) - count, 0), float(np.mean(differences))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ffmpeg", help="the program; by default PATH's, or imageio-ffmpeg's")
    arguments = parser.parse_args()
    ffmpeg = find_ffmpeg(arguments.ffmpeg)
    costs, rows, wrong = [], 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        for name, path in files(arguments.clips).items():
            try:
                ours(path)
                plain(ffmpeg, path, folder)
            except (ExtractionError, subprocess.CalledProcessError):
                continue
            count, others, mean_difference = compare(path, folder)
            turns = Turns()
            for _ in range(arguments.rounds):
                turns.take(lambda p=path: ours(p), lambda p=path: plain(ffmpeg, p, folder), ours_a_round=2)
            costs.append(turns.medians())
            rows, wrong = rows + count, wrong + others
            print(
                f"{count:4} rows  {line(*costs[-1])}  of another frame {others}  "
                f"mean difference {mean_difference:.2f}  {name}",
                flush=True,
            )
    print(f"decode: {summary(costs)}; of {rows} rows {wrong} show another frame than ffmpeg's fps=30")


if __name__ == "__main__":
    main()
