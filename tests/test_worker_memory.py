"""A worker buffers a bounded part of a clip's frames, however long the clip."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.vision import backends
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.run import group
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import fingerprints
from triptych.pipeline.stages.recipe import Recipe

STATUS = Path("/proc/self/status")
SECONDS = 20
MIB = 2**20


def make_clip(path: Path, seconds: int) -> int:
    """Write a clip of the demonstration's face whose brightness changes in every frame; bytes of all its frames."""
    from triptych.pipeline.demo.face import Portrait
    from triptych.pipeline.demo.motion import Pose

    face = Portrait().draw(Pose())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = face.shape[:2]
        for number in range(30 * seconds):
            lit = np.clip(face.astype(np.int16) + number % 40 - 20, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lit, format="rgb24")))
        container.mux(stream.encode(None))
    return 30 * seconds * face.nbytes


class CountingBackend:
    """A vision backend that counts the frames and stores none."""

    def __init__(self) -> None:
        self.software: dict[str, str] = {}
        self.seen = 0

    def add(self, clip, frames) -> bool:
        self.seen += sum(frame.image.size > 0 for frame in frames)
        return True

    def finish(self):
        return {"clip": ExtractionError(Reason.NO_FACE, "not computed")}


def run(path: Path, buffer_bytes: int) -> int:
    """Run faces and vision over the clip; MiB of this process's peak memory since it started."""
    recipe = Recipe()
    digests = {"media": hashlib.sha256(path.read_bytes()).hexdigest(), "text": ""}
    clip = Clip("clip", path.name, None, None, *(math.nan,) * 4, str(path.parent))
    work = ClipWork(clip, ("faces", "vision"), digests)
    task = GroupTask(path.parent, recipe, fingerprints(recipe), (work,), buffer_bytes)
    lines = group.run_group(task, lambda event: None)
    assert [line.outcome for line in lines] == ["done", "failed"]
    peak = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())  # getrusage's begins at the parent's
    assert peak is not None
    return int(peak[1]) // 1024


def measure(folder: Path) -> dict[str, int]:
    backend = CountingBackend()
    backends.load_backend = lambda settings: backend
    group.write_shard = lambda *arguments: None
    make_clip(folder / "short.mp4", 1)
    whole = make_clip(folder / "long.mp4", SECONDS)
    start = run(folder / "short.mp4", 8 * MIB)
    tight = run(folder / "long.mp4", 8 * MIB)
    wide = run(folder / "long.mp4", 512 * MIB)
    return {"whole": whole // MIB, "tight": tight - start, "wide": wide - start, "seen": backend.seen}


@pytest.mark.skipif(not STATUS.is_file(), reason="the peak is read from Linux's /proc")
def test_frames_are_buffered_up_to_a_limit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Freed memory goes back to the system at once, so that the peak is what is in use.
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "0",
        },
    )
    found = json.loads(done.stdout)
    assert found["seen"] == 30 * (1 + 2 * SECONDS)
    assert found["whole"] > 160
    # The frames between two keyframes, their crops and the decoder's own frames are not part of the buffer.
    assert found["tight"] < 8 + 40
    assert 0.9 * found["whole"] < found["wide"] < found["whole"] + 40


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
