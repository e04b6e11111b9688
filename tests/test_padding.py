"""The reference's padding: zeros after a clip's end count as rows."""

import numpy as np
import pytest
import torch
from synthetic_store import make_store, without

from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.padding import PaddedNormaliser, normaliser_of, pool_evenly
from triptych.pipeline.trainer.data.standardising import Normaliser
from triptych.pipeline.trainer.runs.checkpoint import Origin, checkpoint_bytes, load_checkpoint
from triptych.pipeline.trainer.systems import SYSTEMS, build
from triptych.pipeline.trainer.training import train

COUNT = 14
ROWS = np.arange(COUNT)


@pytest.fixture(scope="module")
def store():
    return without(make_store(COUNT, tokens_about=8, shorter=6), audio=[2], text=[3])


@pytest.fixture(scope="module")
def data(store):
    return load(store, sequences=True)


def dense(store, data, modality, length):
    """The padded array that the reference unpickles."""
    width = {"text": 768, "audio": 33, "vision": 709}[modality]
    values = np.zeros((COUNT, length, width), np.float32)
    for row, clip_id in enumerate(data.ids):
        if clip_id in store.ids(modality):
            found = store.read(modality, clip_id).values
            cut = np.concatenate([found[: length - 1], found[-1:]]) if modality == "text" else found
            taken = (found if len(found) <= length else cut)[:length]
            values[row, : len(taken)] = taken
    return values


def test_every_row_counts_and_is_not_standardised(store, data):
    normaliser = PaddedNormaliser.fit(data, ROWS)
    lengths = {m: getattr(normaliser, f"{m}_length") for m in ("text", "audio", "vision")}
    assert lengths == {m: getattr(Normaliser.fit(data, ROWS), f"{m}_length") for m in lengths}
    expected = {modality: dense(store, data, modality, lengths[modality]) for modality in lengths}
    batch = normaliser.apply(data, ROWS, "rows")
    for modality, values in expected.items():
        padded = getattr(batch, modality).take(torch.arange(COUNT))
        np.testing.assert_array_equal(padded.values.numpy(), values)
        assert padded.mask.all()
        assert (padded.lengths == lengths[modality]).all()
    means = normaliser.apply(data, ROWS, "mean")
    np.testing.assert_allclose(means.audio.numpy(), expected["audio"].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(
        means.vision.numpy(), expected["vision"].sum(axis=1) / lengths["vision"], atol=1e-5
    )


def test_padding_leaks_as_it_does_in_the_reference(store, data):
    """An LSTM over the dense batch, read at its last step, by torch's own module on the padded array."""
    settings = SYSTEMS["lmf"].as_mmsa()
    normaliser = normaliser_of(settings).fit(data, ROWS)
    torch.manual_seed(0)
    model = build(settings, data.widths, normaliser.text_length).eval()
    text, *_ = normaliser.apply(data, ROWS).inputs(torch.arange(COUNT))
    values = torch.from_numpy(dense(store, data, "text", normaliser.text_length))
    stock = torch.nn.LSTM(768, settings.hidden.text, batch_first=True)
    stock.load_state_dict(model.text.lstm.state_dict())
    _, (state, _) = stock(values)
    torch.testing.assert_close(model.text(text), model.text.project(state[-1]))
    masked = Normaliser.fit(data, ROWS).apply(data, ROWS)
    own = model.text(masked.inputs(torch.arange(COUNT))[0])
    assert (own - model.text(text)).abs().max() > 1e-3  # without the padding it is another state


@pytest.mark.parametrize(("rows", "tokens"), [(400, 39), (55, 39), (39, 39), (78, 39), (30, 39), (7, 3)])
def test_pooling_to_tokens(rows, tokens):
    values = np.random.default_rng(rows).normal(size=(2, rows, 3)).astype(np.float32)
    share = int(np.ceil(rows / tokens))
    found = pool_evenly(values, tokens)
    assert found.shape == (2, tokens, 3)
    for token in range(tokens):
        positions = np.minimum(np.arange(token * share, (token + 1) * share), rows - 1)
        np.testing.assert_allclose(found[:, token], values[:, positions].mean(axis=1), atol=1e-6)


def test_mfn_pools_instead_of_aligning(data):
    settings = SYSTEMS["mfn"].as_mmsa()
    assert settings.view == "repeated"
    assert SYSTEMS["mfn"].view == "rows"
    model = build(settings, data.widths, 39)
    assert sum(parameter.numel() for parameter in model.parameters()) == 601_505
    normaliser = normaliser_of(settings).fit(data, ROWS)
    inputs = normaliser.apply(data, ROWS, settings.view).inputs(torch.arange(COUNT))
    assert inputs[1].values.shape == (COUNT, normaliser.text_length, 33)
    rows = normaliser.apply(data, ROWS, "rows").inputs(torch.arange(COUNT))
    for given, whole in zip(inputs[1:], rows[1:], strict=True):
        mean = whole.values.double().mean(dim=1, keepdim=True)
        torch.testing.assert_close(given.values.double(), mean.expand_as(given.values), rtol=0, atol=1e-6)
    assert set(model.train()(*inputs)) == {"M"}


@pytest.mark.parametrize("name", ["lmf", "mlf-dnn", "ef-lstm", "mfn", "mult"])
def test_systems_train_and_are_restored_equal(data, name, tmp_path):
    changes = {"max_epochs": 1, "batch_size": 7}
    settings = SYSTEMS[name].as_mmsa().model_copy(update=changes)
    trained = train(data, settings, 1, ROWS[:10], ROWS[10:])
    assert isinstance(trained.normaliser, PaddedNormaliser)
    (tmp_path / "x.pt").write_bytes(checkpoint_bytes(trained, Origin(name, {})))
    again = load_checkpoint(tmp_path / "x.pt")
    np.testing.assert_array_equal(again.predict(data)["M"], trained.predict(data)["M"])


def test_rows_are_needed(store):
    settings = SYSTEMS["lmf"].as_mmsa()
    assert settings.needs_rows
    assert not SYSTEMS["lmf"].needs_rows
    data = load(store)
    with pytest.raises(ValueError, match="sequences=True"):
        PaddedNormaliser.fit(data, ROWS).apply(data, ROWS)
