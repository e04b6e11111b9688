"""A run on the terminal: the live display, plain lines, JSON lines, and a terminal that is left in order."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from triptych.pipeline.run.events import (
    ClipFinished,
    ClusterJoined,
    Event,
    ShardWritten,
    StageFailed,
    StagePreparing,
    StageStarted,
    from_json,
    reported,
    to_json,
)
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.terminal import progress as module
from triptych.pipeline.terminal.progress import RunProgress
from triptych.pipeline.terminal.state import RunState

SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"
BROKEN = ("vision", "no_face", "no face in 30 frames")
JOINED = ClusterJoined("tcp://scheduler:8786", 2, "")
EVENTS = [
    StagePreparing("text"),
    JOINED,
    StageStarted(("a", "b"), "text", 2.0),
    StageStarted(("a",), "vision", 2.0),
    ClipFinished("a", 30, 0, (), (("text", "cut to 512 tokens"),)),
    StageStarted(("a",), "vision", 2.0),  # of its shard
    ClipFinished("b", 30, 1, (BROKEN,)),
    ClipFinished("b", 30, 1, (BROKEN,)),  # again, since a worker exited
    ShardWritten("vision"),
    StageFailed("b", *BROKEN),  # from the ledger
    StageFailed("c", "audio", "worker_killed", "killed by signal 9"),
]


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def shown(events, total, *, terminal=False, width=80, **options):
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=width, color_system=None, _environ={"TERM": "xterm"}
    )
    with RunProgress(total, console, **options) as progress:
        for event in events:
            progress.update(event)
    return stream.getvalue()


def test_state_counts_each_clip_once():
    now = [0.0]
    state = RunState(5, clock=lambda: now[0])
    assert state.activity() == "loading models"
    new = []
    for event in EVENTS:
        now[0] += 1
        new.append(state.update(event))
    assert new == [True, True, True, True, True, False, True, False, True, False, True]
    assert (state.done, state.failed, dict(state.reasons)) == (3, 2, {"no_face": 1, "worker_killed": 1})
    assert state.problems() == "2 failed (no_face 1, worker_killed 1), 1 with notes"
    # The first clip ended at 4, now it is 10: two clips in six seconds, so two more need six.
    assert state.pace() == "0.333 clips/s, 0:00:06 left"


def test_stages_in_work_are_counted():
    state = RunState(3)
    state.update(StagePreparing("text"))
    assert state.activity() == "loading models (text)"
    state.update(StageStarted(("a", "b"), "audio"))
    state.update(StageStarted(("c",), "vision"))
    assert state.activity() == "audio 2, vision 1"


@pytest.mark.parametrize("event", EVENTS)
def test_events_survive_json(event):
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_ledger_lines_of_failures_become_events():
    line = LedgerLine("a", "audio", "failed", "timeout", "60 s", 1.0, "f", "d")
    done, seen = LedgerLine("b", "audio", "done", "", "", 1.0, "f", "d"), []
    assert list(reported([[line, done]], seen.append)) == [[line, done]]
    assert seen == [StageFailed("a", "audio", "timeout", "60 s")]


def test_plain_lines_come_at_intervals_that_grow(clock):
    events = [ClipFinished(str(number), 1, 0) for number in range(1000)]

    def ticking():
        for event in events:
            clock[0] += 2
            yield event

    lines = shown(ticking(), 1001).splitlines()
    assert lines[0] == "clips to extract: 1001; loading models"
    done = [int(line.split("/")[0]) for line in lines[1:]]
    gaps = [2 * (after - before) for before, after in itertools.pairwise(done)]
    assert gaps[0] == 12, "more than ten seconds in the first minute"
    assert set(gaps[-5:]) == {62}, "more than a minute at last"
    assert gaps == sorted(gaps)
    assert lines[2].endswith(
        f"/1001 clips, 0.5 clips/s, {timedelta(seconds=2 * (1001 - done[1]))} left, 0 failed"
    )


def test_the_last_line_has_reasons(clock):
    lines = shown(EVENTS, 3).splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("3/3 clips, ")
    assert lines[-1].endswith("2 failed (no_face 1, worker_killed 1), 1 with notes")


def test_verbose_names_every_clip():
    lines = shown(EVENTS, 4, verbose=True).splitlines()
    assert lines[1:] == [
        "2 workers at tcp://scheduler:8786",
        "a: text has a note: cut to 512 tokens",
        "b: vision failed: no_face: no face in 30 frames",
        "c: audio failed: worker_killed: killed by signal 9",
    ]


def test_names_cannot_change_the_terminal():
    out = shown([ClipFinished("a\x1b[2J[red]b", 1, 0)], 2, verbose=True)
    assert r"a\x1b[2J[red]b: done" in out


@pytest.mark.parametrize("width", [40, 80])
def test_live_display_fits_and_gives_the_cursor_back(width):
    out = shown(EVENTS, 5, terminal=True, width=width)
    assert "3/5 clips" in out
    assert "2 failed" in out
    assert out.rindex(SHOW) > out.rindex(HIDE)
    plain = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", out)
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= width


def test_an_error_gives_the_cursor_back():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    with pytest.raises(SystemExit), RunProgress(5, console):
        raise SystemExit(130)
    assert stream.getvalue().rindex(SHOW) > stream.getvalue().rindex(HIDE)


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_writes_nothing(terminal, capsys):
    assert shown(EVENTS, 3, terminal=terminal, quiet=True, verbose=True, as_json=True) == ""
    assert capsys.readouterr() == ("", "")


def test_json_lines_name_event_clip_and_stage(capsys):
    assert shown(EVENTS, 3, as_json=True, stages=("text", "vision")) == ""
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    about = [(one["event"], one.get("clip"), one.get("stage")) for one in documents]
    assert documents[0] == {"event": "started", "clips": 3, "stages": ["text", "vision"]}
    assert about[1:] == [
        ("stage_preparing", None, "text"),
        ("cluster_joined", None, None),
        ("stage_started", "a", "text"),
        ("stage_started", "b", "text"),
        ("stage_started", "a", "vision"),
        ("note", "a", "text"),
        ("clip_finished", "a", None),
        ("stage_failed", "b", "vision"),
        ("clip_finished", "b", None),
        ("shard_written", None, "vision"),
        ("stage_failed", "c", "audio"),
    ]
    assert documents[-1]["reason"] == "worker_killed"
    assert [one["done"] for one in documents if one["event"] == "clip_finished"] == [1, 2]


HANGS = """
import sys, time
from triptych.pipeline.processes.signals import end_if_interrupted, end_on_signals
from triptych.pipeline.terminal.progress import RunProgress
end_on_signals("interrupted")
try:
    with RunProgress(5):
        print("ready", flush=True)
        try:
            time.sleep(60)
        finally:
            time.sleep(HOLD)
finally:
    end_if_interrupted("interrupted")
"""


@pytest.mark.parametrize("hold", [0, 60], ids=["ends by itself", "is ended"])
def test_ctrl_c_leaves_the_terminal_in_order(hold):
    own, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS.replace("HOLD", str(hold))],
        stdout=subprocess.PIPE,
        stderr=other,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(other)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdout.close()
    out = b""
    try:
        while part := os.read(own, 1 << 16):
            out += part
    except OSError:  # how a terminal ends on Linux
        pass
    os.close(own)
    text = out.decode()
    assert "Traceback" not in text
    assert text.endswith("interrupted\r\n")
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_the_documentation_describes_every_event():
    text = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
    state = RunState(3)
    documents = [{"event": "started"}, {"event": "result"}]
    for event in EVENTS:
        if state.update(event):
            documents += module.as_documents(event, state)
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    for document in documents:
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{document['event']}` |")]
        assert [name for name in document if name != "event" and f"`{name}`" not in row] == []
