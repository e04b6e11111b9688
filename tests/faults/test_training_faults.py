"""Trainings and predictions that are interrupted, or whose disk is full; damage under a training."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from feature_folder import make_folder
from test_kill import descendants
from test_processes import assert_one_line, interrupt, on_a_full_disk, start, wait_for
from test_storage import rot

SPLITS = {"train": 24, "valid": 12, "test": 12}


@pytest.fixture
def features(made_once: Callable[..., Path], tmp_path: Path) -> Path:
    made = made_once("train-features", lambda folder: make_folder(folder, SPLITS))
    return Path(shutil.copytree(made, tmp_path / "features"))


def command(features: Path, run: Path, *more: str, jobs: int = 2) -> list[str]:
    words = ["train", str(features), "--model", "lf-dnn", "-j", str(jobs), "-o", str(run), *more]
    return [sys.executable, "-m", "triptych.pipeline", *words]


def metrics(run: Path) -> object:
    return json.loads((run / "results.json").read_text())["metrics"]


@pytest.mark.parametrize(("number", "code", "jobs"), [(signal.SIGINT, 130, 2), (signal.SIGHUP, 129, 1)])
def test_a_signal_ends_a_training_with_one_line(
    features: Path, tmp_path: Path, number: signal.Signals, code: int, jobs: int
) -> None:
    process = start(command(features, tmp_path / "run", jobs=jobs))
    wait_for((tmp_path / "run" / "run.json").exists, process)
    if jobs > 1:
        wait_for(lambda: len(descendants(process.pid)) > jobs, process)
    printed = interrupt(process, number, whole_group=True)
    assert process.returncode == code
    assert_one_line(printed)


@pytest.mark.long_faults
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_ends_a_training_with_one_line(features: Path, tmp_path: Path, jobs: int) -> None:
    disk = tmp_path / "disk"
    words = command(features, disk / "run", "--seeds", "1,12", jobs=jobs)
    codes, printed = on_a_full_disk(disk, "200k", words)
    assert codes == [1, 0], printed
    lines = [line for line in printed.splitlines() if line.startswith("error")]
    assert "Traceback" not in printed
    (error,) = lines
    assert error.startswith(f"error: {disk}/run")
    assert "No space left on device. Free some space there" in error
    subprocess.run(command(features, tmp_path / "whole", "--seeds", "1,12"), check=True, capture_output=True)
    assert metrics(Path(f"{disk}.copy") / "run") == metrics(tmp_path / "whole")


def test_bit_rot_under_a_training_is_one_line(features: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "triptych.pipeline", "status", str(features)], capture_output=True
    )  # its index knows every shard
    victim = sorted((features / "audio").glob("*.h5"))[0]
    rot(victim)
    done = subprocess.run(command(features, tmp_path / "run"), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {victim}: user block: it is not the SHA-256")
    assert done.stderr.count("\n") == 1


@pytest.mark.long_faults
def test_a_full_disk_ends_a_prediction_with_one_line(
    demo_features: Path, demo_clips: Path, small_bert: Path, tmp_path: Path
) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    subprocess.run(command(demo_features, run, "--seeds", "1"), check=True, capture_output=True)
    words = ["predict", str(run), str(demo_clips), "--features", str(disk / "f"), "--json"]
    codes, printed = on_a_full_disk(disk, "300k", [sys.executable, "-m", "triptych.pipeline", *words])
    assert codes == [1, 0], printed
    assert "Traceback" not in printed
    assert f"error: {disk}/f" in printed
    assert "No space left on device. Free some space there" in printed
