"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from triptych.pipeline.demo.clips import make_clips

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *words, cwd):
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_videos(tmp_path):
    make_clips(tmp_path / "clips", count=2)
    lines = run("own_videos.py", tmp_path / "clips" / "Raw", tmp_path / "features", cwd=tmp_path).splitlines()
    assert len(lines) == 2
    assert all("voiced" in line and "face in 100% of the frames" in line for line in lines)
