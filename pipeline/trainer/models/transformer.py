"""MulT: every modality attends to the rows of every other modality, each at its own rate."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import dropout, max_pool1d, pad, scaled_dot_product_attention

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.subnetworks import Perceptron
from triptych.pipeline.trainer.models.system import System
from triptych.pipeline.trainer.settings import (
    MODALITIES,
    Count,
    Dropouts,
    Fraction,
    SystemSettings,
    View,
    Width,
    Widths,
)
from triptych.pipeline.trainer.systems import register_model


class TransformerSettings(SystemSettings):
    """MulT: every modality attends to every other, unaligned."""

    family: Literal["transformer"] = "transformer"
    reads: ClassVar[View] = "rows"
    cost: ClassVar[float] = 300

    width: Annotated[Width, Field(description="Columns of each modality after its convolution.")]
    heads: Count
    layers: Annotated[Count, Field(description="Depth of each crossmodal transformer.")]
    memory_layers: Annotated[Count, Field(description="Depth of each modality's own transformer.")]
    kernels: Annotated[Widths, Field(description="Rows that each modality's convolution spans.")]
    attention_dropout: Annotated[Dropouts, Field(description="By the modality that is attended to.")]
    memory_dropout: Annotated[Fraction, Field(description="Of attention in the modality's own transformer.")]
    text_dropout: Fraction
    embedding_dropout: Fraction
    relu_dropout: Fraction
    residual_dropout: Fraction
    output_dropout: Fraction
    positions: Annotated[bool, Field(description="Add sinusoidal positions to the rows.")] = True
    causal: Annotated[
        bool, Field(description="A row attends to no later row (later by more than the lengths differ by).")
    ] = False

    def as_mmsa(self) -> SystemSettings:
        changes = {"positions": False, "causal": True, "clip_batches": True}
        return super().as_mmsa().model_copy(update=changes)

    @model_validator(mode="after")
    def _divides(self) -> TransformerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


# The reference's tuned settings for CH-SIMS.
MULT = TransformerSettings(
    width=50,
    heads=10,
    layers=2,
    memory_layers=3,
    kernels=Widths(text=5, audio=1, vision=1),
    attention_dropout=Dropouts(text=0.2, audio=0.1, vision=0.0),
    memory_dropout=0.2,
    text_dropout=0.3,
    embedding_dropout=0.1,
    relu_dropout=0.0,
    residual_dropout=0.2,
    output_dropout=0.1,
    task_weights={"M": 1.0},
    weight_decay=1e-3,
    learning_rate=2e-3,
    batch_size=16,
    accumulate=8,
    gradient_clip=0.6,
)


class Convolution(nn.Module):
    """Temporal convolution without bias over whole windows of rows, to the common width (Tsai et al., Eq. 1).

    A clip shorter than the window is padded with zeros to one window; rows that do not count are zeros.
    """

    def __init__(self, columns: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(columns, width, kernel, bias=False)

    def forward(self, rows: Padded) -> Padded:
        """Map (B, L, columns) to (B, L - kernel + 1, width), masked where no row of a window counts."""
        kernel = self.conv.kernel_size[0]
        short = max(0, kernel - rows.values.shape[1])
        values, mask = pad(rows.cleared, (0, 0, 0, short)), pad(rows.mask, (0, short))
        lengths = (rows.lengths - kernel + 1).clamp(min=1)
        counts = max_pool1d(mask[:, None].to(values.dtype), kernel, stride=1)[:, 0] > 0
        inside = torch.arange(counts.shape[1]) < lengths[:, None]
        return Padded(
            self.conv(values.transpose(1, 2)).transpose(1, 2), counts & inside.to(mask.device), lengths
        )


class Attention(nn.Module):
    """Multi-head attention: softmax(Q K^T / sqrt(d)) V with Q = x W_q, K = y W_k, V = y W_v (Eq. 3)."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.heads, self.rate = heads, rate
        for part in (self.query, self.key, self.value, self.out):
            _initialise(part)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Attend from (B, L, width) to (B, S, width), where ``mask`` is true; shape (B, L, width).

        ``mask`` has shape (B, 1, S), or (B, L, S) where it differs between the target rows.
        """
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, x in ((self.query, target), (self.key, source), (self.value, source))
        )
        rate = self.rate if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None], dropout_p=rate)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """x' = x + A(N_1 x, N_1 y), x'' = x' + W_2 ReLU(W_1 N_2 x'), N being layer normalisations (Eq. 4).

    The residuals are x and x' as they are, as in the authors' program; the paper's formula adds N x and N x'.
    """

    def __init__(self, width: int, settings: TransformerSettings, rate: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, settings.heads, rate)
        self.norm_2 = nn.LayerNorm(width)
        self.feed = Perceptron(width, 4 * width, width, settings.relu_dropout)
        self.dropout = nn.Dropout(settings.residual_dropout)
        for part in (self.feed.linear_1, self.feed.linear_2):
            _initialise(part)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Let (B, L, width) attend to (B, S, width), where ``mask`` is true (see `Attention`)."""
        x = target + self.dropout(self.attention(self.norm_1(target), self.norm_1(source), mask))
        out: Tensor = x + self.dropout(self.feed(self.norm_2(x)))
        return out


class Transformer(nn.Module):
    """A sequence of blocks over rows that were scaled by sqrt(width) and given positions; then a normalisation."""

    def __init__(self, width: int, layers: int, settings: TransformerSettings, rate: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, settings, rate) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.embedding_dropout)
        self.positions, self.causal = settings.positions, settings.causal

    def embed(self, rows: Tensor) -> Tensor:
        """Scale rows, shape (B, L, width), and add their positions."""
        length, width = rows.shape[1:]
        scaled = math.sqrt(width) * rows
        out: Tensor = self.dropout(scaled + positions(length, width).to(rows) if self.positions else scaled)
        return out

    def attended(self, target: Padded, source: Padded) -> Tensor:
        """Return which source rows each target row attends to: (B, 1, S), or (B, L, S) if causal."""
        mask = source.mask
        if not self.causal:
            return mask[:, None]
        ahead = (source.lengths - target.lengths).abs()[:, None, None]
        steps = torch.arange(mask.shape[1]) - torch.arange(target.values.shape[1])[:, None]
        attended = mask[:, None] & (steps <= ahead).to(mask.device)
        # A row before the first source row that counts attends to all that count: to none would give NaN.
        return attended | (mask[:, None] & ~attended.any(dim=-1, keepdim=True))


class Crossmodal(Transformer):
    """A transformer whose every block attends to another modality's input rows (Z_b^[0])."""

    def forward(self, target: Padded, source: Padded) -> Tensor:
        """Let target rows, (B, L, width), attend to the source's; shape (B, L, width)."""
        x, y = self.embed(target.values), self.embed(source.values)
        attended = self.attended(target, source)
        for block in self.blocks:
            x = block(x, y, attended)
        out: Tensor = self.norm(x)
        return out


class Memory(Transformer):
    """A transformer that attends to its own rows, read at each clip's last row that counts.

    The last block is computed for that row alone, since no other row is read.
    """

    def forward(self, rows: Padded) -> Tensor:
        """Map rows of shape (B, L, width) to shape (B, width)."""
        mask = rows.mask
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        x, attended = self.embed(rows.values), self.attended(rows, rows)
        for block in self.blocks[:-1]:
            x = block(x, x, attended)
        clips = torch.arange(len(x), device=x.device)
        if attended.shape[1] > 1:
            attended = attended[clips, last, None]
        x = self.blocks[-1](x[clips, last, None], x, attended)
        out: Tensor = self.norm(x[:, 0])
        return out


@register_model(TransformerSettings, {"mult": MULT}, titles={"mult": "MulT"})
class CrossmodalTransformer(System):
    """Multimodal transformer for unaligned sequences (Tsai et al. 2019).

    Z_ba = ``crossmodal["a_b"]``: modality a attends to b, for all six pairs; Z_a = ``memory[a]`` of the two
    Z_ba side by side, read at the last row that counts; z = [Z_t; Z_a; Z_v]; y = w (z + W_2 ReLU(W_1 z)), of
    which ``residual`` holds W_1 and W_2, ``out`` w. ``convolutions`` map the modalities to one width.
    With 768, 33 and 709 columns there are 1,870,701 parameters. Every row may attend to every other row that
    counts, earlier or later, unless `causal`.
    """

    def __init__(self, settings: TransformerSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings)
        width, rates = settings.width, settings.attention_dropout
        self.convolutions = nn.ModuleDict(
            {
                name: Convolution(getattr(widths, name), width, getattr(settings.kernels, name))
                for name in MODALITIES
            }
        )
        self.crossmodal = nn.ModuleDict(
            {
                f"{target}_{source}": Crossmodal(width, settings.layers, settings, getattr(rates, source))
                for target in MODALITIES
                for source in _others(target)
            }
        )
        self.memory = nn.ModuleDict(
            {
                name: Memory(2 * width, settings.memory_layers, settings, settings.memory_dropout)
                for name in MODALITIES
            }
        )
        self.residual = Perceptron(6 * width, 6 * width, 6 * width, settings.output_dropout)
        self.out = nn.Linear(6 * width, 1)
        self.text_dropout = settings.text_dropout

    def forward(self, text: Padded, audio: Padded, vision: Padded) -> dict[str, Tensor]:
        """Predict M, shape (B,), from rows at three rates, shapes (B, L_u, widths)."""
        text = text._replace(values=dropout(text.cleared, self.text_dropout, self.training))
        inputs = dict(zip(MODALITIES, (text, audio, vision), strict=True))
        rows = {name: self.convolutions[name](padded) for name, padded in inputs.items()}
        states = []
        for target, padded in rows.items():
            crossed = [
                self.crossmodal[f"{target}_{source}"](padded, rows[source]) for source in _others(target)
            ]
            states.append(self.memory[target](padded._replace(values=torch.cat(crossed, dim=-1))))
        state = torch.cat(states, dim=-1)
        return {"M": self.out(state + self.residual(state)).squeeze(-1)}


def positions(length: int, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, 3.5), shape (length, width), counted from 1.

    The first half of the columns are sines, the second cosines, of i / 10000^(j / (width / 2 - 1)), as in the
    authors' program; an odd width ends in a column of zeros.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(1, length + 1, dtype=torch.float64)[:, None] * rates
    return pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def _others(target: str) -> tuple[str, ...]:
    return tuple(name for name in MODALITIES if name != target)


def _initialise(part: nn.Linear) -> None:
    nn.init.xavier_uniform_(part.weight)
    nn.init.zeros_(part.bias)
