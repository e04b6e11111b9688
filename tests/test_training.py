import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from seeds import seeded
from small_systems import narrow, without_dropout
from synthetic_store import make_store, relabelled, without

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer import training
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.standardising import Normaliser
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import SubnetworkSettings
from triptych.pipeline.trainer.models.system import System, Targets, weighted_l1
from triptych.pipeline.trainer.settings import TASKS
from triptych.pipeline.trainer.systems import SYSTEMS, build
from triptych.pipeline.trainer.training import (
    _parameter_groups,
    _reproducible,
    _train_epoch,
    adam,
    draw_batches,
    evaluate,
    train,
)


@pytest.fixture(scope="module")
def data():
    return load(make_store(40, tokens_about=6, shorter=4), sequences=True)


def fit(data, name="mlf-dnn", seed=1, **changes):
    return train(data, narrow(name, **changes), seed, data.split("train"), data.split("valid"))


def test_the_objective_is_eq_4():
    outputs = {"M": torch.tensor([0.5, -0.5]), "T": torch.tensor([0.0, 1.0])}
    labels = torch.tensor([[1.0, 0.2, 0, 0], [0.0, 0.5, 0, 0]])
    loss = weighted_l1(outputs, labels, {"M": 0.6, "T": 0.2})
    assert loss.item() == pytest.approx(0.6 * 0.5 + 0.2 * 0.35)


def test_missing_labels_are_masked_in_value_and_gradient():
    output = torch.tensor([0.5, -0.5, 3.0], requires_grad=True)
    labels = torch.full((3, 4), math.nan)
    labels[0, 0] = 1.0
    loss = weighted_l1({"M": output, "T": output}, labels, {"M": 1.0, "T": 1.0})
    loss.backward()
    assert loss.item() == 0.5
    assert output.grad.tolist() == [-1.0, 0.0, 0.0]
    assert weighted_l1({"M": output}, torch.full((3, 4), math.nan), {"M": 1.0}).item() == 0


@pytest.mark.parametrize(("count", "sizes"), [(9, [4, 5]), (8, [4, 4]), (1, [1]), (11, [4, 4, 3]), (5, [5])])
def test_no_last_batch_of_one(count, sizes):
    batches = list(draw_batches(count, 4))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_the_alignment_loss_of_mfn_is_added():
    model = build(narrow("mfn"), InputWidths(768, 33, 709), 39)
    outputs = {"M": torch.tensor([0.5, -0.5]), "auxiliary": torch.tensor([1.0, 3.0])}
    unlabelled = Targets(("a", "b"), torch.full((2, 4), math.nan), 1)
    assert model.objective(outputs, unlabelled).item() == 2.0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_is_in_one_group(name):
    settings = narrow(name)
    model = build(settings, InputWidths(768, 33, 709), 39)
    trained = [id(parameter) for group in _parameter_groups(model, settings) for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())


def options_by_name(name):
    settings = narrow(name)
    model = build(settings, InputWidths(768, 33, 709), 39)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: {key: value for key, value in group.items() if key != "params"}
        for group in _parameter_groups(model, settings)
        for parameter in group["params"]
    }


def test_each_part_has_its_own_decay_and_rate():
    options = options_by_name("mlmf")
    assert options["text.lstm.weight_ih_l0"] == {"weight_decay": 1e-4}
    assert options["audio.linear_1.bias"] == {"weight_decay": 0.0}
    assert options["fusion.vision"] == {"weight_decay": 5e-3, "lr": 1e-3}
    assert options["heads.M.weight"] == options["heads.A.linear_3.weight"] == {"weight_decay": 5e-3}
    assert all(found == {"weight_decay": 1e-3} for found in options_by_name("mult").values())


def test_adam_steps_the_factors_at_their_own_rate():
    settings = narrow("lmf")
    model = build(settings, InputWidths(768, 33, 709), 39)
    with adam(model, settings) as optimiser:
        rates = {id(each): group["lr"] for group in optimiser.param_groups for each in group["params"]}
    assert settings.factor_lr != settings.learning_rate
    for name, parameter in model.named_parameters():
        own = settings.factor_lr if name.startswith("fusion.") else settings.learning_rate
        assert rates[id(parameter)] == own, name


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_moves(data, name):
    # An odd number: gradients of L1 are signs, and those of an even number can add up to nothing in a bias.
    rows = data.split("train")[:23]
    started = narrow(name, max_epochs=1, weight_decay=0)
    if "subnetwork_decay" in type(started).model_fields:  # without decay only the losses can move a parameter
        started = narrow(
            name, max_epochs=1, weight_decay=0, subnetwork_decay={"text": 0, "audio": 0, "vision": 0}
        )
    trained = train(data, started, seeded(3), rows, data.split("valid"))
    with _reproducible(seeded(3)):
        untouched = dict(build(started, data.widths, trained.normaliser.text_length).named_parameters())
    moved = {key: not torch.equal(value, untouched[key]) for key, value in trained.model.named_parameters()}
    # An audio unit that is 0 for every clip gives its part of the fusion's weights no gradient.
    units = {key for key in moved if key.startswith("fusion.weight.")}
    assert not units or sum(moved.pop(key) for key in units) > len(units) / 2
    # A bias of the keys adds the same to every score of a row; softmax cancels it.
    assert [
        key for key, has_moved in moved.items() if not has_moved and "attention.key.bias" not in key
    ] == []


def test_a_step_sums_and_clips_its_batches_gradients(data):
    """With 24 clips in batches of 5, two to a step, there are batches of 5, 5 | 5, 5 | 4."""
    settings = narrow("lf-dnn", batch_size=5, accumulate=2, gradient_clip=1e-3, head_dropout=0)
    batch = Normaliser.fit(data, data.split("train")).apply(data, data.split("train"))
    torch.manual_seed(0)
    model = build(settings, data.widths, 9)
    seen = []

    class Recorder(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([parameter.grad.clone() for parameter in model.parameters()])

    gradients = []
    for limit in (None, settings.gradient_clip):
        seen.clear()
        torch.manual_seed(1)
        _train_epoch(
            model, Recorder(model.parameters()), batch, settings.model_copy(update={"gradient_clip": limit})
        )
        assert len(seen) == 3
        gradients.append(list(seen))
    for free, clipped in zip(*gradients, strict=True):
        for one, other in zip(free, clipped, strict=True):
            torch.testing.assert_close(one.clamp(-1e-3, 1e-3), other)


class Silent(System):
    """Predicts 0 for every input."""

    def __init__(self):
        super().__init__(narrow("lmf"))
        self.answer = torch.nn.Parameter(torch.zeros(()))

    def forward(self, text, audio, vision):
        return {"M": self.answer.expand(len(audio))}


def test_the_training_loss_is_the_mean_over_clips(data):
    batch = Normaliser.fit(data, data.split("train")).apply(data, data.split("train"))
    model = Silent()
    loss = _train_epoch(model, torch.optim.SGD(model.parameters(), lr=0), batch, narrow("lmf", batch_size=10))
    assert loss == pytest.approx(batch.labels[:, 0].abs().mean().item())  # of batches of 10, 10 and 4


@pytest.mark.parametrize("name", ["mtfn", "lmf", "mlmf", "mult"])  # the last sums gradients and clips them
def test_large_parameters_stepped_alone_end_the_same(data, name, monkeypatch):
    together = fit(data, name, max_epochs=3)
    monkeypatch.setattr(training, "LARGE", 1)
    alone = fit(data, name, max_epochs=3)
    assert alone.history == together.history
    for key, value in alone.model.state_dict().items():
        assert torch.equal(value, together.model.state_dict()[key]), key


def test_large_gradients_are_freed_after_a_batch(data, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 1000)
    settings = narrow("mtfn")
    model = build(settings, data.widths, 9)
    batch = Normaliser.fit(data, data.split("train")).apply(data, data.split("train"))
    with adam(model, settings):
        model(*batch.inputs(torch.arange(5)))["M"].sum().backward()
        left = {key for key, value in model.named_parameters() if value.grad is not None}
    large = {key for key, value in model.named_parameters() if value.numel() >= 1000}
    assert large
    assert "fusion.bias" in left
    assert not large & left
    model(*batch.inputs(torch.arange(5)))["M"].sum().backward()  # as ever, once the context is left
    assert {key for key in large if key.startswith("fusion.")} <= {
        key for key, value in model.named_parameters() if value.grad is not None
    }


def test_a_full_temporary_folder_is_reported(data, monkeypatch):
    full = partial(Path("/dev/full").open, "r+b")
    monkeypatch.setattr(training.tempfile, "TemporaryFile", full)
    with pytest.raises(InputError, match="TMPDIR"):
        fit(data, max_epochs=1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_equal_seeds_give_equal_numbers(data, name):
    first = fit(data, name, seed=12, max_epochs=2)
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    other = fit(data, name, seed=1, max_epochs=2)
    again = fit(data, name, seed=12, max_epochs=2)
    assert torch.equal(torch.get_rng_state(), state)  # nothing leaks out either
    assert first.history == again.history != other.history
    rows = data.split("test")
    for task, values in first.predict(data, rows).items():
        np.testing.assert_array_equal(values, again.predict(data, rows)[task])


def test_early_stopping_keeps_the_best_epoch(data):
    trained = fit(data, patience=3)
    losses = [epoch.valid_loss for epoch in trained.history]
    assert trained.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == trained.best_epoch + 3
    assert evaluate(trained, data, data.split("valid"))["M"]["MAE"] == pytest.approx(min(losses), abs=1e-6)


def test_max_epochs_ends_training(data):
    assert len(fit(data, max_epochs=2).history) == 2


def test_training_sees_neither_test_labels_nor_test_features(data):
    store = make_store(40, tokens_about=6, shorter=4)
    for i in data.split("test"):
        clip = store.manifest.clips[i]
        for stage in ("audio", "vision"):
            store.features[stage][clip.id].values[:] = 1e3
    other = load(store)
    other.labels[data.split("test")] = 1.0
    assert fit(data, max_epochs=3).history == fit(other, max_epochs=3).history


NO_DECAY = {"text": 0.0, "audio": 0.0, "vision": 0.0}
WIDE = {"text": 64, "audio": 64, "vision": 64}
# What a system needs to fit 16 clips with any seed: one batch of all clips; a rate at which L1's steps of constant size
# end well below the bound; enough steps; and enough ReLUs that some of every layer stay active for some clip.
OVERFIT = {
    "ef-lstm": {"learning_rate": 5e-3, "max_epochs": 80},
    "mfn": {"learning_rate": 3e-3, "max_epochs": 60},
    "mult": {
        **{"width": 20, "heads": 4, "layers": 1, "memory_layers": 1, "accumulate": 1, "gradient_clip": None},
        **{"learning_rate": 2e-4, "max_epochs": 200},
    },
    "lf-dnn": {"max_epochs": 120},
    "mlf-dnn": {"hidden": WIDE, "head_widths": dict.fromkeys(TASKS, 64), "max_epochs": 200},
    "tfn": {"hidden": {"text": 24, "audio": 16, "vision": 24}, "text_out": 16, "max_epochs": 200},
    "mtfn": {
        **{"hidden": {"text": 24, "audio": 16, "vision": 24}, "text_out": 16, "max_epochs": 200},
        **{"head_widths": dict.fromkeys(TASKS, 64), "task_weights": dict.fromkeys(TASKS, 1.0)},
    },
    "lmf": {"hidden": WIDE | {"audio": 32}, "max_epochs": 200},
    "mlmf": {
        **{"hidden": WIDE, "text_out": 32, "head_widths": dict.fromkeys("TAV", 64)},
        **{"learning_rate": 5e-4, "factor_lr": 5e-4, "max_epochs": 300},
    },
}


@pytest.mark.parametrize("name", OVERFIT)
def test_overfits_16_clips(name):
    seed = seeded(1)
    data = load(make_store(16, seed=seed, tokens_about=6, shorter=8), sequences=True)
    rows = np.arange(16)
    changes = {"weight_decay": 0.0, "learning_rate": 1e-3, "batch_size": 16, "patience": 400, **OVERFIT[name]}
    if isinstance(SYSTEMS[name], SubnetworkSettings):
        changes["subnetwork_decay"] = NO_DECAY
    trained = train(data, without_dropout(name, **changes), seed, rows, rows)
    for task, scores in evaluate(trained, data, rows).items():
        assert scores["MAE"] < (0.02 if task == "M" else 0.06), task


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mult", "tfn", "mtfn"])
def test_large_systems_train_in_full_width(data, name):
    rows, valid = data.split("train"), data.split("valid")
    trained = train(data, SYSTEMS[name].model_copy(update={"max_epochs": 2}), 1, rows, valid)
    assert all(math.isfinite(epoch.train_loss + epoch.valid_loss) for epoch in trained.history)


def test_every_task_is_trained_on_its_own_labels():
    data = load(make_store(120, seed=seeded(0), tokens_about=30, shorter=8))
    wide = {"hidden": WIDE, "head_widths": dict.fromkeys(TASKS, 64), "head_dropout": 0.1}
    scores = evaluate(fit(data, seed=seeded(1), batch_size=16, **wide), data, data.split("test"))
    assert tuple(scores) == TASKS
    assert np.mean([scores[task]["Corr"] for task in TASKS]) > 0.5
    assert min(scores[task]["Corr"] for task in TASKS) > 0.2


@pytest.mark.parametrize("name", SYSTEMS)
def test_missing_labels_and_modalities_train(name):
    store = without(make_store(40, tokens_about=6, shorter=4), text=[0, 1], audio=[4], vision=[2])
    labels = load(store, sequences=True)
    labels.labels[5:12, 0] = np.nan
    trained = fit(labels, name, max_epochs=2)
    assert all(math.isfinite(epoch.train_loss + epoch.valid_loss) for epoch in trained.history)
    assert all(np.isfinite(values).all() for values in trained.predict(labels).values())


@pytest.mark.parametrize("name", ["lf-dnn", "mtfn", "mult", "mfn"])
def test_a_batch_without_any_label_is_skipped(name):
    data = load(make_store(40, tokens_about=6, shorter=4), sequences=True)
    data.labels[data.split("train")[2:]] = np.nan  # most batches of four have none
    trained = fit(data, name, max_epochs=2, batch_size=4)
    assert all(math.isfinite(epoch.train_loss + epoch.valid_loss) for epoch in trained.history)


def test_training_without_validation_labels_is_refused(data):
    unlabelled = replace(data, labels=data.labels.copy())
    unlabelled.labels[data.split("valid"), 0] = np.nan
    with pytest.raises(InputError, match="clips for early stopping has a label"):
        fit(unlabelled, "lf-dnn", max_epochs=1)


def test_a_single_class_works():
    data = load(relabelled(make_store(20), label=0.4, label_T=0.4, label_A=0.4, label_V=0.4))
    scores = evaluate(fit(data, max_epochs=4), data, data.split("test"))
    assert math.isnan(scores["M"]["Corr"])
    assert 0 <= scores["M"]["F1"] <= 1


def test_two_training_clips_suffice():
    data = load(make_store(5))
    trained = train(data, narrow("mlf-dnn", max_epochs=2), 1, np.array([0, 1]), np.array([2]))
    assert trained.predict(data, np.array([3]))["M"].shape == (1,)


def test_other_widths_are_refused(data):
    trained = fit(data, max_epochs=1)
    other = load(make_store(5))
    other.audio.__dict__.update({key: value[..., :20] for key, value in vars(other.audio).items()})
    with pytest.raises(ValueError, match="trained on"):
        trained.predict(other)
