"""The lock file of work that is done once for several processes."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

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
