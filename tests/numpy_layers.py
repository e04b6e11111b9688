"""The layers of the papers in plain numpy, one clip and one step at a time, from a model's state_dict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

Weights = Mapping[str, np.ndarray]
TIGHT = {"rtol": 0, "atol": 1e-10}


def weights_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def under(weights: Weights, prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(f"{prefix}."): w for name, w in weights.items() if name.startswith(f"{prefix}.")
    }


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return np.einsum("...i,oi->...o", x, weights[f"{name}.weight"]) + weights.get(f"{name}.bias", 0)


def perceptron(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return linear(relu(linear(x, weights, f"{name}.linear_1")), weights, f"{name}.linear_2")


def layer_norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def lstm(rows: np.ndarray, weights: Weights, layer: str = "") -> tuple[np.ndarray, np.ndarray]:
    """h and c of every step of one clip's rows, shape (L, H); `layer` is what ends the weights' names."""
    hidden = weights[f"weight_hh{layer}"].shape[1]
    h, c, hs, cs = np.zeros(hidden), np.zeros(hidden), [], []
    for x in rows:
        z = weights[f"weight_ih{layer}"] @ x + weights[f"bias_ih{layer}"]
        z = z + weights[f"weight_hh{layer}"] @ h + weights[f"bias_hh{layer}"]
        i, f, g, o = z.reshape(4, hidden)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.stack(hs), np.stack(cs)


def text_subnetwork(tokens: np.ndarray, weights: Weights) -> np.ndarray:
    h, _ = lstm(tokens, under(weights, "lstm"), "_l0")
    return linear(h[-1], weights, "project")


def pooled_subnetwork(row: np.ndarray, weights: Weights) -> np.ndarray:
    normed = (row - weights["norm.running_mean"]) / np.sqrt(weights["norm.running_var"] + 1e-5)
    x = normed * weights["norm.weight"] + weights["norm.bias"]
    for name in ("linear_1", "linear_2", "linear_3"):
        x = relu(linear(x, weights, name))
    return x


def head(x: np.ndarray, weights: Weights) -> float:
    x = relu(linear(relu(linear(x, weights, "linear_1")), weights, "linear_2"))
    return float(linear(x, weights, "linear_3")[0])


def clip_of(given, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """One clip's rows and which of them count."""
    length = int(given.lengths[clip])
    return given.values[clip, :length].numpy(), given.mask[clip, :length].numpy()
