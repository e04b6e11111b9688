"""Arrays of long clips in temporary files."""

from __future__ import annotations

import mmap
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from triptych.extractors import scratch
from triptych.extractors.audio.fast import tuning
from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.scratch import Scratch, all_finite, parts, release


def is_mapped(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(getattr(base, "obj", base), mmap.mmap)


@pytest.mark.parametrize("in_memory", [2**20, 100, 0])
def test_rows_are_where_they_were_written(monkeypatch, in_memory):
    monkeypatch.setattr(scratch, "IN_MEMORY", in_memory)
    written, wanted = Scratch(np.float32, (3,)), np.zeros((40, 3), np.float32)
    for at, rows in ((0, 5), (5, 10), (20, 4), (12, 5), (40, 0)):  # a hole, an overlap, an end without a row
        piece = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + at
        written.write(piece, at)
        wanted[at : at + rows] = piece
    found = written.array()
    assert is_mapped(found) == (in_memory < 2**20)
    np.testing.assert_array_equal(found, wanted)
    release(found)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.concatenate(list(parts(found, 7))), wanted)
    assert all_finite(found)


def test_an_array_without_rows():
    assert Scratch(np.float32, (3,)).array().shape == (0, 3)


def test_an_infinity_in_any_part_is_found(monkeypatch):
    monkeypatch.setattr(scratch, "AT_A_TIME", 64)
    numbers = np.zeros(1000, np.float32)
    assert all_finite(numbers)
    numbers[777] = np.inf
    assert not all_finite(numbers)


def test_a_full_disk_is_the_clips_failure(monkeypatch):
    def full(**_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ExtractionError, match="No space left") as caught:
        Scratch(np.float32).write(np.zeros(1, np.float32))
    assert caught.value.reason == Reason.NO_SCRATCH_SPACE


@given(
    arrays.arrays(
        np.float32, st.integers(1, 200), elements=st.floats(2**-100, 2**100, width=32) | st.just(1.5)
    )
)
def test_the_median_in_parts_is_numpys(heights):
    assert tuning._median(heights) == np.median(heights)
