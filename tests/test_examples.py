"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from small_models import save_model

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


def test_train_on_two_stages(tmp_path, small_bert):
    make_clips(tmp_path / "clips", count=12)
    models = {
        "text": small_bert,
        "speech": save_model("hubert", tmp_path / "hubert"),
        "appearance": save_model("vit", tmp_path / "vit"),
    }
    settings = [f"{stage}.model={folder}" for stage, folder in models.items()]
    folders = [tmp_path / name for name in ("clips", "features", "run")]
    printed = run("train_on_two_stages.py", *folders, *settings, cwd=tmp_path)
    assert "text 12 done" in printed
    assert "speech 12 done" in printed
    assert "appearance 12 done" in printed
    assert "lmf, seeds 1, 12, MAE of M" in printed
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["streams"] == {"text": "text", "audio": "speech", "vision": "appearance"}
