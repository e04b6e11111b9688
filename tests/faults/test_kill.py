"""SIGKILL at random moments: what was lost is extracted again, and the values are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from triptych.pipeline.storage.store import FeatureStore

pytestmark = pytest.mark.faults

STAGES = ("text", "audio", "faces", "vision")
KILLS = 20
SECONDS_TO_VANISH = 5.0


def command(clips: Path, bert: Path, features: Path) -> list[str]:
    return [
        sys.executable, "-m", "triptych.pipeline", "extract", str(clips), "-o", str(features), "-j", "2",
        "--set", f"text.model={bert}", "--set", "vision.backend=facemesh",
    ]  # fmt: skip


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that they started, from /proc."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def alive(pids: set[int]) -> set[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "gone"

    return {pid for pid in pids if state(pid) not in ("gone", "Z", "X")}


def kill_after(seconds: float, words: list[str], whole_group: bool) -> bool:
    """Run a command and kill it after a while; False if it ended before."""
    process = subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert process.wait(seconds) == 0, "a run that is not killed succeeds"
        return False
    except subprocess.TimeoutExpired:
        started = descendants(process.pid)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    deadline = time.monotonic() + SECONDS_TO_VANISH
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(started), f"processes outlived their parent by {SECONDS_TO_VANISH} s"
    return True


def assert_equal(these: Path, those: Path) -> None:
    left, right = FeatureStore(these), FeatureStore(those)
    for stage in STAGES:
        assert left.ids(stage) == right.ids(stage)
        assert left.ids(stage), f"no clip has {stage}: nothing would be compared"
        for clip in left.ids(stage):
            a, b = left.read(stage, clip), right.read(stage, clip)
            assert a.columns == b.columns
            for name, x, y in [
                ("values", a.values, b.values),
                ("times", a.times, b.times),
                ("valid", a.valid, b.valid),
            ]:
                np.testing.assert_array_equal(x, y, err_msg=f"{stage} {clip} {name}")
            for name in a.extras:
                np.testing.assert_array_equal(
                    a.extras[name], b.extras[name], err_msg=f"{stage} {clip} {name}"
                )


def test_killed_runs_end_with_undisturbed_values(demo_clips: Path, small_bert: Path, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    started = time.monotonic()
    subprocess.run(command(demo_clips, small_bert, undisturbed), check=True, capture_output=True)
    duration = time.monotonic() - started
    draw = random.Random(20)
    kills = completions = 0
    while kills < KILLS:
        if kill_after(
            draw.uniform(0.02, 1.0) * duration,
            command(demo_clips, small_bert, disturbed),
            draw.random() < 0.5,
        ):
            kills += 1
        else:
            assert_equal(undisturbed, disturbed)
            completions += 1
            shutil.rmtree(disturbed)
    subprocess.run(command(demo_clips, small_bert, disturbed), check=True, capture_output=True)
    assert_equal(undisturbed, disturbed)
    verified = subprocess.run(
        [sys.executable, "-m", "triptych.pipeline", "verify", str(disturbed)], capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout
    leftovers = [path for path in disturbed.rglob("*") if path.suffix == ".tmp"]
    assert not leftovers
    print(f"{kills} kills, {completions + 1} completed runs compared, undisturbed run {duration:.0f} s")
