"""MTCNN's proposal, refinement and output networks, with the weights that facenet-pytorch carries.

K. Zhang, Z. Zhang, Z. Li and Y. Qiao, "Joint face detection and alignment using multi-task cascaded
convolutional networks", IEEE Signal Processing Letters 23 (2016), figure 2. That package's own modules import
torchvision, and with it eight seconds of torch that nothing here uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn import functional

from triptych.extractors.base import BackendMissingError

Weights = Mapping[str, torch.Tensor]


def weights(network: str, device: torch.device) -> Weights:
    """Read the weights of ``pnet``, ``rnet`` or ``onet``; pictures are then best channels_last too.

    Raises
    ------
    BackendMissingError
        facenet-pytorch is not installed.
    """
    package = find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise BackendMissingError(
            "MTCNN's weights are not here: `pip install facenet-pytorch==2.5.3` brings them"
        )
    file = Path(package.origin).parent / "data" / f"{network}.pt"
    stored: Weights = torch.load(file, map_location=device, weights_only=True)
    return {
        name: values.contiguous(
            memory_format=torch.channels_last if values.ndim == 4 else torch.contiguous_format
        )
        for name, values in stored.items()
    }


def pnet(w: Weights, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of pictures (N, 3, H, W): offsets (N, 4, h, w) and probability (N, h, w) of a face in each cell."""
    x = _halved(_convolved(w, 1, x), 2)
    x = _convolved(w, 3, _convolved(w, 2, x))
    faceness, offsets = (functional.conv2d(x, *_parameters(w, name)) for name in ("conv4_1", "conv4_2"))
    return offsets, faceness.softmax(1)[:, 1]


def rnet(w: Weights, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of crops (N, 3, 24, 24): offsets (N, 4) of the box and probability (N,) of a face."""
    x = _halved(_convolved(w, 1, x), 3)
    x = _halved(_convolved(w, 2, x), 3)
    dense = partial(_dense, w, _connected(w, 4, _convolved(w, 3, x)))
    return dense("dense5_2"), dense("dense5_1").softmax(1)[:, 1]


def onet(w: Weights, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of crops (N, 3, 48, 48): offsets (N, 4), five points' x, then y (N, 10), and probability (N,) of a face."""
    x = _halved(_convolved(w, 1, x), 3)
    x = _halved(_convolved(w, 2, x), 3)
    x = _halved(_convolved(w, 3, x), 2)
    dense = partial(_dense, w, _connected(w, 5, _convolved(w, 4, x)))
    return dense("dense6_2"), dense("dense6_3"), dense("dense6_1").softmax(1)[:, 1]


def _parameters(w: Weights, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    return w[f"{layer}.weight"], w[f"{layer}.bias"]


def _convolved(w: Weights, layer: int, x: torch.Tensor) -> torch.Tensor:
    return functional.prelu(functional.conv2d(x, *_parameters(w, f"conv{layer}")), w[f"prelu{layer}.weight"])


def _halved(x: torch.Tensor, window: int) -> torch.Tensor:
    return functional.max_pool2d(x, window, 2, ceil_mode=True)


def _dense(w: Weights, x: torch.Tensor, layer: str) -> torch.Tensor:
    return functional.linear(x, *_parameters(w, layer))


def _connected(w: Weights, layer: int, x: torch.Tensor) -> torch.Tensor:
    x = x.permute(0, 3, 2, 1).flatten(1)  # by columns, as the weights were trained
    return functional.prelu(_dense(w, x, f"dense{layer}"), w[f"prelu{layer}.weight"])
