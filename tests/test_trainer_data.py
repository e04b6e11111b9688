import numpy as np
import pytest
import torch
from synthetic_store import SyntheticStore, make_features, make_store, without

from extractors.base import Features
from pipeline.errors import InputError
from pipeline.trainer.data import Normaliser, load


def everything(data):
    return np.arange(len(data))


def test_shapes_labels_and_splits():
    data = load(make_store(20))
    assert data.widths == (768, 33, 709)
    assert data.labels.shape == (20, 4)
    assert data.labels.dtype == np.float32
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [12, 4, 4]
    batch = Normaliser.fit(data, everything(data)).apply(data, everything(data))
    assert batch.text.shape == (20, int(batch.lengths.max()), 768)
    assert (batch.audio.shape, batch.vision.shape) == ((20, 33), (20, 709))


def test_the_manifests_order_changes_nothing():
    store = make_store(10)
    turned = SyntheticStore(store.manifest.clips[::-1], store.features)
    assert load(store).ids == load(turned).ids
    np.testing.assert_array_equal(load(store).labels, load(turned).labels)


def test_pooling_is_the_mean_of_rows_standardised_by_the_training_part():
    store = make_store(8)
    data = load(store)
    train, test = np.arange(5), np.arange(5, 8)
    batch = Normaliser.fit(data, train).apply(data, test)
    rows = [store.read("vision", data.ids[i]).values.astype(np.float64) for i in range(8)]
    stacked = np.concatenate([rows[i] for i in train])
    mean, deviation = stacked.mean(axis=0), stacked.std(axis=0)
    expected = np.stack([((rows[i] - mean) / deviation).mean(axis=0) for i in test])
    np.testing.assert_allclose(batch.vision.numpy(), expected, atol=1e-5)


def test_invalid_rows_never_leak():
    store = make_store(6)
    clean = load(store)
    for clip_id in store.ids("vision"):
        values = store.read("vision", clip_id).values
        garbage = np.concatenate([values, np.full((9, 709), 1e6, np.float32)])
        valid = np.arange(len(garbage)) < len(values)
        store.features["vision"][clip_id] = make_features("vision", garbage, valid)
    dirty = load(store)
    fitted = [Normaliser.fit(data, everything(data)) for data in (clean, dirty)]
    np.testing.assert_array_equal(fitted[0].vision_mean, fitted[1].vision_mean)
    batches = [
        normaliser.apply(data, everything(data))
        for normaliser, data in zip(fitted, (clean, dirty), strict=True)
    ]
    assert torch.equal(batches[0].vision, batches[1].vision)


def test_unvoiced_zeros_stay_out_of_log_f0():
    store = make_store(4)
    random = np.random.default_rng(0)
    pitches = []
    for clip_id in store.ids("audio"):
        values = store.read("audio", clip_id).values.copy()
        voiced = random.random(len(values)) < 0.5
        values[:, 0] = np.where(voiced, random.normal(5, 0.2, len(values)), 0)
        pitches.append(values[voiced, 0])
        store.features["audio"][clip_id] = make_features("audio", values, voiced=voiced)
    unvoiced = np.zeros((30, 33), np.float32)
    store.features["audio"][clip_id] = make_features("audio", unvoiced, voiced=np.zeros(30, bool))
    data = load(store)
    normaliser = Normaliser.fit(data, everything(data))
    heard = np.concatenate(pitches[:-1])
    assert normaliser.audio_mean[0] == pytest.approx(heard.mean(), abs=1e-5)
    assert normaliser.audio_deviation[0] == pytest.approx(heard.std(), abs=1e-5)
    batch = normaliser.apply(data, everything(data))
    expected = (pitches[0].mean() - heard.mean()) / heard.std()
    assert batch.audio[0, 0].item() == pytest.approx(expected, abs=1e-4)
    assert batch.audio[-1, 0] == 0  # nothing voiced: the mean


def test_constant_columns_are_safe():
    store = make_store(5)
    for clip_id in store.ids("audio"):
        values = store.read("audio", clip_id).values.copy()
        values[:, 3] = 0.1  # not exact in binary
        values[:, 4] = 0
        store.features["audio"][clip_id] = make_features("audio", values)
    data = load(store)
    batch = Normaliser.fit(data, np.arange(3)).apply(data, everything(data))
    assert torch.isfinite(batch.audio).all()
    assert batch.audio[:, 3:5].abs().max() < 1e-6


def test_a_clip_without_a_modality_is_kept_at_the_mean_and_its_label_masked():
    store = without(make_store(6), text=[0], audio=[1], vision=[2])
    clip_id = store.manifest.clips[3].id
    seen = store.read("vision", clip_id)
    store.features["vision"][clip_id] = make_features("vision", seen.values, np.zeros(len(seen), bool))
    data = load(store)
    assert data.absent == {"text": 1, "audio": 1, "vision": 2}
    missing = np.zeros((6, 4), bool)
    missing[[0, 1, 2, 3], [1, 2, 3, 3]] = True
    np.testing.assert_array_equal(np.isnan(data.labels), missing)
    batch = Normaliser.fit(data, everything(data)).apply(data, everything(data))
    assert batch.lengths[0] == 1
    assert not batch.text[0].any()
    assert not batch.audio[1].any()
    assert not batch.vision[2:4].any()


def test_a_clip_without_any_features_is_left_out():
    data = load(without(make_store(6), text=[4], audio=[4], vision=[4]))
    assert len(data) == 5
    assert data.left_out == ("video_0000$_$0004",)


def test_a_long_text_is_cut_and_keeps_its_last_token():
    store = make_store(6)
    tokens = np.arange(60, dtype=np.float32)[:, None] * np.ones((1, 768), np.float32)
    store.features["text"][store.manifest.clips[5].id] = make_features("text", tokens)
    data = load(store)
    normaliser = Normaliser.fit(data, np.arange(5))
    lengths = [len(store.read("text", data.ids[i])) for i in range(5)]
    assert normaliser.text_length == int(np.mean(lengths) + 3 * np.std(lengths))
    batch = normaliser.apply(data, everything(data))
    assert batch.lengths[5] == normaliser.text_length < 60
    assert batch.text[5, normaliser.text_length - 2 :, 0].tolist() == [normaliser.text_length - 2, 59]


def test_taking_clips_trims_the_text():
    data = load(make_store(6))
    batch = Normaliser.fit(data, everything(data)).apply(data, everything(data))
    shortest = int(batch.lengths.argmin())
    taken = batch.take(torch.tensor([shortest]))
    assert taken.text.shape[1] == batch.lengths[shortest]
    assert torch.equal(taken.text[0], batch.text[shortest, : taken.text.shape[1]])


def test_missing_stages_are_named_together():
    with pytest.raises(InputError) as caught:
        load(without(make_store(3), text=range(3), vision=range(3)))
    assert len(caught.value.mistakes) == 2
    assert "no text features" in caught.value.mistakes[0]
    assert "triptych extract" in caught.value.mistakes[1]


def test_a_modality_that_no_clip_can_use_is_an_error():
    store = make_store(3)
    for clip_id in store.ids("vision"):
        seen = store.read("vision", clip_id)
        store.features["vision"][clip_id] = make_features("vision", seen.values, np.zeros(len(seen), bool))
    with pytest.raises(InputError, match="usable vision"):
        load(store)


def test_mixed_columns_are_refused():
    store = make_store(3)
    seen = store.read("vision", store.manifest.clips[1].id)
    store.features["vision"][store.manifest.clips[1].id] = Features(
        values=seen.values[:, :5],
        columns=seen.columns[:5],
        units=seen.units[:5],
        times=seen.times,
        valid=seen.valid,
    )
    with pytest.raises(InputError, match="one recipe"):
        load(store)
