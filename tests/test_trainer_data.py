import numpy as np
import pytest
import torch
from synthetic_store import SyntheticStore, make_features, make_store, without

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.standardising import Normaliser, Ragged, pool_to_tokens


def everything(data):
    return np.arange(len(data))


def test_shapes_labels_and_splits():
    data = load(make_store(20))
    assert data.widths == (768, 33, 709)
    assert data.labels.shape == (20, 4)
    assert data.labels.dtype == np.float32
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [12, 4, 4]
    batch = Normaliser.fit(data, everything(data)).apply(data, everything(data))
    text, audio, vision = batch.inputs(torch.arange(20))
    assert text.values.shape == (20, int(text.lengths.max()), 768)
    assert audio is not batch.audio
    assert torch.equal(vision, batch.vision)
    assert (batch.audio.shape, batch.vision.shape) == ((20, 33), (20, 709))


def test_the_manifests_order_changes_nothing():
    store = make_store(10)
    turned = SyntheticStore(store.manifest.clips[::-1], store.features)
    assert load(store).ids == load(turned).ids
    np.testing.assert_array_equal(load(store).labels, load(turned).labels)


def test_means_are_standardised_by_the_training_split():
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
    assert normaliser.audio_std[0] == pytest.approx(heard.std(), abs=1e-5)
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


def test_a_missing_modality_is_its_mean_without_a_label():
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
    assert batch.text.lengths[0] == 1
    assert not batch.text.take(torch.tensor([0])).values.any()
    assert not batch.audio[1].any()
    assert not batch.vision[2:4].any()


def test_a_clip_without_features_is_left_out():
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
    assert batch.text.lengths[5] == normaliser.text_length < 60
    last = batch.text.take(torch.tensor([5])).values[0, normaliser.text_length - 2 :, 0]
    assert last.tolist() == [normaliser.text_length - 2, 59]


def test_taking_clips_pads_them_to_the_longest():
    parts = [torch.full((length, 2), float(length)) for length in (3, 1, 4)]
    ragged = Ragged.of([(part, torch.arange(len(part)) != 1) for part in parts])
    taken = ragged.take(torch.tensor([1, 0]))
    assert taken.values[..., 0].tolist() == [[1, 0, 0], [3, 3, 3]]
    assert taken.mask.tolist() == [[True, False, False], [True, False, True]]
    assert taken.lengths.tolist() == [1, 3]


def rows_of(batch, modality, clip):
    padded = getattr(batch, modality).take(torch.tensor([clip]))
    return padded.values[0].numpy(), padded.mask[0].numpy()


def test_rows_are_standardised_and_cut_by_training_split():
    store = make_store(8)
    long = np.random.default_rng(1).normal(size=(900, 33))
    store.features["audio"][store.manifest.clips[7].id] = make_features("audio", long)
    data = load(store, sequences=True)
    train = np.arange(6)
    normaliser = Normaliser.fit(data, train)
    stacked = [store.read("audio", data.ids[i]).values.astype(np.float64) for i in train]
    lengths = [len(rows) for rows in stacked]
    assert normaliser.audio_length == int(np.mean(lengths) + 3 * np.std(lengths))
    mean, deviation = np.concatenate(stacked).mean(axis=0), np.concatenate(stacked).std(axis=0)
    batch = normaliser.apply(data, everything(data), "rows")
    values, mask = rows_of(batch, "audio", 2)
    np.testing.assert_allclose(values, (stacked[2] - mean) / deviation, atol=1e-5)
    assert mask.all()
    values, _ = rows_of(batch, "audio", 7)
    np.testing.assert_allclose(values, ((long - mean) / deviation)[: normaliser.audio_length], atol=1e-5)


def test_invalid_rows_are_masked_and_zero():
    store = make_store(4)
    clip_id = store.manifest.clips[1].id
    values = store.read("vision", clip_id).values.copy()
    valid = np.arange(len(values)) % 3 > 0
    values[~valid] = 1e6
    store.features["vision"][clip_id] = make_features("vision", values, valid)
    audio_id = store.manifest.clips[2].id
    voiced = np.arange(len(store.read("audio", audio_id))) % 2 > 0
    store.features["audio"][audio_id] = make_features(
        "audio", store.read("audio", audio_id).values, voiced=voiced
    )
    data = load(store, sequences=True)
    batch = Normaliser.fit(data, everything(data)).apply(data, everything(data), "rows")
    values, mask = rows_of(batch, "vision", 1)
    np.testing.assert_array_equal(mask, valid[: len(mask)])
    assert not values[~mask].any()
    assert np.abs(values).max() < 10
    values, mask = rows_of(batch, "audio", 2)
    assert mask.all()
    np.testing.assert_array_equal(values[:, 0] == 0, ~voiced[: len(mask)])


@pytest.mark.parametrize("view", ["tokens", "rows"])
def test_a_clip_without_rows_gets_one_at_the_mean(view):
    store = without(make_store(6), audio=[1])
    clip_id = store.manifest.clips[2].id
    values = np.ones((700, 709), np.float32)  # its only face comes after the cut
    store.features["vision"][clip_id] = make_features("vision", values, np.arange(700) == 699)
    data = load(store, sequences=True)
    batch = Normaliser.fit(data, np.array([0, 3, 4, 5])).apply(data, everything(data), view)
    for modality, clip in (("audio", 1), ("vision", 2)):
        values, mask = rows_of(batch, modality, clip)
        assert len(values) == (1 if view == "rows" else batch.text.lengths[clip])
        assert mask.all()
        assert not values.any()


@pytest.mark.parametrize(("rows", "tokens"), [(110, 7), (7, 7), (3, 8), (1, 4), (20, 1)])
def test_pooling_to_tokens(rows, tokens):
    random = np.random.default_rng(rows)
    values, usable = random.normal(size=(rows, 3)), random.random((rows, 3)) < 0.7
    values[~usable] = 0
    found = pool_to_tokens(values, usable, tokens)
    for token in range(tokens):
        share = slice(int(np.floor(token * rows / tokens)), int(np.ceil((token + 1) * rows / tokens)))
        for column in range(3):
            usable_values = values[share, column][usable[share, column]]
            assert found[token, column] == pytest.approx(usable_values.mean() if len(usable_values) else 0)


def test_rows_are_loaded_only_when_asked_for():
    data = load(make_store(4))
    assert not data.sequences
    with pytest.raises(ValueError, match="sequences=True"):
        Normaliser.fit(data, everything(data)).apply(data, everything(data), "rows")


def test_missing_stages_are_named_together():
    with pytest.raises(InputError) as caught:
        load(without(make_store(3), text=range(3), vision=range(3)))
    assert len(caught.value.problems) == 2
    assert "no text features" in caught.value.problems[0]
    assert "triptych extract" in caught.value.problems[1]


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
