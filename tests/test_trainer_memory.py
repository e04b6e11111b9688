"""Data sets larger than memory: rows are read by batch, with the same numbers as from memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import narrow
from synthetic_store import SyntheticStore, make_store, without

from triptych.pipeline.trainer import training
from triptych.pipeline.trainer.data import cache
from triptych.pipeline.trainer.data.batches import ReadByBatch, batches_of
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.shared_memory import open_shared, write_shared
from triptych.pipeline.trainer.data.source import StoredRows, StoredTexts
from triptych.pipeline.trainer.data.standardising import Normaliser, SplitTensors, pool_to_tokens
from triptych.pipeline.trainer.runs.identity import identity
from triptych.pipeline.trainer.runs.jobs import Job, run_jobs
from triptych.pipeline.trainer.training import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store():
    return without(make_store(40, tokens_about=6, shorter=4), text=[0, 9], audio=[4, 12], vision=[2])


@pytest.fixture(scope="module")
def data(store):
    return load(store, sequences=True)


def test_what_fits_stays_in_memory(store, data):
    texts = sum(text.nbytes for text in data.text if text is not None)
    assert data.in_memory(rows=True)
    some = load(store, sequences=True, memory=texts + 1000)
    assert some.in_memory(rows=False)
    assert not some.in_memory(rows=True)
    none = load(store, sequences=True, memory=texts - 1)
    assert isinstance(none.text, StoredTexts)
    assert isinstance(none.sequences["audio"], StoredRows)
    assert identity(none) == identity(some) == identity(data) == identity(load(store, memory=0))
    for row in (0, 1, 4):
        for modality in ("audio", "vision"):
            one, other = none.sequences[modality][row], data.sequences[modality][row]
            assert (one is None) == (other is None)
            assert one is None or np.array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("name", "mmsa"), [("mlf-dnn", False), ("ef-lstm", False), ("mfn", False), ("lmf", True), ("mfn", True)]
)
def test_models_are_equal_bit_by_bit(store, data, name, mmsa, tmp_path):
    settings = narrow(name, max_epochs=2)
    settings = settings.as_mmsa() if mmsa else settings
    texts = sum(text.nbytes for text in data.text if text is not None)
    by_batch = load(store, sequences=True, memory=0)
    others = [
        by_batch,
        replace(by_batch, cache=tmp_path),
        load(store, sequences=True, memory=texts + 1000),
    ]
    first, *rest = (
        train(one, settings, 3, one.split("train"), one.split("valid")) for one in (data, *others)
    )
    assert any(path.is_dir() for path in tmp_path.iterdir()) == (settings.view != "rows")
    for other, trained in zip(others, rest, strict=True):
        assert trained.history == first.history
        for key, value in first.model.state_dict().items():
            assert torch.equal(trained.model.state_dict()[key], value), key
        for task, values in first.predict(data).items():
            np.testing.assert_array_equal(trained.predict(other)[task], values)


def test_prediction_reads_one_batch_at_a_time(data, monkeypatch):
    trained = train(data, narrow("lmf", max_epochs=1), 1, data.split("train"), data.split("valid"))
    whole, seen, apply = trained.predict(data), [], Normaliser.apply

    def recorded(self, data, rows, view="mean"):
        seen.append(len(rows))
        return apply(self, data, rows, view)

    monkeypatch.setattr(Normaliser, "apply", recorded)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 16)
    parts = trained.predict(data)
    assert seen == [16, 16, 8]
    np.testing.assert_allclose(parts["M"], whole["M"], atol=1e-6)


class CountingStore(SyntheticStore):
    reads = 0

    def read(self, stage, clip_id):
        self.reads += 1
        return super().read(stage, clip_id)


def test_trainings_of_a_run_share_the_cache_and_remove_it(store, data, tmp_path):
    counting = CountingStore(store.manifest.clips, store.features)
    by_batch = load(counting, sequences=True, memory=0)
    jobs = [Job("ef-lstm", narrow("ef-lstm", max_epochs=2), seed, wanted="valid") for seed in (1, 2)]
    reads = []
    found = run_jobs(jobs, by_batch, tmp_path / "a", 1, lambda *_: reads.append(counting.reads))
    splits = [*data.split("train"), *data.split("valid")]
    once = sum(
        present[row]
        for present in (by_batch.text.present, *(part.present for part in by_batch.sequences.values()))
        for row in splits
    )
    evaluated = reads[1] - reads[0]
    assert 0 < evaluated <= 3 * len(data.split("valid"))  # the second seed reads only what it evaluates
    loaded = sum(len(store.ids(stage)) for stage in ("text", "audio", "vision"))
    assert reads[0] == loaded + by_batch.text.present.sum() + once + evaluated  # the texts for the identity
    expected = run_jobs(jobs, data, tmp_path / "b", 1)
    assert [one["valid"] for one in found] == [one["valid"] for one in expected]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["results"]


def test_processes_share_the_statistics_and_read_the_rows_themselves(store, data, tmp_path):
    write_shared(replace(load(store, sequences=True, memory=0), cache=tmp_path), tmp_path)
    shared = open_shared(tmp_path)
    assert not shared.in_memory(rows=True)
    assert shared.cache == tmp_path
    assert identity(shared) == identity(data)


def test_a_killed_writer_leaves_no_cache(store, data, tmp_path, monkeypatch):
    by_batch = replace(load(store, sequences=True, memory=0), cache=tmp_path)
    rows = data.split("valid")
    normaliser = Normaliser.fit(data, data.split("train"))

    def killed(folder, *arguments):
        (folder / "vision.float32").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            batches_of(normaliser, by_batch, rows, "tokens", CPU)
    clips = batches_of(normaliser, by_batch, rows, "tokens", CPU)
    assert isinstance(clips, SplitTensors)
    expected = normaliser.apply(data, rows, "tokens").inputs(torch.tensor([3, 0]))
    for one, other in zip(clips.inputs(torch.tensor([3, 0])), expected, strict=True):
        assert all(map(torch.equal, one, other))


def test_a_full_disk_names_the_run_folder(store, data, tmp_path, monkeypatch):
    by_batch = replace(load(store, sequences=True, memory=0), cache=tmp_path / "run" / "clips-1-x")
    by_batch.cache.mkdir(parents=True)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write", full)
    normaliser = Normaliser.fit(data, data.split("train"))
    with pytest.raises(OSError, match="No space left") as caught:
        batches_of(normaliser, by_batch, data.split("valid"), "tokens", CPU)
    assert caught.value.filename == str(tmp_path / "run")


@pytest.mark.parametrize("view", ["tokens", "rows"])
def test_batches_go_to_the_device_of_the_labels(store, tmp_path, view):
    """Torch's ``meta`` device stands in for a GPU: only what a batch reads is copied there."""
    meta = torch.device("meta")
    by_batch = replace(load(store, sequences=True, memory=0), cache=tmp_path)
    normaliser = Normaliser.fit(by_batch, by_batch.split("train"))
    clips = batches_of(normaliser, by_batch, by_batch.split("valid"), view, meta)
    assert isinstance(clips, ReadByBatch) == (view == "rows")
    assert clips.labels.device == meta
    for part in clips.inputs(torch.arange(3)):
        assert (part.values.device, part.mask.device, part.lengths.device.type) == (meta, meta, "cpu")


def test_cumulative_sums_are_numpys():
    random = np.random.default_rng(0)
    values, usable = random.normal(size=(50, 6)), random.random((50, 6)) < 0.8
    values[~usable] = 0
    shares = np.arange(8) * 50
    first, last = shares[:-1] // 7, -(-shares[1:] // 7)
    sums, counts = (np.concatenate([np.zeros((1, 6)), part.cumsum(axis=0)]) for part in (values, usable))
    expected = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    assert pool_to_tokens(values, usable, 7).tobytes() == expected.tobytes()


LARGE = """
import sys, tempfile
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from small_systems import narrow
from synthetic_store import SyntheticClip, SyntheticStore, make_features
from triptych.pipeline.trainer.data.batches import batches_of
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.standardising import Normaliser
from triptych.pipeline.trainer.training import train

class Store(SyntheticStore):
    def ids(self, stage):
        return [clip.id for clip in self.manifest.clips]

    def read(self, stage, clip_id):
        rows, columns = {"text": (39, 768), "audio": (100, 33), "vision": (500, 709)}[stage]
        start = int(clip_id) % 100
        return make_features(stage, NOISE[start : start + rows, :columns].copy())

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))

NOISE = np.random.default_rng(0).standard_normal((600, 768), dtype=np.float32)
splits = ["train", "train", "train", "valid", "test"]
clips = [SyntheticClip(f"{number:04d}", splits[number % 5], *[number % 11 / 5 - 1] * 4) for number in range(200)]
store = Store(clips, {})
small = load(Store(clips[:10], {}), sequences=True)
train(small, narrow("ef-lstm", max_epochs=1), 1, small.split("train"), small.split("valid"))
before = status("VmRSS")
with tempfile.TemporaryDirectory() as folder:
    data = replace(load(store, sequences=True, memory=int(sys.argv[1])), cache=Path(folder))
    trained = train(data, narrow("ef-lstm", max_epochs=1), 1, data.split("train"), data.split("valid"))
    trained.predict(data)
    for view in ("mean", "rows"):
        batches = batches_of(trained.normaliser, data, data.split("train"), view, torch.device("cpu"))
        for rows in torch.split(torch.arange(len(batches)), 16):
            batches.inputs(rows)
print(status("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_data_set():
    """200 clips of 500 x 709 are 300 MiB of rows; 32 MiB of them may be in memory."""
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(32 << 20)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 250  # 650 with all rows in memory
