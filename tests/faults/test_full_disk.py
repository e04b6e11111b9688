"""A disk that is full at any write ends a run with an error, and the run after it completes the features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import full_disks
import pytest
from test_storage import undisturbed  # noqa: F401 - a fixture


@pytest.mark.long_faults
def test_a_full_disk_at_every_write_loses_nothing(few_clips: Path, undisturbed: Path, tmp_path: Path) -> None:  # noqa: F811
    ran = subprocess.run(
        ["unshare", "-rm", sys.executable, full_disks.__file__, few_clips, undisturbed, tmp_path],
        capture_output=True,
        text=True,
    )
    if ran.returncode == 99 or "unshare" in ran.stderr:
        pytest.skip("no mount namespaces here")
    assert ran.returncode == 0, ran.stderr
    *full, last = [line.split() for line in ran.stdout.splitlines()]
    assert last[1:] == ["done", "True"]
    assert len(full) > 10
    assert [line for line in full if line[1:] != ["full", "True"]] == []
