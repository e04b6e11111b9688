"""Checkpoints that are damaged, old, hostile or from another program: one message each, and nothing of them is used."""

from __future__ import annotations

import io
import random
import resource
import zipfile

import pytest
import torch
from small_systems import narrow
from synthetic_store import make_store

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.runs.checkpoint import load_checkpoint
from triptych.pipeline.trainer.runs.run import run_training
from triptych.pipeline.trainer.runs.sealed import sealed


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run_training(make_store(20), "lf-dnn", (1,), out, narrow("lf-dnn", max_epochs=1))
    return out / "seed-1.pt"


@pytest.fixture
def changed(checkpoint, tmp_path):
    """Return a function that changes a checkpoint's content and seals it again."""

    def change(edit):
        content = torch.load(checkpoint, weights_only=True)
        edit(content)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = tmp_path / "seed-1.pt"
        path.write_bytes(sealed(buffer.getvalue()))
        return path

    return change


def refused(path):
    """Return the one line that a checkpoint is refused with."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert problem.endswith("train again") or "family None is unknown" in problem
    assert "\n" not in problem
    assert len(problem) < 600
    return problem


def test_an_unchanged_checkpoint_is_read(checkpoint, changed):
    assert load_checkpoint(checkpoint).seed == load_checkpoint(changed(lambda content: None)).seed == 1


def test_each_flipped_bit_is_refused(checkpoint, tmp_path):
    data, rng, path = checkpoint.read_bytes(), random.Random(3), tmp_path / "seed-1.pt"
    for place in [*rng.sample(range(len(data)), 300), *range(len(data) - 100, len(data))]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert "checksum" in refused(path)


def test_each_cut_is_refused(checkpoint, tmp_path):
    data, path = checkpoint.read_bytes(), tmp_path / "seed-1.pt"
    for length in [0, 1, 22, 79, 80, len(data) // 2, len(data) - 80, len(data) - 1]:
        path.write_bytes(data[:length])
        refused(path)


def test_a_checkpoint_of_an_earlier_version_is_called_so(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"schema": "triptych/model/3"}, tmp_path / "seed-1.pt")
    assert "schema triptych/model/3, which another version of triptych wrote" in refused(
        tmp_path / "seed-1.pt"
    )


@pytest.mark.parametrize("content", [[], {}, {"schema": []}, {"schema": "other"}, 3, {"a": torch.zeros(2)}])
def test_a_file_of_another_program_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "seed-1.pt")
    assert "not a checkpoint of schema triptych/model/4" in refused(tmp_path / "seed-1.pt")


def weight(content):
    return next(value for value in content["state_dict"].values() if value.dim() == 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(changed, value):
    """Before, NaN weights ended `predict` with an IndexError."""
    assert "not finite" in refused(changed(lambda content: weight(content).view(-1)[0].fill_(value)))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_statistics_that_cannot_be_divided_by_are_refused(changed, value):
    refused(changed(lambda content: content["normaliser"]["audio_std"].fill_(value)))


def laughs():
    """Thirty lists, each twice in the next: printing or walking them would take 2^30 steps."""
    nested = ["x"]
    for _ in range(30):
        nested = [nested, nested]
    return nested


def deep():
    nested = "x"
    for _ in range(300):
        nested = [nested]
    return nested


PARTS = (
    "model",
    "fingerprints",
    "streams",
    "settings",
    "widths",
    "normaliser",
    "seed",
    "history",
    "best_epoch",
)


@pytest.mark.parametrize(
    "value", [None, 3.5, [], "x", b"x", {"text": None}, [[1]], laughs(), deep()], ids=range(9)
)
@pytest.mark.parametrize("part", [*PARTS, "state_dict"])
def test_a_part_of_the_wrong_type_is_refused(changed, part, value):
    if (part, value) in (("model", "x"), ("state_dict", [])):
        return
    refused(changed(lambda content: content.update({part: value})))


@pytest.mark.parametrize("part", ["state_dict", "normaliser"])
def test_a_tensor_that_repeats_one_number_is_refused(changed, part):
    def edit(content):
        content[part]["more"] = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))

    assert "longer than the file" in refused(changed(edit))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("widths", {"audio": 10**6}),
        ("widths", {"audio": 10**12}),
        ("normaliser", {"text_length": 10**9}),
        ("normaliser", {"audio_length": -1}),
        ("settings", {"text_out": 10**6}),
        ("settings", {"hidden": {"text": 10**6, "audio": 10**6, "vision": 10**6}}),
    ],
)
def test_a_model_of_any_size_is_refused_without_its_memory(changed, part, changes):
    path = changed(lambda content: content[part].update(changes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kB


def test_compressed_parts_are_refused(checkpoint, tmp_path):
    """A thousand times as much as the file holds would be read."""
    whole = io.BytesIO()
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part), zipfile.ZIP_DEFLATED)
    (tmp_path / "seed-1.pt").write_bytes(sealed(whole.getvalue()))
    assert "compressed" in refused(tmp_path / "seed-1.pt")


def test_a_best_epoch_that_did_not_run_is_refused(changed):
    assert "best_epoch is 2 of 1" in refused(changed(lambda content: content.update(best_epoch=2)))
