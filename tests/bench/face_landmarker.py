"""Compare facemesh's 478 points and its CPU time with MediaPipe's own Face Landmarker, on the same frames.

    python tests/bench/face_landmarker.py CLIPS --mediapipe PYTHON [--limit 8]

PYTHON is the interpreter of an environment of its own with the packages mediapipe (1.2 or later) and av; MediaPipe
runs its Tasks API in video mode, with blendshapes. Ours is given whole frames and MTCNN's track, whose time does not
count; it is printed with and without the 709 columns. Difference: pixels of the frame, median over points and frames.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from triptych.extractors.base import Frame
from triptych.extractors.faces.crops import aligned
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.extractors.vision.facemesh.bundle import model_file
from triptych.extractors.vision.stage import VisionSettings

SETTINGS = VisionSettings(backend="facemesh", input="frame")


def clocked(work) -> tuple[float, object]:
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def compare(video: Path, python: str, tracker: FaceTracker, mesh: FaceMesh) -> tuple[float, ...]:
    """Median difference [pixels], and milliseconds of CPU a frame: ours, with columns, MediaPipe's."""
    with av.open(str(video)) as container:
        frames = [
            Frame(slot, float(decoded.time or 0), decoded.to_ndarray(format="rgb24"))
            for slot, decoded in enumerate(container.decode(video=0))
        ]
    crops = list(aligned(frames, tracker.extract(frames), SETTINGS))
    seeing, seen = clocked(lambda: mesh.watch(crops))
    whole, _ = clocked(lambda: mesh.extract(crops))
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "points.npz"
        script = Path(__file__).with_name("mp_landmarker.py")
        subprocess.run(
            [python, script, model_file(), video, stored], check=True, capture_output=True, env={**os.environ}
        )
        theirs = np.load(stored)
    shown = np.array([crop.found for crop in crops])
    difference = np.linalg.norm(np.stack(seen.meshes)[..., :2] - theirs["points"][shown][..., :2], axis=-1)
    return (
        float(np.nanmedian(difference)),
        *(1000 * spent / len(frames) for spent in (seeing, whole, theirs["spent"])),
    )


def main() -> None:
    """Print a line a clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--mediapipe", required=True, metavar="PYTHON")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    videos = sorted(path for path in arguments.clips.rglob("*") if path.suffix in (".mp4", ".wmv", ".avi"))
    videos = videos[:: max(1, len(videos) // (arguments.limit or len(videos)))][: arguments.limit]
    tracker, mesh = FaceTracker(FacesSettings()), FaceMesh(SETTINGS)
    sys.stdout.write("points, px   ours, ms   with columns   MediaPipe, ms\n")
    form = "{:>10.3f}{:>11.1f}{:>15.1f}{:>16.1f}   {}\n"
    lines = []
    for video in videos:
        lines.append(compare(video, arguments.mediapipe, tracker, mesh))
        sys.stdout.write(form.format(*lines[-1], video.name))
        sys.stdout.flush()
    sys.stdout.write(form.format(*np.median(lines, axis=0), f"median of {len(lines)} clips"))


if __name__ == "__main__":
    main()
