import pickle

import numpy as np
import pytest
import torch
from feature_folder import make_folder
from torch.utils.data import DataLoader

from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.dataset import FeatureDataset, pad_batch
from triptych.pipeline.storage.store import FeatureStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "features"
    make_folder(folder, {"train": 20, "valid": 5, "test": 4}, missing={"vision": [3]}, group=7)
    return FeatureStore(folder)


def test_samples_are_what_the_store_reads(store):
    data = FeatureDataset(store, "train")
    clips = {clip.id: clip for clip in store.manifest.clips}
    assert len(data) == 19
    for index, clip_id in enumerate(data.ids):
        sample = data[index]
        assert sample["id"] == clip_id
        assert clips[clip_id].split == "train"
        for stage in ("text", "audio", "vision"):
            features = store.read(stage, clip_id)
            np.testing.assert_array_equal(sample[stage].numpy(), features.values)
            np.testing.assert_array_equal(sample[f"{stage}_mask"].numpy(), features.valid)
        assert sample["labels"][2] == np.float32(clips[clip_id].label_A)
    with pytest.raises(IndexError):
        data[19]


def test_stages_and_splits(store):
    assert len(FeatureDataset(store)) == 28
    sound = FeatureDataset(store, "train", ["audio"])
    assert len(sound) == 20
    assert set(sound[0]) == {"id", "labels", "audio", "audio_mask"}
    with pytest.raises(ValueError, match="split 'dev': there are train, valid, test"):
        FeatureDataset(store, "dev")
    with pytest.raises(InputError, match="no faces features"):
        FeatureDataset(store, "train", ["audio", "faces"])


def test_batches_are_padded_with_zeros_that_the_mask_leaves_out(store):
    data = FeatureDataset(store, "test")
    batch = pad_batch([data[0], data[1]])
    lengths = [len(data[k]["audio"]) for k in range(2)]
    assert batch["audio"].shape == (2, max(lengths), 33)
    for row, length in enumerate(lengths):
        assert torch.equal(batch["audio"][row, :length], data[row]["audio"])
        assert not batch["audio"][row, length:].any()
        assert not batch["audio_mask"][row, length:].any()
    assert batch["labels"].shape == (2, 4)
    assert batch["id"] == list(data.ids[:2])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_the_same(store, context):
    data = FeatureDataset(store, "train")
    expected = [data[index] for index in range(len(data))]  # the shards are open when the workers begin
    loader = DataLoader(
        data, batch_size=4, num_workers=2, multiprocessing_context=context, collate_fn=pad_batch, timeout=120
    )
    batches = list(loader)
    assert [clip_id for batch in batches for clip_id in batch["id"]] == list(data.ids)
    for start, batch in zip(range(0, len(data), 4), batches, strict=True):
        for key, value in pad_batch(expected[start : start + 4]).items():
            assert key == "id" or torch.equal(batch[key], value)
    assert torch.equal(data[0]["vision"], expected[0]["vision"])  # and still open here


def test_it_can_be_pickled(store):
    data = FeatureDataset(store, "valid")
    again = pickle.loads(pickle.dumps(data))
    assert again.ids == data.ids
    assert torch.equal(again[2]["text"], data[2]["text"])
