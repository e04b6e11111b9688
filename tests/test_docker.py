"""The image, built and run without an engine: minutes long, and only where the tools for it are."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "docker" / "build_and_run"
TOOLS = ("buildah", "podman", "runc", "debootstrap")


@pytest.mark.slow
def test_the_image_builds_and_keeps_its_promises() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(TOOLS)}; missing: {', '.join(missing) or 'root'}")
    ended = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
