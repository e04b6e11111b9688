"""A Dask cluster of real processes on this machine, for tests that kill, stop and cut off its parts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.store import FeatureStore

SECONDS_TO_START = 60.0


def wait_until(condition: Callable[[], object], seconds: float = SECONDS_TO_START) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


class Cluster:
    """A scheduler and its workers, each a process; all are killed at the end."""

    def __init__(
        self, scratch: Path, *, host: str = "127.0.0.1", prefix: tuple[str, ...] = (), **more: str
    ) -> None:
        self._scratch, self._environment = scratch, {**os.environ, **more}
        scratch.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._file = scratch / "scheduler.json"
        words = ["--host", host, "--port", "0", "--scheduler-file", str(self._file), "--no-dashboard"]
        self.scheduler = self._start("scheduler", *prefix, *_dask("scheduler", *words))
        wait_until(self._file.exists)
        wait_until(lambda: "://" in self._file.read_text())
        self.address = self._address()

    def _address(self) -> str:
        import json

        return str(json.loads(self._file.read_text())["address"])

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self._scratch / f"{name}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        self.processes.append(process)
        return process

    def worker(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a worker; with --no-nanny it is the process itself."""
        options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--no-nanny"]
        options += ["--local-directory", str(self._scratch / f"local-{len(self.processes)}")]
        return self._start("worker", *prefix, *_dask("worker", self.address, *options, *words))

    def wait_for(self, workers: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=SECONDS_TO_START)

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _dask(*words: str) -> list[str]:
    return [sys.executable, "-m", "dask", *words]


def many_clips(few: Path, folder: Path, count: int) -> Path:
    """Copies of few clips, each with an id of its own."""
    folder.mkdir()
    files = sorted(few.rglob("*.mp4"))
    for number in range(count):
        shutil.copy(files[number % len(files)], folder / f"clip{number:03d}.mp4")
    return folder


def rows_by_clip(features: Path, stage: str = "audio") -> Counter[str]:
    """How many shards have each clip."""
    rows: Counter[str] = Counter()
    for path in sorted((features / stage).glob("*.h5")):
        with Shard(path) as shard:
            rows.update(shard.ids)
    return rows


def assert_complete(features: Path, clips: Path, expected: Path) -> int:
    """Every clip once in the store, with the values of a run on this machine; returns how many rows are duplicates."""
    names = sorted(path.stem for path in clips.glob("*.mp4"))
    found, local = FeatureStore(features), FeatureStore(expected)
    assert sorted(found.ids("audio")) == names
    for clip in names:
        np.testing.assert_array_equal(found.read("audio", clip).values, local.read("audio", clip).values)
    rows = rows_by_clip(features)
    return sum(rows.values()) - len(names)
