"""CPU time of OpenFace's starts: `triptych extract` on a small set, against a shell loop of one process a clip.

    python tests/bench/openface_starts.py [--clips 16] [--start 1.07] [--frame 0] [--jobs 2]

The program is the tests' stand-in, which spends as much CPU time at each start as a real build needs to load its models
(1.07 s), and `--frame` seconds for each image. The loop gets the whole frames as images that were decoded before, and
does nothing else; `extract` also decodes the clips, tracks the face and cuts stable crops. Both are measured with all
their child processes. The face detector's export is made before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import openface_stand_in

from triptych.extractors.faces import onnx_networks
from triptych.extractors.media.source import MediaSource
from triptych.extractors.vision.openface import program
from triptych.extractors.vision.openface.images import bmp
from triptych.pipeline.demo.clips import make_clips
from triptych.pipeline.stages.recipe import Recipe


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """Run a command; CPU seconds of it and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts(state: Path) -> int:
    """Count the calls of the stand-in since it was last asked."""
    log = state / "calls.jsonl"
    count = len([json.loads(line) for line in log.read_text().splitlines()])
    log.unlink()
    return count


def write_frames(clips: Path, folder: Path) -> int:
    """Write every clip's frames as images into a folder of its own; count them."""
    count = 0
    for clip in sorted(clips.rglob("*.mp4")):
        images = folder / f"{clip.parent.name}-{clip.stem}"
        images.mkdir(parents=True)
        for frame in MediaSource(clip, Recipe().media).frames():
            (images / f"{frame.slot:08d}.bmp").write_bytes(bmp(frame.image))
            count += 1
    return count


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--start", type=float, default=1.07, help="CPU seconds of a start")
    parser.add_argument("--frame", type=float, default=0.0, help="CPU seconds of an image")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    onnx_networks.prepare(Recipe().faces)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = openface_stand_in.install(folder / "openface")
        environment = {
            **os.environ,
            program.VARIABLE: str(made),
            "OPENFACE_STAND_IN_STATE": scratch,
            "OPENFACE_STAND_IN_START": str(arguments.start),
            "OPENFACE_STAND_IN_FRAME": str(arguments.frame),
        }
        make_clips(folder / "clips", count=arguments.clips)
        frames = write_frames(folder / "clips", folder / "frames")
        print(f"{arguments.clips} clips, {frames} frames, {arguments.start} s a start", flush=True)

        flags = " ".join(program.ALL_COLUMNS)
        loop = f'for clip in frames/*; do "{made}" {flags} -fdir "$clip" -out_dir out || exit; done'
        (folder / "out").mkdir()
        plain = cpu(["sh", "-c", f"cd '{folder}' && {loop}"], environment)
        print(f"shell loop: {plain:.1f} s of CPU, {starts(folder)} starts", flush=True)

        extract = [sys.executable, "-m", "triptych.pipeline", "extract", str(folder / "clips")]
        options = ["-o", str(folder / "features"), "--only", "vision", "-j", str(arguments.jobs)]
        ours = cpu([*extract, *options], environment)
        print(f"triptych extract: {ours:.1f} s of CPU, {starts(folder)} starts")
        print(f"ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
