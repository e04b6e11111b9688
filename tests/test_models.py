import os
import subprocess
import sys

import pytest
import torch

from pipeline.trainer.models.late_fusion import InputWidths, LateFusion
from pipeline.trainer.models.subnetworks import BatchNorm
from pipeline.trainer.settings import MODELS, LateFusionSettings

WIDTHS = InputWidths(768, 33, 709)
PARAMETERS = {"lf-dnn": 635_821, "mlf-dnn": 283_388}


def inputs(count, length=12, seed=0):
    draw = torch.Generator().manual_seed(seed)
    text = torch.randn(count, length, 768, generator=draw)
    lengths = torch.randint(1, length + 1, (count,), generator=draw)
    lengths[0] = length
    return text, lengths, torch.randn(count, 33, generator=draw), torch.randn(count, 709, generator=draw)


def model_of(name):
    torch.manual_seed(0)
    return LateFusion(MODELS[name], WIDTHS)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_the_references(name):
    assert sum(parameter.numel() for parameter in model_of(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_by_task(name):
    outputs = model_of(name)(*inputs(5))
    assert tuple(outputs) == MODELS[name].tasks
    assert all(values.shape == (5,) for values in outputs.values())


@pytest.mark.parametrize("name", MODELS)
def test_padding_never_leaks(name):
    model = model_of(name).eval()
    text, lengths, audio, vision = inputs(6)
    garbage = torch.full((6, 20, 768), 1e6)
    for clip, length in enumerate(lengths):
        garbage[clip, :length] = text[clip, :length]
    plain, padded = model(text, lengths, audio, vision), model(garbage, lengths, audio, vision)
    for task in plain:
        assert torch.equal(plain[task], padded[task])


def test_the_text_is_read_at_its_own_last_token():
    model = model_of("lf-dnn").eval()
    text, lengths, _, _ = inputs(6)
    together = model.text(text, lengths)
    for clip, length in enumerate(lengths):
        states, _ = model.text.lstm(text[clip, None, :length])
        alone = model.text.project(states[0, -1])
        torch.testing.assert_close(together[clip], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_in_training_and_evaluation(name):
    model = model_of(name)
    outputs = model.train()(*inputs(1))
    sum(outputs.values()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(values).all() for values in model.eval()(*inputs(1)).values())


def test_batch_norm_of_one_uses_the_running_statistics_and_leaves_them():
    norm = BatchNorm(3).train()
    norm(torch.randn(8, 3) * 2 + 1)
    before = norm.running_mean.clone(), norm.running_var.clone()
    one = torch.randn(1, 3)
    trained = norm(one)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    torch.testing.assert_close(trained, norm.eval()(one))


def test_heads_read_their_own_modality():
    model = model_of("mlf-dnn").eval()
    text, lengths, audio, vision = inputs(4)
    plain = model(text, lengths, audio, vision)
    for changed, tasks in (
        ((text + 1, lengths, audio, vision), "MT"),
        ((text, lengths, audio + 1, vision), "MA"),
        ((text, lengths, audio, vision + 1), "MV"),
    ):
        outputs = model(*changed)
        assert {task for task in plain if not torch.equal(plain[task], outputs[task])} == set(tasks)


def test_gradients_are_right_in_float64():
    settings = MODELS["mlf-dnn"].model_copy(
        update={"hidden": MODELS["mlf-dnn"].hidden.model_copy(update={"text": 3, "audio": 4, "vision": 4})}
    )
    torch.manual_seed(0)
    model = LateFusion(settings, InputWidths(5, 4, 6)).double().eval()
    draw = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 4, 5), (3, 4), (3, 6))
    ]
    lengths = torch.tensor([4, 2, 1])
    assert torch.autograd.gradcheck(
        lambda text, audio, vision: tuple(model(text, lengths, audio, vision).values()), tensors
    )


def test_settings_hold_together():
    numbers = MODELS["mlf-dnn"].model_dump()
    with pytest.raises(ValueError, match="lacks M"):
        LateFusionSettings.model_validate({**numbers, "head_widths": {"T": 4}, "task_weights": {"T": 1.0}})
    with pytest.raises(ValueError, match="different tasks"):
        LateFusionSettings.model_validate({**numbers, "task_weights": {"M": 1.0}})


def test_the_names_come_without_torch_or_numpy():
    code = (
        "import sys; from pipeline.trainer.settings import MODELS, SEEDS; "
        "print(*MODELS, {'torch', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["lf-dnn", "mlf-dnn", "set()"]
