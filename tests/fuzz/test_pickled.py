"""Pickles and checkpoints: a result, or `InputError`; nothing runs."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from small_systems import narrow
from synthetic_store import make_store
from timebox import ANYTHING, EDITS, changed, edited, fuzz

from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.pickles import load_arrays
from triptych.pipeline.trainer.runs.checkpoint import load_checkpoint
from triptych.pipeline.trainer.runs.run import run_training
from triptych.pipeline.trainer.runs.sealed import sealed

pytestmark = pytest.mark.fuzz

CONTENT = {
    "id": ["a$_$1", b"b"],
    "text": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    "names": np.array(["甲", "b"], dtype=object),
    "more": ({1, 2.5}, None, True, 2**80),
}


def refused_or_read(read, path) -> None:
    try:
        read(path)
    except InputError as error:
        (problem,) = error.problems
        assert problem.startswith(f"{path}: ")
        assert len(problem) < 2000


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_of_changed_bytes(tmp_path, protocol):
    path, data = tmp_path / "a.pkl", pickle.dumps(CONTENT, protocol)

    def check(edits):
        path.write_bytes(edited(data, edits))
        refused_or_read(load_arrays, path)

    fuzz(check, EDITS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run_training(make_store(20), "lf-dnn", (1,), out, narrow("lf-dnn", max_epochs=1))
    return (out / "seed-1.pt").read_bytes()


def test_checkpoints_of_changed_bytes(tmp_path, checkpoint):
    path = tmp_path / "seed-1.pt"

    def check(edits):
        path.write_bytes(edited(checkpoint, edits))
        refused_or_read(load_checkpoint, path)

    fuzz(check, EDITS)


def test_checkpoints_of_changed_bytes_with_a_checksum_that_fits(tmp_path, checkpoint):
    """Changes near the end are those of the zip's directory; near the start, those of the pickle."""
    path, archive = tmp_path / "seed-1.pt", checkpoint[:-80]
    archive = archive[:-2] + b"\0\0"
    ends = archive[:4000], archive[4000:-4000], archive[-4000:]

    def check(edits, which):
        parts = list(ends)
        parts[which] = edited(parts[which], edits)
        path.write_bytes(sealed(b"".join(parts)))
        refused_or_read(load_checkpoint, path)

    fuzz(check, EDITS, st.integers(0, 2))


def test_checkpoints_of_changed_parts(tmp_path, checkpoint):
    path = tmp_path / "seed-1.pt"
    content = torch.load(io.BytesIO(checkpoint), weights_only=True)

    def check(parts):
        buffer = io.BytesIO()
        torch.save(parts, buffer)
        path.write_bytes(sealed(buffer.getvalue()))
        refused_or_read(load_checkpoint, path)

    fuzz(check, changed(content) | ANYTHING)
