"""Runs over a Dask cluster: real schedulers and worker processes on this machine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.extractors.base import BackendMissingError
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.run import dask_cluster
from triptych.pipeline.run import dask_engine as cluster
from triptych.pipeline.run.dask_cluster import token
from triptych.pipeline.run.dask_worker import folder_problem
from triptych.pipeline.run.events import ClipFinished, ClusterJoined, Event
from triptych.pipeline.run.extraction import prepare
from triptych.pipeline.run.extraction import run as run_extraction
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.remaining import remaining
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

    monkeypatch.setattr(cluster, "run_reported", work)


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
    gone = replace(group(tmp_path / "elsewhere", "a"), folder=tmp_path)
    with pytest.raises(InputError, match="does not see the clips in") as error:
        run([gone], scheduler)
    assert len(error.value.problems) == workers, "each is named"
    assert not list(tmp_path.glob("*.token"))
    other = GroupTask(tmp_path, Recipe(), PRINTS | {"audio": "0" * 64}, group(tmp_path, "a").clips, 2**20)
    with pytest.raises(InputError, match="another fingerprint of audio"):
        run([other], scheduler)


def test_a_worker_with_another_folder_at_the_path_is_refused(tmp_path: Path) -> None:
    """The run's token is the proof, not the path."""
    (tmp_path / "features").mkdir()
    with token(tmp_path / "features", "triptych-1"):
        assert folder_problem(tmp_path / "features", "triptych-1", "triptych-1-w.token") is None
        assert (tmp_path / "features" / "triptych-1-w.token").is_file(), "the run looks for it"
        (tmp_path / "features").rename(tmp_path / "other")
        assert "does not see the folder" in str(folder_problem(tmp_path / "features", "triptych-1", "w"))
        (tmp_path / "features").mkdir()
        problem = folder_problem(tmp_path / "features", "triptych-1", "w")
        assert f"has another folder at {tmp_path / 'features'} than this run" in str(problem)
        (tmp_path / "other" / "triptych-1.token").rename(tmp_path / "features" / "triptych-1.token")
    assert not list((tmp_path / "features").iterdir()), "a token does not outlive its run"


def test_tokens_of_killed_runs_are_removed_after_a_week(tmp_path: Path) -> None:
    old, new = tmp_path / "triptych-old.token", tmp_path / "triptych-new.token"
    for file, age in ((old, 8 * 86400), (new, 86400)):
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    with token(tmp_path, "triptych-1"):
        pass
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.usefixtures("stand_in")
def test_few_groups_are_submitted_at_a_time(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = []
    submit = cluster._Run._fill
    monkeypatch.setattr(cluster._Run, "_fill", lambda self: (submit(self), most.append(len(self._out)))[0])
    lines, events = run([group(tmp_path, f"clip{number}") for number in range(40)], scheduler)
    assert len(lines) == 40
    assert max(most) <= cluster.AHEAD * WORKERS
    (joined,) = (event for event in events if isinstance(event, ClusterJoined))
    assert joined.scheduler == scheduler


def test_what_the_folder_has_is_not_run_again(few_clips: Path, tmp_path: Path) -> None:
    todo = prepare(few_clips, tmp_path / "f", only=["audio", "faces"])
    tasks = [
        GroupTask(tmp_path / "f", todo.recipe, todo.fingerprints, (work,), 2**20) for work in todo.plan.work
    ]
    assert remaining(tasks) == (tasks, [])
    run_extraction(prepare(few_clips, tmp_path / "f", only=["audio"]), jobs=0)
    left, complete = remaining(tasks)
    assert [task.clips[0].stages for task in left] == [("faces",)] * 4
    assert all(task.clips[0].saved["audio"].is_file() for task in left)
    assert complete == []
    audio = [replace(task, clips=(replace(task.clips[0], stages=("audio",)),)) for task in tasks]
    assert remaining(audio) == ([], [work.clip.id for work in todo.plan.work])


def test_a_worker_that_joins_later_is_checked_too(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "check_workers", lambda *_: None)  # as if no worker had been there to check
    other = GroupTask(tmp_path, Recipe(), PRINTS | {"audio": "0" * 64}, group(tmp_path, "a").clips, 2**20)
    with pytest.raises(InputError, match=r"joined later: has another fingerprint of audio"):
        run([other], scheduler)
    assert not any(tmp_path.rglob("*.h5"))


def test_no_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1.0)
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
