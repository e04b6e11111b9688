"""The lock file of work that is done once for several processes."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triptych.extractors import locks
from triptych.extractors.audio.stage import STAGE, AudioSettings
from triptych.extractors.locks import exclusive
from triptych.extractors.settings import MediaSettings


def _take(path: Path, taken: Any) -> None:
    with exclusive(path):
        taken.set()


def test_one_process_waits_for_the_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    with exclusive(tmp_path / "lock"):
        other = context.Process(target=_take, args=(tmp_path / "lock", taken))
        other.start()
        assert not taken.wait(1.5)
    assert taken.wait(30)
    other.join()


@pytest.mark.parametrize("limit", ["stopped", "time"])
def test_a_stopped_process_holds_up_nobody(tmp_path, monkeypatch, caplog, limit):
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.2)
    if limit == "time":
        monkeypatch.setattr(locks, "LONGEST_SECONDS", 0.5)
    code = (
        "import sys, time; from pathlib import Path; from triptych.extractors.locks import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, tmp_path / "lock"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        if limit == "stopped":
            other.send_signal(signal.SIGSTOP)
        with exclusive(tmp_path / "lock"):
            pass
        other.kill()
    assert f"going on without the lock {tmp_path / 'lock'}, which process {other.pid}" in caplog.text


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("content")
    (tmp_path / "lock").symlink_to(victim)
    with exclusive(tmp_path / "lock"):
        pass
    assert victim.read_text() == "content"


def test_an_existing_file_is_not_emptied(tmp_path):
    (tmp_path / "lock").write_text("content")
    with exclusive(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "content"


def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch):
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert STAGE.load(AudioSettings(), MediaSettings(), "cpu") is not None


def test_an_error_of_the_work_itself_is_not_hidden(tmp_path):
    with pytest.raises(OSError, match="the work"), exclusive(tmp_path / "lock"):
        raise OSError("the work")


def test_the_lock_of_the_compiled_kernels_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert STAGE.load(AudioSettings(), MediaSettings(), "cpu") is not None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kernels.lock"]
    assert not list(tmp_path.glob("triptych-*"))
