"""TFN and MTFN: the outer product of three representations, never laid out whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from pipeline.trainer.models.inputs import InputWidths
from pipeline.trainer.models.subnetworks import FusedSubnetworks, with_one
from pipeline.trainer.settings import TensorFusionSettings

STEPS = 1 << 16  # of the dropout rate: two random bytes decide on one element


class TensorProduct(nn.Module):
    """The fusion tensor z_t x z_a x z_v, z_u = [1; R_u] (Zadeh et al. 2017, Eq. 2), and a linear map of it.

    y_h = b_h + sum_avt W_havt D(z_a,a z_v,v z_t,t), D being dropout. The map is the first layer of the
    paper's sentiment inference sub-network; with it the tensor, a million elements a clip, need not exist:
    it is made, dropped out and summed over one audio unit at a time, and once more for the gradients.

    ``weight`` is W, shape (hidden, 1 + audio, 1 + vision, 1 + text), the 1 being the first of each axis;
    flattened to two dimensions it is the weight of a linear layer over the flattened tensor.
    """

    def __init__(self, text: int, audio: int, vision: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, 1 + audio, 1 + vision, 1 + text))
        self.bias = nn.Parameter(torch.empty(hidden))
        self.dropout = dropout
        bound = self.weight[0].numel() ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Map shapes (B, D_u) to (B, hidden)."""
        dropout = self.dropout if self.training else 0.0
        seed = int(torch.randint(2**62, ())) if dropout else 0
        product: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            with_one(text), with_one(audio), with_one(vision), self.weight, dropout, seed
        )
        return product + self.bias


class _Product(torch.autograd.Function):
    """sum_avt W_havt D(z_a,a z_v,v z_t,t), audio unit by audio unit; the gradients draw the same dropout again."""

    @staticmethod
    def forward(
        ctx: Any, text: Tensor, audio: Tensor, vision: Tensor, weight: Tensor, dropout: float, seed: int
    ) -> Tensor:
        pair = _pair(text, vision)
        parts = audio.new_empty(audio.shape[1], len(audio), len(weight))
        for unit, mask in enumerate(_masks(audio.shape[1], pair, dropout, seed)):
            torch.mm(_kept(pair, mask), weight[:, unit].flatten(1).T, out=parts[unit])
        ctx.save_for_backward(text, audio, vision, weight, parts)
        ctx.dropout, ctx.seed = dropout, seed
        return torch.einsum("ba,abh->bh", audio, parts) / (1 - dropout)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        text, audio, vision, weight, parts = ctx.saved_tensors
        gradient = gradient / (1 - ctx.dropout)
        pair = _pair(text, vision)
        to_weight, to_pair = torch.empty_like(weight), torch.zeros_like(pair)
        for unit, mask in enumerate(_masks(audio.shape[1], pair, ctx.dropout, ctx.seed)):
            scaled = gradient * audio[:, unit, None]
            torch.mm(scaled.T, _kept(pair, mask), out=to_weight[:, unit].flatten(1))
            to_pair += _kept(scaled @ weight[:, unit].flatten(1), mask)
        to_pair = to_pair.view(-1, vision.shape[1], text.shape[1])
        to_text = torch.einsum("bvt,bv->bt", to_pair, vision)
        to_audio = torch.einsum("bh,abh->ba", gradient, parts)
        to_vision = torch.einsum("bvt,bt->bv", to_pair, text)
        return to_text, to_audio, to_vision, to_weight, None, None


def _pair(text: Tensor, vision: Tensor) -> Tensor:
    """z_v x z_t, shape (B, V T)."""
    return (vision[:, :, None] * text[:, None, :]).flatten(1)


def _kept(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else mask.to(values.dtype).mul_(values)


def _masks(count: int, like: Tensor, dropout: float, seed: int) -> Iterator[Tensor | None]:
    """Draw which elements dropout keeps, ``count`` times a tensor's shape; None where it keeps all.

    Two bytes of a random word decide on one element: a tenth of what a Bernoulli draw costs.
    """
    if not dropout:
        yield from [None] * count
        return
    generator = torch.Generator().manual_seed(seed)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64)
    halves = words.view(torch.int16)[: like.numel()].view(like.shape)
    least = round(dropout * STEPS) - STEPS // 2
    for _ in range(count):
        words.random_(-(2**63), None, generator=generator)
        yield halves >= least


class BoundedHead(nn.Module):
    """The rest of the sentiment inference sub-network: two layers, then a sigmoid stretched to a range."""

    def __init__(self, hidden: int, output_range: float) -> None:
        super().__init__()
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, 1)
        self.output_range = output_range

    def forward(self, first: Tensor) -> Tensor:
        """Map the first layer, shape (B, hidden), before its ReLU, to shape (B,) within the range."""
        x: Tensor = self.linear_3(relu(self.linear_2(relu(first))))
        return self.output_range * (2 * torch.sigmoid(x) - 1).squeeze(-1)


class TensorFusion(FusedSubnetworks):
    """Tensor fusion network, TFN (head M alone) or MTFN (M, T, A, V).

    ``fusion`` is the fusion tensor and the first layer behind it, ``heads.M`` what follows. With 768, 33 and
    709 columns TFN has 35,632,077 parameters, MTFN 140,957,188.
    """

    def __init__(self, settings: TensorFusionSettings, widths: InputWidths) -> None:
        super().__init__(settings, widths)
        hidden = settings.head_widths["M"]
        self.fusion = TensorProduct(
            self.sizes["T"], self.sizes["A"], self.sizes["V"], hidden, settings.head_dropout
        )
        self.heads = self.build_heads(settings, BoundedHead(hidden, settings.output_range))
