"""The local engine: groups over processes, and what happens when a worker process exits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from triptych.extractors.base import BackendMissingError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.run import local_engine as engine
from triptych.pipeline.run.events import ClipFinished, Event
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.recovery import WorkersDiedError
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import fingerprints
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage.ledger import LedgerLine

PRINTS = fingerprints(Recipe())


def group(folder: Path, *ids: str) -> GroupTask:
    clips = tuple(
        ClipWork(
            Clip(i, f"{i}.mp4", None, None, *(math.nan,) * 4, "/r"), ("audio",), {"media": i, "text": ""}
        )
        for i in ids
    )
    return GroupTask(folder, Recipe(), PRINTS, clips, 2**20)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the worker by one that does what a clip's name says; closures are pickled by value."""

    def work(task: GroupTask, progress: Path) -> list[LedgerLine]:
        import os
        import signal
        import time
        from pathlib import Path

        from triptych.extractors.base import BackendMissingError
        from triptych.pipeline.run.events import ClipFinished, StageStarted, to_line
        from triptych.pipeline.storage.ledger import LedgerLine

        lines = []
        with progress.open("ab", buffering=0) as stream:
            for item in task.clips:
                name = item.clip.id
                stream.write(to_line(StageStarted((name,), "audio"), os.getpid()))
                once = Path(task.folder) / f"{name}.died"
                if name.startswith("kills") or (name.startswith("once") and not once.exists()):
                    once.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if name.startswith("hangs"):
                    time.sleep(600)
                if name.startswith("backend"):
                    raise BackendMissingError("get it there")
                stream.write(to_line(ClipFinished(name, 1, 0), os.getpid()))
                lines.append(LedgerLine(name, "audio", "done", "", "", 0.0, "f", "d"))
        return lines

    monkeypatch.setattr(engine, "run_reported", work)


def run(tasks: list[GroupTask], jobs: int = 2) -> tuple[dict[str, LedgerLine], list[Event]]:
    events: list[Event] = []
    lines = [line for lines in engine.run_groups(tasks, jobs, events.append) for line in lines]
    assert len({line.clip_id for line in lines}) == len(lines), "a clip was reported twice"
    return {line.clip_id: line for line in lines}, events


@pytest.mark.usefixtures("stand_in")
def test_every_group_is_run_and_reported(tmp_path: Path) -> None:
    lines, events = run([group(tmp_path, f"a{i}", f"b{i}") for i in range(5)])
    assert len(lines) == 10
    assert {event.clip for event in events if isinstance(event, ClipFinished)} == set(lines)


@pytest.mark.usefixtures("stand_in")
def test_only_a_clip_that_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    tasks = [
        group(tmp_path, "a", "kills-1", "b"),
        group(tmp_path, "c", "d"),
        group(tmp_path, "once-1", "e", "kills-2"),
    ]
    lines, _ = run(tasks)
    assert {i for i, line in lines.items() if line.outcome == "failed"} == {"kills-1", "kills-2"}
    assert {line.reason for line in lines.values() if line.outcome == "failed"} == {"worker_killed"}
    assert "SIGKILL" in lines["kills-1"].detail
    assert set(lines) == {"a", "b", "c", "d", "e", "kills-1", "kills-2", "once-1"}
    assert lines["kills-1"].fingerprint == PRINTS["audio"]
    assert lines["kills-1"].digest == "kills-1"


@pytest.mark.usefixtures("stand_in")
def test_only_a_clip_that_hangs_is_given_up(tmp_path: Path) -> None:
    tasks = [group(tmp_path, "a", "hangs", "b"), group(tmp_path, "c")]
    lines = [
        line for lines in engine.run_groups(tasks, 2, lambda event: None, clip_timeout=3) for line in lines
    ]
    assert {line.clip_id: line.reason for line in lines} == {"a": "", "b": "", "c": "", "hangs": "timeout"}


@pytest.mark.usefixtures("stand_in")
def test_a_missing_backend_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(BackendMissingError, match="get it there"):
        run([group(tmp_path, "backend")])


def test_workers_that_exit_before_any_clip_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(task: GroupTask, progress: Path) -> list[LedgerLine]:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(engine, "run_reported", stand_in)
    with pytest.raises(WorkersDiedError, match="before they start a clip"):
        run([group(tmp_path, "a")])


@pytest.mark.usefixtures("stand_in")
def test_stopping_early_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    running = engine.run_groups([group(tmp_path, f"a{i}") for i in range(4)], 2, lambda event: None)
    next(running)
    running.close()
    assert children() <= before | resource_trackers()


def children() -> set[int]:
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def resource_trackers() -> set[int]:
    return {pid for pid in children() if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()}
