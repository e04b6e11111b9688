"""MulT against the paper's equations, one clip, one head and one row at a time."""

import numpy as np
import pytest
import torch
from numpy_layers import TIGHT, clip_of, layer_norm, linear, perceptron, softmax, under, weights_of
from small_systems import make_inputs, ragged, tiny_model

from triptych.pipeline.trainer.models.transformer import Convolution, positions
from triptych.pipeline.trainer.systems import SYSTEMS

HEADS, KERNEL = 2, {"text": 3, "audio": 1, "vision": 1}
OTHERS = {"text": ("audio", "vision"), "audio": ("text", "vision"), "vision": ("text", "audio")}


def convolve(rows, counts, weight, kernel):
    rows = rows * counts[:, None]
    short = max(0, kernel - len(rows))
    rows, counts = np.pad(rows, ((0, short), (0, 0))), np.pad(counts, (0, short))
    starts = range(len(rows) - kernel + 1)
    values = np.stack([np.einsum("kd,odk->o", rows[i : i + kernel], weight) for i in starts])
    return values, np.array([counts[i : i + kernel].any() for i in starts])


def embed(rows, is_placed=True):
    length, width = rows.shape
    if not is_placed:
        return np.sqrt(width) * rows
    encoding = np.zeros((length, width))
    half = width // 2
    for i in range(length):
        for j in range(half):
            angle = (i + 1) / 10000 ** (j / max(half - 1, 1))
            encoding[i, j], encoding[i, half + j] = np.sin(angle), np.cos(angle)
    return np.sqrt(width) * rows + encoding


def block(x, y, counts, weights, causal):
    target, source = layer_norm(x, weights, "norm_1"), layer_norm(y, weights, "norm_1")
    query, key, value = (
        linear(rows, weights, f"attention.{name}")
        for rows, name in ((target, "query"), (source, "key"), (source, "value"))
    )
    size = query.shape[1] // HEADS
    found = []
    for first in range(0, query.shape[1], size):
        columns = slice(first, first + size)
        rows = []
        for i in range(len(x)):  # a row may look ahead by the difference of the lengths, as in the reference
            seen = counts.copy()
            if causal:
                seen[i + abs(len(y) - len(x)) + 1 :] = False
            seen = seen if seen.any() else counts
            scores = query[i, columns] @ key[seen][:, columns].T / np.sqrt(size)
            rows.append(softmax(scores[None])[0] @ value[seen][:, columns])
        found.append(np.stack(rows))
    x = x + linear(np.concatenate(found, axis=1), weights, "attention.out")
    return x + perceptron(layer_norm(x, weights, "norm_2"), weights, "feed")


def cross(x, y, counts, weights, compat):
    x, y = embed(x, not compat), embed(y, not compat)
    for i in range(2):
        x = block(x, y, counts, under(weights, f"blocks.{i}"), compat)
    return layer_norm(x, weights, "norm")


def recall(x, counts, weights, compat):
    x = embed(x, not compat)
    for i in range(2):
        x = block(x, x, counts, under(weights, f"blocks.{i}"), compat)
    return layer_norm(x, weights, "norm")[counts][-1]


@pytest.mark.parametrize("compat", [False, True])
def test_outputs_are_the_equations(compat):
    """With ``--compat mmsa`` there are no positions, and attention is causal."""
    changes = {"positions": False, "causal": True} if compat else {}
    model, given = tiny_model("mult", **changes), make_inputs("rows")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # no norm at one, no bias at zero
    weights = weights_of(model)
    with torch.no_grad():
        found = model(*given)["M"]
    for clip in range(4):
        rows = {
            name: convolve(*clip_of(part, clip), weights[f"convolutions.{name}.conv.weight"], KERNEL[name])
            for name, part in zip(KERNEL, given, strict=True)
        }
        states = []
        for target, (x, counts) in rows.items():
            crossed = [
                cross(x, *rows[source], under(weights, f"crossmodal.{target}_{source}"), compat)
                for source in OTHERS[target]
            ]
            states.append(
                recall(np.concatenate(crossed, axis=1), counts, under(weights, f"memory.{target}"), compat)
            )
        z = np.concatenate(states)
        expected = linear(z + perceptron(z, weights, "residual"), weights, "out")[0]
        np.testing.assert_allclose(found[clip], expected, **TIGHT)


@pytest.mark.parametrize("width", [7, 8])
def test_positions(width):
    np.testing.assert_allclose(positions(9, width), embed(np.zeros((9, width))), **TIGHT)


def test_windows_that_hang_over_the_end_do_not_count():
    torch.manual_seed(0)
    out = Convolution(3, 4, 5).double()(ragged([2, 9, 5], 3, seed=0))
    assert out.lengths.tolist() == [1, 5, 1]
    assert out.mask.sum(dim=1).tolist() == [1, 5, 1]
    alone = Convolution(3, 4, 5).double()(ragged([2], 3, seed=0))
    assert alone.values.shape == (1, 1, 4)


def test_a_row_that_does_not_count_is_nowhere_to_be_seen():
    model, (text, audio, vision) = tiny_model("mult"), make_inputs("rows")
    blank = audio._replace(values=torch.where(audio.mask[..., None], audio.values, 9.0))
    assert torch.equal(model(text, audio, vision)["M"], model(text, blank, vision)["M"])


def test_dropout_before_the_convolutions_is_the_texts_alone():
    model, given = tiny_model("mult", text_dropout=0.5).train(), make_inputs("rows")
    entered = {}
    for name, part in model.convolutions.items():
        part.register_forward_pre_hook(lambda _, inputs, name=name: entered.update({name: inputs[0].values}))
    torch.manual_seed(0)
    model(*given)
    changed = {
        name for name, part in zip(KERNEL, given, strict=True) if not torch.equal(entered[name], part.values)
    }
    assert changed == {"text"}
    undropped = entered["text"] != 0
    torch.testing.assert_close(entered["text"][undropped], 2 * given[0].values[undropped])


def test_compat_is_the_references_mult():
    settings = SYSTEMS["mult"].as_mmsa()
    assert (settings.positions, settings.causal, settings.clip_batches, settings.padding) == (
        *(False, True, True),
        "counted",
    )
    default = SYSTEMS["mult"]
    assert (default.positions, default.causal, default.clip_batches) == (True, False, False)
