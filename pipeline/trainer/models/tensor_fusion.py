"""TFN and MTFN: the outer product of three representations, never stored completely."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks, SubnetworkSettings, with_one
from triptych.pipeline.trainer.settings import Decays, Dropouts, Positive, Widths
from triptych.pipeline.trainer.systems import register_model

STEPS = 1 << 16  # of the dropout rate: two random bytes decide on one element


class TensorFusionSettings(SubnetworkSettings):
    """TFN (head M alone) and MTFN (M, T, A, V). `head_dropout` is applied to the fusion tensor too."""

    family: Literal["tensor-fusion"] = "tensor-fusion"
    cost: ClassVar[float] = 100

    output_range: Annotated[Positive, Field(description="M is squashed between minus and plus this.")] = 3.0


# The reference's tuned settings for CH-SIMS.
TFN = TensorFusionSettings(
    hidden=Widths(text=128, audio=32, vision=128),
    text_out=256,
    dropout=Dropouts(text=0.4, audio=0.4, vision=0.4),
    head_widths={"M": 32},
    head_dropout=0.4,
    task_weights={"M": 1.0},
    subnetwork_decay=Decays(text=0.0, audio=0.0, vision=0.0),
    weight_decay=0.0,
    learning_rate=5e-4,
    batch_size=32,
)
MTFN = TensorFusionSettings(
    hidden=Widths(text=256, audio=32, vision=256),
    text_out=256,
    dropout=Dropouts(text=0.2, audio=0.2, vision=0.2),
    head_widths={"M": 64, "T": 64, "A": 4, "V": 8},
    head_dropout=0.2,
    # The reference's A is 0, which leaves the audio head untrained; 0.2 is the smallest value of its own grid.
    task_weights={"M": 0.6, "T": 0.4, "A": 0.2, "V": 1.0},
    subnetwork_decay=Decays(text=1e-3, audio=1e-4, vision=1e-5),
    weight_decay=5e-3,
    learning_rate=5e-3,
    batch_size=64,
)


class TensorProduct(nn.Module):
    """The fusion tensor z_t x z_a x z_v, z_u = [1; R_u] (Zadeh et al. 2017, Eq. 2), and a linear map of it.

    y_h = b_h + sum_avt W_havt D(z_a,a z_v,v z_t,t), D being dropout. The map is the first layer of the
    paper's sentiment inference sub-network; so the tensor, a million elements for each clip, is never stored: it is
    computed, dropped out and summed for one audio unit at a time, and again for the gradients.

    ``weight.<a>`` is W_.a.., shape (hidden, 1 + vision, 1 + text), one for each of the 1 + audio units, the 1
    being the first of each axis; stacked along a second axis and flattened to two dimensions they are the
    weight of a linear layer over the flattened tensor. They are separate so that a training step needs
    the gradient of one of them at a time (`training.adam`).
    """

    def __init__(self, text: int, audio: int, vision: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.ParameterList(torch.empty(hidden, 1 + vision, 1 + text) for _ in range(1 + audio))
        self.bias = nn.Parameter(torch.empty(hidden))
        self.dropout = dropout
        bound = ((1 + audio) * (1 + vision) * (1 + text)) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Map shapes (B, D_u) to (B, hidden)."""
        pair = (with_one(vision)[:, :, None] * with_one(text)[:, None, :]).flatten(1)  # z_v x z_t
        dropout = self.dropout if self.training else 0.0
        dropped = Dropped(pair.detach(), dropout, int(torch.randint(2**62, ()))) if dropout else None
        products = [
            _Product.apply(pair, weight, dropped, unit)  # type: ignore[no-untyped-call]
            for unit, weight in enumerate(self.weight)
        ]
        mapped = torch.einsum("ba,abh->bh", with_one(audio), torch.stack(products))
        return mapped / (1 - dropout) + self.bias


class _Product(torch.autograd.Function):
    """sum_p W_hp D(x_p), D being dropout, x shape (B, P), W shape (H, ...); the gradients draw the mask again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dropped: Dropped | None, unit: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dropped, ctx.unit = dropped, unit
        return (x if dropped is None else dropped.values(unit)) @ weight.flatten(1).T

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dropped = ctx.dropped
        to_weight = gradient.T @ (x if dropped is None else dropped.values(ctx.unit))
        to_x = gradient @ weight.flatten(1)
        if dropped is not None:
            to_x *= dropped.mask  # as drawn for the values
        return to_x, to_weight.view_as(weight), None, None


class Dropped:
    """Dropout of one tensor, drawn several times, not scaled up: equal numbers give equal masks.

    Two random bytes decide on one element: a tenth of the cost of a Bernoulli draw. The buffers are as large
    as a gradient, so they are allocated once: allocated in every call they would fragment the heap.

    Attributes
    ----------
    mask
        Elements that the last call did not drop, bool.
    """

    def __init__(self, x: Tensor, dropout: float, seed: int) -> None:
        self._x, self._seed = x, seed
        self._draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        self._generator = torch.Generator(device=x.device)
        self._least = round(dropout * STEPS) - STEPS // 2
        self._values = torch.empty_like(x)
        self.mask = torch.empty_like(x, dtype=torch.bool)

    def values(self, number: int) -> Tensor:
        """Return the tensor with zeros for dropped elements; the next call overwrites it."""
        self._draws.random_(-(2**63), None, generator=self._generator.manual_seed(self._seed + number))
        halves = self._draws.view(torch.int16)[: self._x.numel()].view(self._x.shape)
        torch.ge(halves, self._least, out=self.mask)
        return torch.mul(self._x, self.mask, out=self._values)


class BoundedHead(nn.Module):
    """The upper layers of the sentiment inference sub-network: two layers, then a sigmoid stretched to a range."""

    def __init__(self, hidden: int, output_range: float) -> None:
        super().__init__()
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, 1)
        self.output_range = output_range

    def forward(self, first: Tensor) -> Tensor:
        """Map the first layer, shape (B, hidden), before its ReLU, to shape (B,) within the range."""
        x: Tensor = self.linear_3(relu(self.linear_2(relu(first))))
        return self.output_range * (2 * torch.sigmoid(x) - 1).squeeze(-1)


@register_model(TensorFusionSettings, {"tfn": TFN, "mtfn": MTFN}, extends={"mtfn": "tfn"})
class TensorFusion(FusedSubnetworks):
    """Tensor fusion network, TFN (head M alone) or MTFN (M, T, A, V).

    ``fusion`` is the fusion tensor and the first layer after it, ``heads.M`` the later layers. With 768, 33 and
    709 columns TFN has 35,632,077 parameters, MTFN 140,957,188.
    """

    def __init__(self, settings: TensorFusionSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings, widths)
        hidden = settings.head_widths["M"]
        self.fusion = TensorProduct(
            self.sizes["T"], self.sizes["A"], self.sizes["V"], hidden, settings.head_dropout
        )
        self.heads = self.build_heads(settings, BoundedHead(hidden, settings.output_range))
