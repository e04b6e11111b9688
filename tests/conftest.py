"""Where the shared test data is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real clips, labels and OpenFace output, named by TRIPTYCH_TEST_DATA."""
    folder = os.environ.get("TRIPTYCH_TEST_DATA")
    if not folder:
        pytest.skip("TRIPTYCH_TEST_DATA names no folder of test data")
    path = Path(folder)
    assert path.is_dir(), f"TRIPTYCH_TEST_DATA={folder} is no folder"
    return path
