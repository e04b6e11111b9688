"""Shards, ledger and index: a result, or the reader's own error."""

from __future__ import annotations

import shutil
from contextlib import suppress

import h5py
import numpy as np
import pytest
from hypothesis import strategies as st
from shard_cases import make_header, make_items
from test_ledger import make_line, write_lines
from test_shards import seal
from timebox import EDITS, edited, fuzz

from triptych.pipeline.storage.index import FeatureIndex
from triptych.pipeline.storage.ledger import LedgerLine, read_ledger
from triptych.pipeline.storage.schema import ShardError
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import verify_shard, write_shard

pytestmark = pytest.mark.fuzz


def read_all(path) -> None:
    """Verify a shard and read its clips; only `ShardError` may come of it."""
    problems = verify_shard(path)
    assert all(str(path) in problem for problem in problems)
    try:
        with Shard(path) as shard:
            for index in range(len(shard)):
                shard.read(index)
    except ShardError:
        assert problems


def test_shards_of_changed_bytes(tmp_path):
    original = write_shard(tmp_path / "audio", make_header("audio"), make_items("audio", (3, 2)))
    data, path = original.read_bytes(), tmp_path / "audio" / original.name

    def check(edits):
        changed = edited(data, edits)
        path.write_bytes(changed)
        if changed != data:
            assert len(verify_shard(path)) == 1  # the checksum; nothing else is read then

    fuzz(check, EDITS)


DTYPES = st.sampled_from(
    ["f4", "f8", "i8", "i2", "?", "u1", "S3", "c8", h5py.string_dtype(), h5py.vlen_dtype("i4")]
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 33]), max_size=3).map(tuple)
VALUE = (
    st.integers(-(2**31), 2**31 - 1) | st.floats(width=32) | st.text(st.characters(codec="ascii"), max_size=5)
)
DATASETS = st.sampled_from(
    ["offsets", "clip_id", "source_digest", "columns", "units", "values", "times", "valid", "voiced", "more"]
)
ATTRIBUTES = st.sampled_from(
    ["schema", "stage", "fingerprint", "recipe", "software", "frame_rate", "created", "backend"]
)


def change_dataset(file, name, dtype, shape, value, chunked):
    if name in file:
        del file[name]
    created = file.create_dataset(
        name, shape, dtype, chunks=True if chunked and shape and 0 not in shape else None
    )
    if (
        h5py.check_vlen_dtype(created.dtype) is None
    ):  # h5py crashes where it is given others than arrays for these
        with suppress(TypeError, ValueError, OverflowError, OSError):  # HDF5's own values remain
            created[...] = value


def change_attribute(file, name, value, shape):
    try:
        file.attrs[name] = np.full(shape, value) if shape else value
    except (TypeError, ValueError, OverflowError, OSError):
        file.attrs[name] = 3


def test_shards_of_changed_content(tmp_path):
    """With a right checksum: whatever HDF5's own functions can write."""
    original = write_shard(tmp_path / "audio", make_header("audio"), make_items("audio", (3, 2)))
    path = tmp_path / "changed" / original.name
    path.parent.mkdir()

    def check(datasets, attributes):
        shutil.copy(original, path)
        with h5py.File(path, "r+") as file:
            for change in datasets:
                change_dataset(file, *change)
            for change in attributes:
                change_attribute(file, *change)
        seal(path)
        read_all(path)

    datasets = st.lists(st.tuples(DATASETS, DTYPES, SHAPES, VALUE, st.booleans()), max_size=2)
    fuzz(check, datasets, st.lists(st.tuples(ATTRIBUTES, VALUE, SHAPES), max_size=2))


def test_ledgers_of_changed_bytes(tmp_path):
    path = write_lines(tmp_path, *(make_line(name) for name in "abc"))
    data = path.read_bytes()

    def check(edits):
        path.write_bytes(edited(data, edits))
        for key, line in read_ledger(tmp_path).items():
            assert isinstance(line, LedgerLine)
            assert key.clip_id == line.clip_id

    fuzz(check, EDITS)


def test_indexes_of_changed_bytes(tmp_path):
    """A changed index gives the same holdings as none: the shards decide."""
    write_shard(tmp_path / "audio", make_header("audio"), make_items("audio", (3, 2)))
    media = tmp_path / "clip.mp4"
    media.write_bytes(b"x")
    with FeatureIndex(tmp_path) as index:
        index.digest_of(media)
        expected = list(index.holdings("audio"))
    file = tmp_path / "index.sqlite"
    data = file.read_bytes()

    def check(edits):
        file.write_bytes(edited(data, edits))
        with FeatureIndex(tmp_path) as index:
            assert [each[:5] for each in index.holdings("audio")] == [each[:5] for each in expected]
            assert len(index.digest_of(media)) == 64

    fuzz(check, EDITS)
