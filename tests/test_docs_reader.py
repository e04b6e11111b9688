"""The reader in docs/feature-folder.md gives what triptych's own reader gives, and is as short as it states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.pipeline.storage.store import FeatureStore

PAGE = Path(__file__).parents[1] / "docs" / "feature-folder.md"


@pytest.fixture(scope="module")
def read() -> Any:
    (code,) = re.findall(
        r"^```python\n(.+?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "triptych" not in code
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["read"]


def test_the_reader_of_the_page_gives_the_rows_of_the_store(read: Any, demo_features: Path) -> None:
    store = FeatureStore(demo_features)
    for stage in store.stages:
        for clip_id in store.ids(stage)[:3]:
            names, times, valid, values = read(demo_features, stage, clip_id)
            expected = store.read(stage, clip_id)
            assert tuple(names) == expected.columns
            np.testing.assert_array_equal(times, expected.times)
            np.testing.assert_array_equal(valid, expected.valid)
            np.testing.assert_array_equal(values, expected.values)


def test_the_reader_of_the_page_names_a_missing_clip(read: Any, demo_features: Path) -> None:
    with pytest.raises(KeyError, match="nobody"):
        read(demo_features, "audio", "nobody")
