"""MTCNN's proposal, refinement and output networks on torch, with the weights that facenet-pytorch carries.

K. Zhang, Z. Zhang, Z. Li and Y. Qiao, "Joint face detection and alignment using multi-task cascaded
convolutional networks", IEEE Signal Processing Letters 23 (2016), figure 2. That package's own modules import
torchvision, which takes eight seconds and is not needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from triptych.extractors.faces.weights import weights_file

Weights = Mapping[str, torch.Tensor]
Pixels = NDArray[np.uint8]
Outputs = list[NDArray[np.float32]]


def weights(network: str, device: torch.device) -> Weights:
    """Read the weights of ``pnet``, ``rnet`` or ``onet``, in channels_last layout, which inputs should have too."""
    stored: Weights = torch.load(weights_file(network), map_location=device, weights_only=True)
    return {
        name: values.contiguous(
            memory_format=torch.channels_last if values.ndim == 4 else torch.contiguous_format
        )
        for name, values in stored.items()
    }


@dataclass(frozen=True)
class Layers:
    """The layers of one network, by their names in its weights.

    Attributes
    ----------
    prelu
        Computes the activation of x, shape (N, C, ...), with slopes, shape (C,), where x is negative.
    """

    weights: Weights
    prelu: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = functional.prelu

    def convolution(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def activated(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """Apply the convolution and the activation of this number."""
        return self.prelu(self.convolution(f"conv{number}", x), self.weights[f"prelu{number}.weight"])

    def connected(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """Apply the dense layer and activation of this number to all of x."""
        x = x.permute(0, 3, 2, 1).flatten(1)  # by columns, as the weights were trained
        return self.prelu(self.dense(f"dense{number}", x), self.weights[f"prelu{number}.weight"])


def pnet(layers: Layers, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute for images (N, 3, H, W) offsets (N, 4, h, w) and probability (N, h, w) of a face in each cell."""
    x = _halved(layers.activated(1, x), 2)
    x = layers.activated(3, layers.activated(2, x))
    return layers.convolution("conv4_2", x), layers.convolution("conv4_1", x).softmax(1)[:, 1]


def rnet(layers: Layers, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute for crops (N, 3, 24, 24) offsets (N, 4) of the box and probability (N,) of a face."""
    x = _halved(layers.activated(1, x), 3)
    x = _halved(layers.activated(2, x), 3)
    x = layers.connected(4, layers.activated(3, x))
    return layers.dense("dense5_2", x), layers.dense("dense5_1", x).softmax(1)[:, 1]


def onet(layers: Layers, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute for crops (N, 3, 48, 48) offsets (N, 4), five points' x, then y (N, 10), and probability (N,)."""
    x = _halved(layers.activated(1, x), 3)
    x = _halved(layers.activated(2, x), 3)
    x = _halved(layers.activated(3, x), 2)
    x = layers.connected(5, layers.activated(4, x))
    return (
        layers.dense("dense6_2", x),
        layers.dense("dense6_3", x),
        layers.dense("dense6_1", x).softmax(1)[:, 1],
    )


def _halved(x: torch.Tensor, window: int) -> torch.Tensor:
    return functional.max_pool2d(x, window, 2, ceil_mode=True)


def standardised(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (N, H, W, 3) into the networks' input, channels_last without a copy."""
    return (images.permute(0, 3, 1, 2).float() - 127.5) / 128.0


FORWARD: dict[str, Callable[[Layers, torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "pnet": pnet,
    "rnet": rnet,
    "onet": onet,
}


class TorchNetworks:
    """The three networks on torch: from uint8 images (N, H, W, 3) to arrays.

    Parameters
    ----------
    device
        Where they run, as torch names it.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self.pnet, self.rnet, self.onet = (
            partial(self._run, network, Layers(weights(name, self._device)))
            for name, network in FORWARD.items()
        )

    @torch.inference_mode()
    def _run(
        self,
        network: Callable[[Layers, torch.Tensor], tuple[torch.Tensor, ...]],
        layers: Layers,
        images: Pixels,
    ) -> Outputs:
        results = network(layers, standardised(torch.from_numpy(images).to(self._device)))
        return [result.cpu().numpy() for result in results]
