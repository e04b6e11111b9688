"""The ledger: lines are read back, invalid lines are skipped, and a killed writer loses one line at most."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.pipeline.storage.ledger import LedgerKey, LedgerLine, LedgerWriter, read_ledger, read_remarks

FORK = multiprocessing.get_context("fork")


def make_line(clip_id="video_0001$_$0001", **changes):
    fields = {
        "clip_id": clip_id,
        "stage": "audio",
        "outcome": "failed",
        "reason": "no_audio_stream",
        "detail": "视频里没有声音",
        "seconds": 0.25,
        "fingerprint": "f" * 64,
        "digest": "d" * 64,
    }
    return LedgerLine(**fields | changes)


def key_of(line):
    return LedgerKey(line.clip_id, line.stage, line.fingerprint, line.digest)


def write_lines(folder, *lines):
    with LedgerWriter(folder) as writer:
        for line in lines:
            writer.write(line)
    return writer.path


def test_written_lines_are_read_back(tmp_path):
    lines = [
        make_line("a"),
        make_line("b", outcome="done", reason="", detail=""),
        make_line("b", stage="text"),
    ]
    path = write_lines(tmp_path, *lines)
    assert read_ledger(tmp_path) == {key_of(line): line for line in lines}
    assert path.parent == tmp_path / "ledger"
    assert len(path.read_bytes().splitlines()) == 3
    assert "视频里没有声音" in path.read_text(encoding="utf-8")


any_text = st.text(st.characters(), max_size=20)  # with lone surrogates, line ends and NUL


@given(detail=any_text, clip_id=any_text, seconds=st.floats(0, 1e9))
def test_any_text_is_read_back(tmp_path_factory, detail, clip_id, seconds):
    folder = tmp_path_factory.mktemp("features")
    line = make_line(clip_id, detail=detail, seconds=seconds)
    write_lines(folder, line, make_line("next"))
    assert read_ledger(folder)[key_of(line)] == line
    assert len(read_ledger(folder)) == (1 if clip_id == "next" else 2)


def test_newest_line_wins_in_any_file_order(tmp_path):
    write_lines(tmp_path, make_line(at="2025-03-01T00:00:00+00:00", detail="second"))
    write_lines(tmp_path, make_line(at="2025-02-01T00:00:00+00:00", detail="first"))
    write_lines(tmp_path, make_line(at="2025-03-01T00:30:00+01:00", detail="between: an hour east"))
    assert [line.detail for line in read_ledger(tmp_path).values()] == ["second"]


def test_last_written_line_wins_at_equal_times(tmp_path):
    time = "2025-03-01T00:00:00+00:00"
    write_lines(tmp_path, make_line(at=time, detail="1"), make_line(at=time, detail="2"))
    assert [line.detail for line in read_ledger(tmp_path).values()] == ["2"]


@pytest.mark.parametrize("field", ["stage", "fingerprint", "digest"])
def test_lines_differ_by_stage_fingerprint_and_digest(tmp_path, field):
    write_lines(tmp_path, make_line(), make_line(**{field: "text"}))
    assert len(read_ledger(tmp_path)) == 2


def test_torn_line_is_skipped(tmp_path):
    path = write_lines(tmp_path, make_line("whole"), make_line("torn"))
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for cut in range(first, len(content) - 1, 3):
        path.write_bytes(content[:cut])
        assert [key.clip_id for key in read_ledger(tmp_path)] == ["whole"], cut
        path.write_bytes(content[:cut] + b"\n" + content[first:])
        assert [key.clip_id for key in read_ledger(tmp_path)] == ["whole", "torn"], cut


record = json.loads(json.dumps(make_line("strange").__dict__))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**record, "seconds": 10**400}).encode(),
        json.dumps({**record, "outcome": "perhaps"}).encode(),
        json.dumps({**record, "outcome": ["done"]}).encode(),
        json.dumps({**record, "at": "yesterday"}).encode(),
        json.dumps({**record, "at": "2025-03-01T00:00:00"}).encode(),
        json.dumps({**record, "clip_id": 7}).encode(),
        json.dumps({**record, "clip_id": None}).encode(),
        json.dumps({**record, "seconds": "long"}).encode(),
        json.dumps({**record, "seconds": float("nan")}).encode(),
        json.dumps({name: value for name, value in record.items() if name != "digest"}).encode(),
    ],
)
def test_invalid_line_is_skipped(tmp_path, line):
    path = write_lines(tmp_path, make_line("before"))
    with path.open("ab") as file:
        file.write(line + b"\n")
    write_lines(tmp_path, make_line("after"))
    assert {key.clip_id for key in read_ledger(tmp_path)} == {"before", "after"}


def test_fields_of_a_later_version_are_ignored(tmp_path):
    path = write_lines(tmp_path, make_line("a"))
    path.write_text(json.dumps({**record, "machine": "m1"}) + "\n", encoding="utf-8")
    assert read_ledger(tmp_path) == {key_of(LedgerLine(**record)): LedgerLine(**record)}


def test_writer_without_lines_creates_no_file(tmp_path):
    assert read_ledger(tmp_path / "absent") == {}
    with LedgerWriter(tmp_path):
        pass
    assert not (tmp_path / "ledger").exists()


def test_run_names_are_unique_and_sort_by_time(tmp_path):
    runs = []
    for _ in range(50):
        runs.append(LedgerWriter(tmp_path).run)
        time.sleep(0.0001)
    assert runs == sorted(runs)
    assert len(set(runs)) == 50


def write_until_killed(folder):
    with LedgerWriter(folder) as writer:
        for k in range(10**9):
            writer.write(make_line(str(k), detail="很长的一句话" * 50))


def test_killed_writer_loses_at_most_its_last_line(tmp_path):
    writer = FORK.Process(target=write_until_killed, args=(tmp_path,))
    writer.start()
    while not list(tmp_path.glob("ledger/*.jsonl")):
        time.sleep(0.001)
    time.sleep(0.05)
    writer.kill()
    writer.join()
    ids = [int(key.clip_id) for key in read_ledger(tmp_path)]
    assert len(ids) > 0
    assert ids == list(range(len(ids)))


def test_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(OSError, match="ledger"):
        write_lines(tmp_path, make_line())


def test_ledger_does_not_import_numpy_or_h5py():
    code = "import sys, triptych.pipeline.storage.ledger; sys.exit('numpy' in sys.modules or 'h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


times = st.integers(0, 10**6).map(lambda second: f"2025-03-01T00:00:00.{second:06d}+00:00")
outcomes = st.sampled_from(
    [("done", "", ""), ("done", "", "cut"), ("failed", "timeout", "x"), ("absent", "", "")]
)


@given(
    written=st.lists(
        st.tuples(st.sampled_from(["a", 'b"\\', "字"]), outcomes, times),
        unique_by=lambda one: one[2],
        max_size=12,
    ),
    split=st.integers(0, 12),
)
def test_remarks_are_the_newest_lines_that_explain_something(tmp_path_factory, written, split):
    folder = tmp_path_factory.mktemp("features")
    lines = [
        make_line(clip_id, outcome=outcome, reason=reason, detail=detail, at=at)
        for clip_id, (outcome, reason, detail), at in written
    ]
    for part in (lines[:split], lines[split:]):
        write_lines(folder, *part)
    newest = read_ledger(folder)
    assert read_remarks(folder) == {
        key: line for key, line in newest.items() if line.outcome != "done" or line.detail
    }


def test_remarks_of_a_ledger_in_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("triptych.pipeline.storage.ledger.BLOCK", 100)
    lines = [make_line(str(k), outcome="done", reason="", detail="note" * (k % 7 == 0)) for k in range(50)]
    path = write_lines(tmp_path, *lines)
    assert [line.clip_id for line in read_remarks(tmp_path).values()] == [str(k) for k in range(0, 50, 7)]
    path.write_bytes(path.read_bytes()[:-5])
    assert len(read_remarks(tmp_path)) == 7, "the last line is torn"
