"""The ledger's files are merged into one, without a change of what is read."""

from __future__ import annotations

import json

from test_ledger import make_line, write_lines

from triptych.pipeline.storage.compact_ledger import compact_ledger
from triptych.pipeline.storage.ledger import FOLDER, read_ledger


def write_ledgers(folder):
    """Several runs; one line was replaced by a later one, one is truncated, two are of a later version."""
    time = "2025-03-01T00:00:00+00:00"
    write_lines(
        folder, make_line("b", at="2025-03-02T00:00:00+00:00", detail="newest"), make_line("a", at=time)
    )
    path = write_lines(folder, make_line("b", at=time, detail="older"), make_line("c", at=time, detail="1"))
    write_lines(folder, make_line("c", at=time, detail="2: of the same time"), make_line("声\ud800", at=time))
    record = make_line("d", at=time).__dict__
    later = [{**record, "machine": "m1"}, {**record, "outcome": "perhaps"}, {"version": 9}]
    with path.open("ab") as file:
        for line in later:
            file.write(json.dumps(line).encode() + b"\n")
        file.write(b'{"clip_id": "trunc')
    return later


def test_a_ledger_of_one_file_reads_the_same(tmp_path):
    later = write_ledgers(tmp_path)
    before = list(read_ledger(tmp_path).items())
    done = compact_ledger(tmp_path)
    assert (done.files_before, done.files_after, done.lines_before, done.lines_after) == (3, 1, 10, 7)
    assert list(read_ledger(tmp_path).items()) == before
    (path,) = (tmp_path / FOLDER).iterdir()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line for line in later if line not in lines] == []
    stamp = path.stat()
    assert compact_ledger(tmp_path).files_after == 1
    assert path.stat() == stamp or path.stat().st_ino == stamp.st_ino


def test_no_removal_of_a_ledger_file_changes_what_is_read(tmp_path, monkeypatch):
    write_ledgers(tmp_path)
    before = read_ledger(tmp_path)
    unlink, seen = type(tmp_path).unlink, []

    def checked(path, *rest, **options):
        unlink(path, *rest, **options)
        seen.append(read_ledger(tmp_path) == before)

    # As if the clocks of the machines that wrote the files were years ahead.
    for path in sorted((tmp_path / FOLDER).iterdir()):
        path.rename(path.with_name("9" + path.name))
    monkeypatch.setattr(type(tmp_path), "unlink", checked)
    compact_ledger(tmp_path)
    assert len(seen) >= 3
    assert all(seen)


def test_a_ledger_file_that_grows_meanwhile_is_not_removed(tmp_path, monkeypatch):
    write_ledgers(tmp_path)
    grows = sorted((tmp_path / FOLDER).iterdir())[0]
    chosen = compact_ledger.__globals__["_choose"]

    def while_writing(files, newest):
        with grows.open("a") as file:
            file.write(json.dumps(make_line("late").__dict__) + "\n")
        return chosen([path for path in files if path != grows], newest)

    monkeypatch.setitem(compact_ledger.__globals__, "_choose", while_writing)
    compact_ledger(tmp_path)
    assert "late" in {key.clip_id for key in read_ledger(tmp_path)}
