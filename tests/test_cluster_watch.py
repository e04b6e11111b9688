"""What a run on a cluster does when nothing is reported: whom it asks, and what it runs again. No cluster needed."""

from __future__ import annotations

import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cluster import group

from triptych.pipeline.run import dask_engine as engine
from triptych.pipeline.run import dask_members
from triptych.pipeline.run.dask_cluster import dashboard_of, quiet
from triptych.pipeline.run.dask_members import Members, Question, SchedulerLostError
from triptych.pipeline.run.events import StageStarted
from triptych.pipeline.run.recovery import Running, WorkersDiedError
from triptych.pipeline.storage.ledger import LedgerLine

pytest.importorskip("distributed")


class Future:
    def __init__(self, key: str) -> None:
        self.key, self.status = key, "pending"

    def cancel(self) -> None:
        self.status = "cancelled"

    def cancelled(self) -> bool:
        return self.status == "cancelled"

    def exception(self, timeout: float) -> None:
        return None

    def result(self, timeout: float) -> list[LedgerLine]:
        raise TimeoutError


class Client:
    """Stands for a connection whose workers answer as a test says."""

    status = "running"

    def __init__(self, workers: dict[str, Any]) -> None:
        self.workers, self.scheduler, self.scheduler_comm = workers, self, self
        self.submitted: list[list[str] | None] = []

    def closed(self) -> bool:
        return False

    def ncores(self) -> dict[str, int]:
        return dict.fromkeys(self.workers, 1)

    def sync(self, function: Any, callback_timeout: float) -> Any:
        return function()

    def run(self, function: Any, *arguments: Any, workers: list[str], on_error: str) -> dict[str, Any]:
        answer = self.workers[workers[0]]
        if answer is None:
            time.sleep(600)
        return {workers[0]: answer}

    def submit(self, function: Any, task: Any, topic: str, pure: bool, workers: Any) -> Future:
        self.submitted.append(workers)
        return Future(f"again-{len(self.submitted)}")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_members, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(engine, "INACTIVE_SECONDS", 0.0)


def waiting_run(folder: Path, workers: dict[str, Any], *keys: str) -> tuple[Any, Client]:
    """A run that has submitted a group of one clip for each key."""
    folder.joinpath("audio").mkdir(exist_ok=True)
    client = Client(workers)
    run = engine._Run(client, Members(client, "tcp://s"), "topic", lambda event: None, None)
    run._out = {key: (Future(key), group(folder, key)) for key in keys}
    return run, client


def test_groups_of_a_worker_that_does_not_answer_are_run_on_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, client = waiting_run(tmp_path, {"a": {"x": True}, "b": None}, "x", "y", "z")
    assert list(run._look_after()) == []
    assert list(run._out) == ["x"], "it is being computed"
    assert [task.clips[0].clip.id for task in run._waiting] == ["y", "z"]
    assert "nothing was reported for 0 s, no answer from worker b: run again: 2 groups" in caplog.text
    run._fill()
    assert client.submitted == [["a"]] * 2


def test_groups_that_wait_for_busy_workers_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = waiting_run(tmp_path, {"a": {"x": True}, "b": {"y": True}}, "x", "y", "z")
    assert list(run._look_after()) == []
    assert list(run._out) == ["x", "y", "z"]
    assert not caplog.text


def test_a_group_that_no_worker_has_is_run_again(tmp_path: Path) -> None:
    run, _ = waiting_run(tmp_path, {"a": {"x": True}, "b": {}}, "x", "y")
    assert list(run._look_after()) == []
    assert [task.clips[0].clip.id for task in run._waiting] == ["y"]


def test_a_result_that_does_not_arrive_is_run_again(tmp_path: Path) -> None:
    """Its worker was stopped after it has computed the group and before the run has fetched the lines."""
    run, _ = waiting_run(tmp_path, {"a": {}}, "x")
    assert list(run._take("x")) == []
    assert [task.clips[0].clip.id for task in run._waiting] == ["x"]
    assert not run._out


def test_a_clip_that_silences_every_worker_fails(tmp_path: Path) -> None:
    run, _ = waiting_run(tmp_path, {"a": {}, "b": None}, "x")
    lines: list[LedgerLine] = []
    for _ in range(engine.SILENT_TRIES + 1):
        (key,) = run._out
        run._running[key] = Running(StageStarted(("x",), "audio")), "b"
        lines += [line for group in run._look_after() for line in group]
        run._fill()
    assert [(line.clip_id, line.reason) for line in lines] == [("x", "worker_killed")]
    assert "did not answer any more" in lines[0].detail
    assert not run._out
    assert not run._waiting


def test_a_stage_that_is_overdue_on_a_stopped_worker_is_not_the_clips_fault(tmp_path: Path) -> None:
    run, _ = waiting_run(tmp_path, {"a": {}, "b": None}, "x")
    run._running["x"] = Running(StageStarted(("x",), "audio")), "b"
    assert list(run._restart("x", 600.0)) == []
    assert [task.clips[0].clip.id for task in run._waiting] == ["x"]
    run, _ = waiting_run(tmp_path, {"a": "a"}, "x")
    run._running["x"] = Running(StageStarted(("x",), "audio")), "a"
    ((line,),) = run._restart("x", 600.0)
    assert line.reason == "timeout"


def test_a_silent_worker_gets_work_again_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_members, "REFRESH_SECONDS", 0.05)
    client = Client({"a": {}, "b": OSError("cannot connect")})
    members = Members(client, "tcp://s")
    assert members.in_hand() == {"a": {}}
    assert (members.silent, members.threads, members.answering) == ({"b"}, 1, ["a"])
    client.workers["b"] = "b"
    deadline = time.monotonic() + 10
    while members.silent:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert members.threads == 2


def test_a_question_delays_nobody_who_answers() -> None:
    question = Question(Client({"a": 1, "b": None}), ["a", "b"], print)
    assert question.answers(0.2) == {"a": 1}
    assert question.unanswered == {"b"}


def test_a_scheduler_that_is_closed_or_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_members, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(dask_members, "CONNECT_SECONDS", 0.05)
    client = Client({"a": {}})
    members = Members(client, "tcp://s")
    monkeypatch.setattr(client, "closed", lambda: True)
    time.sleep(0.1)
    with pytest.raises(SchedulerLostError, match="--scheduler tcp://s: it does not answer any more"):
        members.refresh()
    client.status = "closed"
    with pytest.raises(SchedulerLostError):
        members.refresh()
    client = Client({})
    members = Members(client, "tcp://s")
    time.sleep(0.1)
    with pytest.raises(WorkersDiedError, match="lost all its workers"):
        members.refresh()


@pytest.mark.parametrize(
    ("code", "text", "printed"),
    [
        (200, "<html>Status</html>", True),
        (200, "<p>Dask needs bokeh>=3.1.0 for the dashboard.</p>", False),
        (404, "", False),  # --no-dashboard
        (0, "", True),  # a firewall, which may let the user's browser through
    ],
)
def test_the_dashboard_is_printed_where_there_is_one(code: int, text: str, printed: bool) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        link = f"http://127.0.0.1:{server.server_port}/status"
        if code:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        assert dashboard_of(SimpleNamespace(dashboard_link=link)) == (link if printed else "")
        if code:
            server.shutdown()


def test_what_dask_logs_is_hidden_only_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("distributed.client")
    logger.addHandler(handler := logging.StreamHandler(sys.stderr))
    try:
        with quiet():
            logger.error("hidden")
        logger.error("shown")
    finally:
        logger.removeHandler(handler)
    printed = capfd.readouterr().err
    assert "shown" in printed
    assert "hidden" not in printed
