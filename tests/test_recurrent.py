"""EF-LSTM and MFN against the papers' equations, one clip and one step at a time."""

import itertools

import numpy as np
import pytest
import torch
from numpy_layers import TIGHT, clip_of, linear, lstm, perceptron, sigmoid, softmax, under, weights_of
from seeds import seeded
from small_systems import make_inputs, ragged, tiny_model

from triptych.pipeline.trainer.models.early_fusion import StepNorm
from triptych.pipeline.trainer.models.lstm import Packing
from triptych.pipeline.trainer.models.memory_fusion import Aligner


def test_early_fusion_is_its_equation():
    model, given = tiny_model("ef-lstm"), make_inputs("tokens")
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    weights = weights_of(model)
    with torch.no_grad():
        found = model(*given)["M"]
    for clip in range(4):
        rows = np.concatenate([clip_of(part, clip)[0] for part in given], axis=1)
        steps = slice(len(rows))
        scale = weights["norm.weight"][steps] / np.sqrt(weights["norm.running_var"][steps] + 1e-5)
        x = (rows - weights["norm.running_mean"][steps, None]) * scale[:, None]
        x = x + weights["norm.bias"][steps, None]
        for layer in ("_l0", "_l1"):
            x, _ = lstm(x, under(weights, "lstm"), layer)
        np.testing.assert_allclose(found[clip], perceptron(x[-1], weights, "head")[0], **TIGHT)


def normalised(norm, packed, packing):
    scale, shift = norm(packed, packing)
    return packed * scale + shift


def test_step_norm_counts_only_what_is_there():
    norm, rows = StepNorm(8).double().train(), ragged([4, 6, 1], 5, seed=2)
    packing = Packing.of(rows.lengths)
    packed = packing.pack(rows.values)
    with torch.no_grad():
        found = normalised(norm, packed, packing)
    for step in range(6):
        reaching = packed[packing.steps == step]
        assert len(reaching) == rows.mask[:, step].sum()
        expected = (reaching - reaching.mean()) / (reaching.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(found[packing.steps == step], expected, **TIGHT)
        assert norm.running_mean[step] == pytest.approx(0.1 * reaching.mean().item())
        assert norm.running_var[step] == pytest.approx(0.9 + 0.1 * reaching.var().item())
    assert norm.running_mean[6:].tolist() == [0, 0]
    assert norm.running_var[6:].tolist() == [1, 1]


def test_step_norm_without_padding_is_batch_norm():
    ours, theirs = StepNorm(6).double().train(), torch.nn.BatchNorm1d(6).double().train()
    values = torch.randn(3, 6, 5, dtype=torch.float64)
    packing = Packing.of(torch.tensor([6, 6, 6]))
    packed = packing.pack(values)
    for _ in range(2):
        torch.testing.assert_close(normalised(ours, packed, packing), packing.pack(theirs(values)), **TIGHT)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, **TIGHT)
    torch.testing.assert_close(ours.running_var, theirs.running_var, **TIGHT)
    torch.testing.assert_close(
        normalised(ours.eval(), packed, packing), packing.pack(theirs.eval()(values)), **TIGHT
    )


def align(rows, tokens, weights):
    """Align the rows of one clip to its tokens."""
    states, _ = lstm(rows, under(weights, "lstm"), "_l0")
    shares = softmax(linear(states, weights, "project")[:, : 1 + tokens])
    return np.einsum("tj,td->jd", shares[:, 1:], rows), np.log(shares)


@pytest.mark.parametrize("window", [2, 3])
def test_memory_fusion_is_its_equations(window):
    model, given = tiny_model("mfn", window=window), make_inputs("rows")
    weights = weights_of(model)
    with torch.no_grad():
        found = model(*given)["M"]
    for clip in range(4):
        tokens, _ = clip_of(given[0], clip)
        aligned = {"text": tokens}
        for name, part in zip(("audio", "vision"), given[1:], strict=True):
            rows, counts = clip_of(part, clip)
            aligned[name], _ = align(rows * counts[:, None], len(tokens), under(weights, f"aligners.{name}"))
        runs = [lstm(rows, under(weights, f"cells.{name}")) for name, rows in aligned.items()]
        h, c = (np.concatenate(parts, axis=1) for parts in zip(*runs, strict=True))
        c = np.concatenate([np.zeros((window - 1, c.shape[1])), c])
        u = np.zeros(3)
        for step in range(len(tokens)):
            together = c[step : step + window].ravel()
            k = softmax(perceptron(together, weights, "attention")) * together
            proposal = np.tanh(perceptron(k, weights, "proposal"))
            both = np.concatenate([k, u])
            retain, update = (sigmoid(perceptron(both, weights, gate)) for gate in ("retain", "update"))
            u = retain * u + update * proposal
        expected = perceptron(np.concatenate([h[-1], u]), weights, "output")[0]
        np.testing.assert_allclose(found[clip], expected, **TIGHT)


def test_memory_fusion_learns_both_alignments_by_their_weight():
    model = tiny_model("mfn", aligner_weight=0.25).train()
    text, audio, vision = make_inputs("rows")
    losses = []
    for aligner, rows in zip(model.aligners.values(), (audio, vision), strict=True):
        _, logp = aligner(rows, text.lengths)
        losses.append(aligner.loss(logp, rows.lengths, text.lengths))
    assert all(loss.sum() > 0 for loss in losses)
    expected = 0.25 * (losses[0] + losses[1])
    torch.testing.assert_close(model(text, audio, vision)["auxiliary"], expected, **TIGHT)


def path_probability(logp, tokens):
    """Sum the probabilities of all paths of the rows through the tokens in order; blanks and repeats are allowed."""
    total = 0.0
    for path in itertools.product(range(tokens + 1), repeat=len(logp)):
        collapsed = [label for label, _ in itertools.groupby(path) if label]
        if collapsed == list(range(1, tokens + 1)):
            total += np.exp(sum(logp[t, label] for t, label in enumerate(path)))
    return total


def test_the_aligners_loss_counts_every_path():
    torch.manual_seed(0)
    aligner, rows, tokens = Aligner(3, 4, 7).double(), ragged([5, 4, 2], 3, seed=1), torch.tensor([2, 3, 3])
    with torch.no_grad():
        aligned, logp = aligner(rows, tokens)
        loss = aligner.loss(logp, rows.lengths, tokens)
    assert aligned.shape == (3, 3, 3)
    assert not aligned[0, 2].any()  # after its two tokens
    for clip in range(2):
        ours, _ = clip_of(rows, clip)
        count = int(tokens[clip])
        expected, shares = align(ours, count, weights_of(aligner))
        np.testing.assert_allclose(aligned[clip, :count], expected, **TIGHT)
        chance = path_probability(shares, count)
        np.testing.assert_allclose(loss[clip], -np.log(chance) / len(ours), **TIGHT)
    assert loss[2] == 0  # two rows cannot hold three tokens


def fitted_aligner(values):
    """An aligner that was fitted to three clips of these rows and four tokens, and its output for the first."""
    torch.manual_seed(seeded(0))
    aligner, tokens = Aligner(4, 32, 4), torch.tensor([4, 4, 4])
    optimiser = torch.optim.Adam(aligner.parameters(), lr=0.02)
    rows = ragged([len(values)] * 3, 4, seed=0)._replace(values=values.expand(3, -1, -1))
    for _ in range(120):
        optimiser.zero_grad()
        _, logp = aligner(rows, tokens)
        aligner.loss(logp, rows.lengths, tokens).mean().backward()
        optimiser.step()
    aligned, logp = aligner(rows, tokens)
    return aligned[0], logp[0]


def test_the_aligner_fits_the_tokens_order():
    _, logp = fitted_aligner(torch.eye(4).repeat_interleave(3, dim=0))  # three rows for each token
    classes = logp.argmax(dim=1)
    assert torch.unique_consecutive(classes[classes > 0]).tolist() == [1, 2, 3, 4]


def test_the_aligner_gives_each_token_its_own_row():
    aligned, logp = fitted_aligner(torch.eye(4))  # as many rows as tokens: one path fits
    assert logp.argmax(dim=1).tolist() == [1, 2, 3, 4]
    assert aligned.argmax(dim=1).tolist() == [0, 1, 2, 3]
