"""SIGKILL at every step of `compact`: nothing is lost, and the same command ends with what an undisturbed one gives."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_compact import (
    answers,
    call,
    folder,  # noqa: F401
    pairs,
    write_clip,
    write_ledgers,
    write_recipe,
)

from triptych.pipeline.storage import merged_shard
from triptych.pipeline.storage.ledger import read_ledger

pytestmark = pytest.mark.faults

FORK = multiprocessing.get_context("fork")
SIZE = 2  # MiB, so that the large shards of the test stay
KILLS = 4
WRITES = 12  # of a shard's many writes, one of so many is a step


def compact_until(step: int, features: Path) -> None:
    """Run the command, and end as by a kill before its n-th act on the disk."""
    left = step

    def act(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in ("os.rename", "os.remove", "os.truncate", "sqlite3.connect") or opened:
            act()

    write = merged_shard._Sink.write

    writes = 0

    def counted(sink: merged_shard._Sink, data: object) -> int:
        nonlocal writes
        writes += 1
        if writes % WRITES == 0:
            act()
        return write(sink, data)

    merged_shard._Sink.write = counted
    sys.addaudithook(audited)
    os._exit(call("compact", features, "--size", SIZE).exit_code)


def ended(step: int, features: Path) -> int | None:
    process = FORK.Process(target=compact_until, args=(step, features))
    process.start()
    process.join()
    return process.exitcode


def names(features: Path) -> set[str]:
    """All files but those of the index, the lock and the ledger, whose only file has the time of its writing."""
    files = {str(path.relative_to(features)) for path in features.rglob("*") if path.is_file()}
    return {name for name in files if name.endswith((".h5", ".tmp"))}


def test_a_kill_at_any_step_loses_nothing(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    write_ledgers(folder)
    rows, clips, ledger = answers(folder), pairs(folder), read_ledger(folder)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(folder, undisturbed)
    assert call("compact", undisturbed, "--size", SIZE).exit_code == 0
    assert len(names(undisturbed)) < len(names(folder))
    step = killed = 0
    while True:
        disturbed = tmp_path / "disturbed"
        shutil.copytree(folder, disturbed)
        code = ended(step, disturbed)
        assert answers(disturbed) == rows, f"killed at step {step}"
        assert (pairs(disturbed), read_ledger(disturbed)) == (clips, ledger), f"killed at step {step}"
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
        done = call("compact", disturbed, "--size", SIZE)
        assert done.exit_code == 0, done.output
        assert names(disturbed) == names(undisturbed), f"killed at step {step}"
        assert len(list((disturbed / "ledger").iterdir())) == 1
        assert (answers(disturbed), read_ledger(disturbed)) == (rows, ledger), f"killed at step {step}"
        shutil.rmtree(disturbed)
        step += 1
    assert killed > 30


def test_kills_at_any_time_of_the_program_lose_nothing(tmp_path: Path) -> None:
    features = tmp_path / "features"
    for number in range(99):
        write_clip(features, "audio", number)
        write_clip(features, "text", number)
    write_recipe(features)
    rows, before = answers(features), len(names(features))
    command = [sys.executable, "-m", "triptych.pipeline", "compact", str(features)]
    for number in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + 0.4 * number)
        process.kill()
        process.wait()
        assert answers(features) == rows
    subprocess.run(command, check=True, capture_output=True)
    assert answers(features) == rows
    assert len(names(features)) == 2 < before
