"""Runs over a Dask cluster: real schedulers and worker processes on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.extractors.base import BackendMissingError
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.run import dask_engine as cluster
from triptych.pipeline.run.events import ClipFinished, Event
from triptych.pipeline.run.extraction import prepare
from triptych.pipeline.run.extraction import run as run_extraction
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import fingerprints
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.storage.store import FeatureStore

distributed = pytest.importorskip("distributed")
WORKERS = 2
PRINTS = fingerprints(Recipe())


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[Any]]:
    """The clusters of this module's tests; the last one is in use."""
    import dask

    started: list[Any] = []
    # A task whose worker exited is not tried on another one, so that each exit is handled at once.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        yield started
        for cluster in started:
            cluster.close()


@pytest.fixture
def scheduler(clusters: list[Any]) -> str:
    """Address of a scheduler with two workers: of the same cluster, as long as no worker is missing for good.

    A nanny starts no other process if one exits while it is still starting, as it may on a busy machine.
    """
    if clusters:
        with distributed.Client(clusters[-1].scheduler_address) as client:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                if len(client.nthreads()) == WORKERS:
                    return clusters[-1].scheduler_address
                time.sleep(0.1)
    clusters.append(
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, memory_limit=0, dashboard_address=None
        )
    )
    return clusters[-1].scheduler_address


def group(folder: Path, *ids: str) -> GroupTask:
    clips = tuple(
        ClipWork(
            Clip(i, f"{i}.mp4", None, None, *(math.nan,) * 4, str(folder)),
            ("audio",),
            {"media": i, "text": ""},
        )
        for i in ids
    )
    return GroupTask(folder, Recipe(), PRINTS, clips, 2**20)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the work by one that does what a clip's name says; closures are pickled by value."""

    def work(task: GroupTask, topic: str) -> list[LedgerLine]:
        import os
        import signal
        import time

        from distributed import get_worker

        from triptych.extractors.base import BackendMissingError
        from triptych.pipeline.run.events import ClipFinished, StageStarted, to_json
        from triptych.pipeline.storage.ledger import LedgerLine

        worker = get_worker()
        about = {"key": worker.get_current_task(), "worker": worker.address}
        lines = []
        for item in task.clips:
            name = item.clip.id
            worker.log_event(topic, {**to_json(StageStarted((name,), "audio")), **about})
            if name.startswith("kills"):
                time.sleep(3.0)  # a nanny starts no other process if one exits during its start
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("hangs"):
                time.sleep(600)
            if name.startswith("backend"):
                raise BackendMissingError("get it there")
            worker.log_event(topic, {**to_json(ClipFinished(name, 1, 0)), **about})
            lines.append(LedgerLine(name, "audio", "done", "", "", 0.0, "f", "d"))
        return lines

    monkeypatch.setattr(cluster, "_run_reported", work)


def run(tasks: list[GroupTask], scheduler: str, **more: Any) -> tuple[dict[str, LedgerLine], list[Event]]:
    events: list[Event] = []
    groups = cluster.run_groups_on_cluster(tasks, scheduler, events.append, **more)
    lines = [line for lines in groups for line in lines]
    assert len({line.clip_id for line in lines}) == len(lines), "a clip was reported twice"
    return {line.clip_id: line for line in lines}, events


@pytest.mark.usefixtures("stand_in")
def test_only_a_clip_that_kills_its_worker_is_given_up(tmp_path: Path, scheduler: str) -> None:
    tasks = [group(tmp_path, "a", "kills-1", "b"), group(tmp_path, "c", "d"), group(tmp_path, "kills-2", "e")]
    lines, events = run(tasks, scheduler)
    assert {i: line.reason for i, line in lines.items() if line.outcome == "failed"} == {
        "kills-1": "worker_killed",
        "kills-2": "worker_killed",
    }
    assert set(lines) == {"a", "b", "c", "d", "e", "kills-1", "kills-2"}
    assert {event.clip for event in events if isinstance(event, ClipFinished)} >= {"a", "b", "c", "d", "e"}


@pytest.mark.usefixtures("stand_in")
def test_only_a_clip_that_hangs_is_given_up(tmp_path: Path, scheduler: str) -> None:
    tasks = [group(tmp_path, "a", "hangs", "b"), group(tmp_path, "c")]
    lines, _ = run(tasks, scheduler, clip_timeout=2)
    assert {i: line.reason for i, line in lines.items()} == {"a": "", "b": "", "c": "", "hangs": "timeout"}


@pytest.mark.usefixtures("stand_in")
def test_a_missing_backend_ends_the_run(tmp_path: Path, scheduler: str) -> None:
    with pytest.raises(BackendMissingError, match="get it there"):
        run([group(tmp_path, "backend")], scheduler)


def test_unable_workers_are_refused_before_any_clip(tmp_path: Path, scheduler: str) -> None:
    with distributed.Client(scheduler) as client:
        client.wait_for_workers(1, timeout=60)
        workers = len(client.nthreads())
    gone = group(tmp_path / "elsewhere", "a")
    with pytest.raises(InputError) as error:
        run([gone], scheduler)
    assert len(error.value.problems) == 2 * workers, "no worker sees the clips or the folder"
    other = GroupTask(tmp_path, Recipe(), PRINTS | {"audio": "0" * 64}, group(tmp_path, "a").clips, 2**20)
    with pytest.raises(InputError, match="another fingerprint of audio"):
        run([other], scheduler)


def test_a_worker_that_joins_later_is_checked_too(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_check_workers", lambda *_: None)  # as if no worker had been there to check
    other = GroupTask(tmp_path, Recipe(), PRINTS | {"audio": "0" * 64}, group(tmp_path, "a").clips, 2**20)
    with pytest.raises(InputError, match=r"joined later: has another fingerprint of audio"):
        run([other], scheduler)
    assert not any(tmp_path.rglob("*.h5"))


def test_no_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    with pytest.raises(InputError, match="cannot connect"):
        run([group(tmp_path, "a")], "tcp://127.0.0.1:1")


def test_the_values_are_those_of_a_run_in_this_process(
    few_clips: Path, tmp_path: Path, scheduler: str
) -> None:
    folders = []
    for name, address in [("here", None), ("cluster", scheduler)]:
        folders.append(tmp_path / name)
        todo = prepare(few_clips, folders[-1], only=["audio", "faces"])
        run_extraction(todo, jobs=0, scheduler=address)
    here, on_cluster = map(FeatureStore, folders)
    for stage in ("audio", "faces"):
        assert len(here.ids(stage)) == 4
        assert here.ids(stage) == on_cluster.ids(stage)
        for clip in here.ids(stage):
            np.testing.assert_array_equal(here.read(stage, clip).values, on_cluster.read(stage, clip).values)
