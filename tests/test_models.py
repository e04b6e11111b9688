import os
import subprocess
import sys

import pytest
import torch
from small_systems import TEXT_LENGTH, WIDTHS, make_inputs, scrambled, tiny_model, tiny_settings

from pipeline.trainer.models import build
from pipeline.trainer.models.inputs import InputWidths, Padded
from pipeline.trainer.models.subnetworks import BatchNorm
from pipeline.trainer.settings import LateFusionSettings, SystemSettings, TransformerSettings
from pipeline.trainer.systems import MODELS

PAPER = InputWidths(768, 33, 709)
PARAMETERS = {
    "ef-lstm": 215_695,
    "mfn": 601_505,
    "mult": 1_870_701,
    "lf-dnn": 635_821,
    "tfn": 35_632_077,
    "lmf": 272_381,
    "mlf-dnn": 283_388,
    "mtfn": 140_957_188,
    "mlmf": 1_413_392,
}


def inputs_of(name, **changes):
    return make_inputs(MODELS[name].view, **changes)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_the_references(name):
    with torch.device("meta" if "tfn" in name else "cpu"):
        model = build(MODELS[name], PAPER, 39)
    counted = sum(
        parameter.numel() for key, parameter in model.named_parameters() if not key.startswith("aligners.")
    )
    assert counted == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_by_task(name):
    outputs = tiny_model(name)(*inputs_of(name))
    assert tuple(outputs) == MODELS[name].tasks
    assert all(values.shape == (4,) for values in outputs.values())


@pytest.mark.parametrize("name", MODELS)
def test_padding_never_leaks(name):
    model = tiny_model(name)
    given = inputs_of(name)
    plain, padded = model(*given), model(*map(scrambled, given))
    for task in plain:
        torch.testing.assert_close(plain[task], padded[task], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_padding_never_leaks_into_the_gradients(name):
    model = tiny_model(name).train()
    for norm in (part for part in model.modules() if isinstance(part, BatchNorm)):
        norm.eval()  # a clip's pooled mean is no padding: batch statistics are tested apart
    found = []
    for given in (inputs_of(name), tuple(map(scrambled, inputs_of(name)))):
        model.zero_grad()
        sum(values.sum() for values in model(*given).values()).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(plain, padded, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_alone_gives_what_it_gives_among_others(name):
    model, given = tiny_model(name), inputs_of(name)
    together = model(*given)
    for clip in range(4):
        alone = model(
            *(
                part[clip, None]
                if isinstance(part, torch.Tensor)
                else Padded(
                    *(field[clip, None, : part.lengths[clip]] for field in part[:2]), part.lengths[clip, None]
                )
                for part in given
            )
        )
        for task, values in alone.items():
            torch.testing.assert_close(values[0], together[task][clip], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_every_input_counts(name):
    model, given = tiny_model(name), inputs_of(name)
    plain = model(*given)["M"]
    for place, part in enumerate(given):
        moved = part + 1 if isinstance(part, torch.Tensor) else part._replace(values=part.values * 1.5 + 1)
        changed = model(*given[:place], moved, *given[place + 1 :])["M"]
        assert not torch.isclose(plain, changed, rtol=0, atol=1e-6).any()


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_in_training_and_evaluation(name):
    model = build(tiny_settings(name), WIDTHS, TEXT_LENGTH).double()
    one = [
        part[:1]
        if isinstance(part, torch.Tensor)
        else Padded(part.values[:1], part.mask[:1], part.lengths[:1])
        for part in inputs_of(name)
    ]
    outputs = model.train()(*one)
    sum(outputs.values()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(values).all() for values in model.eval()(*one).values())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_right_in_float64(name, training):
    given, model = inputs_of(name), tiny_model(name).train(training)
    values = [part if isinstance(part, torch.Tensor) else part.values for part in given]
    weights = dict(model.named_parameters())
    draw = torch.Generator().manual_seed(3)
    ways = [
        torch.randn(3, *point.shape, generator=draw, dtype=torch.float64)
        for point in [*values, *weights.values()]
    ]

    def predict(steps):
        """Predict from where `steps` along three random ways through inputs and weights lead."""
        moved = [
            point + torch.tensordot(steps, way, 1)
            for point, way in zip([*values, *weights.values()], ways, strict=True)
        ]
        filled = [
            value if isinstance(part, torch.Tensor) else part._replace(values=value)
            for part, value in zip(given, moved[:3], strict=True)
        ]
        outputs = torch.func.functional_call(model, dict(zip(weights, moved[3:], strict=True)), tuple(filled))
        return tuple(outputs.values())

    start = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(predict, start, check_undefined_grad=False)


@pytest.mark.parametrize("name", ["mlf-dnn", "mtfn", "mlmf"])
def test_heads_read_their_own_modality(name):
    model = tiny_model(name)
    text, audio, vision = inputs_of(name)
    plain = model(text, audio, vision)
    for changed, tasks in (
        ((text._replace(values=text.values + 1), audio, vision), "MT"),
        ((text, audio + 1, vision), "MA"),
        ((text, audio, vision + 1), "MV"),
    ):
        outputs = model(*changed)
        assert {task for task in plain if not torch.equal(plain[task], outputs[task])} == set(tasks)


def test_batch_norm_of_one_uses_the_running_statistics_and_leaves_them():
    norm = BatchNorm(3).train()
    norm(torch.randn(8, 3) * 2 + 1)
    before = norm.running_mean.clone(), norm.running_var.clone()
    one = torch.randn(1, 3)
    trained = norm(one)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    torch.testing.assert_close(trained, norm.eval()(one))


def test_settings_hold_together():
    numbers = MODELS["mlf-dnn"].model_dump()
    with pytest.raises(ValueError, match="lacks M"):
        LateFusionSettings.model_validate({**numbers, "head_widths": {"T": 4}, "task_weights": {"T": 1.0}})
    with pytest.raises(ValueError, match="different tasks"):
        LateFusionSettings.model_validate({**numbers, "task_weights": {"M": 1.0}})
    with pytest.raises(ValueError, match="no multiple"):
        TransformerSettings.model_validate({**MODELS["mult"].model_dump(), "width": 51})


def test_settings_of_no_system_are_refused():
    plain = SystemSettings(task_weights={"M": 1.0}, weight_decay=0, learning_rate=1e-3, batch_size=2)
    with pytest.raises(TypeError, match="SystemSettings"):
        build(plain, WIDTHS, TEXT_LENGTH)


def test_the_names_come_without_torch_or_numpy():
    code = (
        "import sys; from pipeline.trainer.settings import SEEDS; from pipeline.trainer.systems import MODELS; "
        "print(*MODELS, {'torch', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == [*PARAMETERS, "set()"]
