"""Two runs in one folder, and locks that another process, a stopped one or a dead one has."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_extraction import extract
from test_storage import assert_equal, call, undisturbed  # noqa: F401 - a fixture

from triptych.extractors import locks
from triptych.extractors.locks import exclusive
from triptych.pipeline.atomic import locked
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.run.lock import FILE, FolderBusyError, only_run
from triptych.pipeline.storage.ledger import FOLDER as LEDGER

HOLDER = """
import sys, time
from pathlib import Path
from triptych.pipeline.run.lock import only_run
with only_run(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_waits_and_computes_nothing_twice(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    folder: Path,
    holder: subprocess.Popen[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = (prepare(few_clips, folder, only=["audio"]) for _ in range(2))
    ended = []
    threads = [
        threading.Thread(target=lambda todo=todo: ended.append(run(todo, jobs=0))) for todo in (first, second)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert not ended, "both wait for the holder"
    holder.kill()  # its lock is free then
    for thread in threads:
        thread.join()
    assert len(ended) == 2
    lines = [line for file in (folder / LEDGER).glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == 4, "one for each clip"
    assert_equal(folder, undisturbed)
    assert f"another extract runs here (process {holder.pid} on" in caplog.text
    assert " since 20" in caplog.text


def test_the_second_run_exits_on_request(
    few_clips: Path, folder: Path, holder: subprocess.Popen[str]
) -> None:
    done = call("extract", few_clips, "-o", folder, "--only", "audio", "-j", "1", "--no-wait")
    assert isinstance(done.exception, FolderBusyError)
    assert f"(process {holder.pid} on" in str(done.exception)
    assert not list(folder.glob("*/*.h5"))


def test_repair_does_not_move_what_a_run_may_write(
    undisturbed: Path,  # noqa: F811
    folder: Path,
    holder: subprocess.Popen[str],
) -> None:
    assert isinstance(call("verify", folder, "--repair").exception, FolderBusyError)


def test_a_stale_lock_is_free(folder: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder / FILE).read_text().startswith('{"pid"')
    with only_run(folder, wait=False) as waited:
        assert not waited


@pytest.mark.parametrize("content", [b"", b"\xff" * 10_000, b"[" * 4096, b'{"pid": "x"}', b'{"pid": 1}'])
def test_a_lock_file_with_any_content_works(folder: Path, content: bytes) -> None:
    (folder / FILE).write_bytes(content)
    with only_run(folder):
        (folder / FILE).write_bytes(content)
        with pytest.raises(FolderBusyError, match="another extract runs here"), only_run(folder, wait=False):
            pass


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_planted_lock_stops_nothing_and_empties_nothing(
    few_clips: Path, folder: Path, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("content")
    plant = {
        "link": lambda path: path.symlink_to(victim),
        "fifo": os.mkfifo,
        "folder": Path.mkdir,
    }
    plant[kind](folder / FILE)
    with only_run(folder, wait=False) as waited:
        assert not waited
    assert victim.read_text() == "content"


def test_a_file_system_without_locks_stops_no_run(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    extract(few_clips, folder, only=["audio"])
    assert_equal(folder, undisturbed)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_long_wait_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.2)
    lock = exclusive if kind == "file" else locked
    path = tmp_path / "lock" if kind == "file" else tmp_path
    taken = threading.Event()

    def take() -> None:
        with lock(path):
            taken.set()

    with caplog.at_level(logging.WARNING), lock(path):
        other = threading.Thread(target=take)
        other.start()
        assert not taken.wait(0.8)
    assert taken.wait(5)
    other.join()
    assert caplog.text.count("waiting for ") == 1
    assert f"process {os.getpid()}, which has locked {path}" in caplog.text
