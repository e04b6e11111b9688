"""LF-DNN, TFN, LMF and their twins against the papers' equations."""

import numpy as np
import pytest
import torch
from numpy_layers import (
    TIGHT,
    head,
    linear,
    pooled_subnetwork,
    relu,
    sigmoid,
    text_subnetwork,
    under,
    weights_of,
)
from small_systems import TEXT_LENGTH, WIDTHS, make_inputs, tiny_model, tiny_settings

from triptych.pipeline.trainer.models.tensor_fusion import Dropped, TensorProduct
from triptych.pipeline.trainer.models.unimodal import UnimodalSettings
from triptych.pipeline.trainer.systems import build


def shaken(model):
    """A model whose every number, running statistics too, differs from where it starts."""
    draw = torch.Generator().manual_seed(5)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=draw, dtype=torch.float64)
            value.add_(noise if key.endswith("running_var") else noise - 0.5)
    return model


def one(x):
    return np.concatenate([[1.0], x])


def fuse_late(t, a, v, weights):
    return head(np.concatenate([t, a, v]), under(weights, "heads.M"))


def tensor_weight(weights):
    """W, shape (hidden, 1 + audio, 1 + vision, 1 + text)."""
    units = sum(name.startswith("fusion.weight.") for name in weights)
    return np.stack([weights[f"fusion.weight.{unit}"] for unit in range(units)], axis=1)


def fuse_tensor(t, a, v, weights):
    tensor = np.einsum("a,v,t->avt", one(a), one(v), one(t))
    x = np.einsum("havt,avt->h", tensor_weight(weights), tensor) + weights["fusion.bias"]
    x = relu(linear(relu(x), weights, "heads.M.linear_2"))
    return 6 * sigmoid(linear(x, weights, "heads.M.linear_3"))[0] - 3


def fuse_low_rank(t, a, v, weights):
    """The full weight tensor is computed from its factors and multiplied with the full fusion tensor."""
    factors = [weights[f"fusion.{name}"] for name in ("text", "audio", "vision")]
    full = np.einsum("r,rt,ra,rv->tav", weights["heads.M.weight"][0], *factors)
    tensor = np.einsum("t,a,v->tav", one(t), one(a), one(v))
    return (full * tensor).sum() + weights["heads.M.bias"][0]


@pytest.mark.parametrize(
    ("name", "fuse"),
    [
        ("lf-dnn", fuse_late),
        ("mlf-dnn", fuse_late),
        ("tfn", fuse_tensor),
        ("mtfn", fuse_tensor),
        ("lmf", fuse_low_rank),
        ("mlmf", fuse_low_rank),
    ],
)
def test_outputs_are_the_equations(name, fuse):
    model, (text, audio, vision) = shaken(tiny_model(name)), make_inputs("mean")
    weights = weights_of(model)
    with torch.no_grad():
        outputs = model(text, audio, vision)
    for clip in range(4):
        t = text_subnetwork(text.values[clip, : text.lengths[clip]].numpy(), under(weights, "text"))
        a = pooled_subnetwork(audio[clip].numpy(), under(weights, "audio"))
        v = pooled_subnetwork(vision[clip].numpy(), under(weights, "vision"))
        expected = {"M": fuse(t, a, v, weights)}
        for task, representation in (("T", t), ("A", a), ("V", v)):
            if task in outputs:
                expected[task] = head(representation, under(weights, f"heads.{task}"))
        for task, value in outputs.items():
            np.testing.assert_allclose(value[clip].item(), expected[task], **TIGHT)


@pytest.mark.parametrize("modality", ["text", "audio", "vision"])
def test_one_modality_alone_is_its_sub_network_and_its_head(modality):
    settings = UnimodalSettings.alone(tiny_settings("mlf-dnn"), modality)
    model = shaken(build(settings, WIDTHS, TEXT_LENGTH).double().eval())
    weights, (text, audio, vision) = weights_of(model), make_inputs("mean")
    with torch.no_grad():
        outputs = model(text, audio, vision)
    assert set(outputs) == {"M"}
    for clip in range(4):
        if modality == "text":
            rows = text.values[clip, : text.lengths[clip]].numpy()
            representation = text_subnetwork(rows, under(weights, "subnetwork"))
        else:
            row = (audio if modality == "audio" else vision)[clip].numpy()
            representation = pooled_subnetwork(row, under(weights, "subnetwork"))
        expected = head(representation, under(weights, "head"))
        np.testing.assert_allclose(outputs["M"][clip].item(), expected, **TIGHT)


def dense(product, text, audio, vision, mask):
    """The product's output, computed on the full tensor with a given dropout mask."""
    parts = [torch.nn.functional.pad(part, (1, 0), value=1.0) for part in (audio, vision, text)]
    tensor = torch.einsum("ba,bv,bt->bavt", *parts)
    if mask is not None:
        tensor = tensor * mask / (1 - product.dropout)
    weight = torch.stack(list(product.weight), dim=1)
    return torch.nn.functional.linear(tensor.flatten(1), weight.flatten(1), product.bias)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_factored_product_equals_the_full_tensors(dropout):
    torch.manual_seed(0)
    product = TensorProduct(4, 3, 5, 6, dropout).double().train()
    inputs = [torch.randn(7, width, dtype=torch.float64, requires_grad=True) for width in (4, 3, 5)]
    torch.manual_seed(1)
    found = product(*inputs)
    mask = None
    if dropout:
        torch.manual_seed(1)
        seed = int(torch.randint(2**62, ()))
        dropped = Dropped(torch.ones(7, 6 * 5), dropout, seed)
        mask = (
            torch.stack([dropped.values(unit).clone() for unit in range(4)], dim=1).view(7, 4, 6, 5).double()
        )
        assert 0.5 < mask.mean() < 0.7
    expected = dense(product, *inputs, mask)
    torch.testing.assert_close(found, expected, **TIGHT)
    ways = torch.randn(7, 6, dtype=torch.float64)
    wanted = [*inputs, *product.weight, product.bias]
    gradients = torch.autograd.grad((found * ways).sum(), wanted)
    for gradient, right in zip(gradients, torch.autograd.grad((expected * ways).sum(), wanted), strict=True):
        torch.testing.assert_close(gradient, right, **TIGHT)


def test_dropout_has_its_rate_and_draws_a_new_mask():
    dropped = Dropped(torch.full((100, 500), 2.0), 0.3, seed=4)
    first, mask, second = dropped.values(0).clone(), dropped.mask.clone(), dropped.values(1).clone()
    assert torch.equal(dropped.values(0), first)
    assert torch.equal(first, 2.0 * mask)
    assert mask.double().mean() == pytest.approx(0.7, abs=0.01)
    assert (first * second / 4).mean() == pytest.approx(0.49, abs=0.01)


def test_dropout_is_off_in_evaluation():
    product = TensorProduct(4, 3, 5, 6, 0.4)
    inputs = [torch.randn(7, width) for width in (4, 3, 5)]
    assert not torch.equal(product.train()(*inputs), product(*inputs))
    assert torch.equal(product.eval()(*inputs), product(*inputs))
