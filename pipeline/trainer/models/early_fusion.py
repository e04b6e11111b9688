"""EF-LSTM: one LSTM over the three modalities side by side, token by token."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.lstm import PackedLSTM, Packing
from triptych.pipeline.trainer.models.subnetworks import Perceptron
from triptych.pipeline.trainer.models.system import System
from triptych.pipeline.trainer.settings import Count, Fraction, SystemSettings, View, Width
from triptych.pipeline.trainer.systems import register_model

MOMENTUM = 0.1  # of running statistics, as in nn.BatchNorm1d


class EarlyFusionSettings(SystemSettings):
    """EF-LSTM."""

    family: Literal["early-fusion"] = "early-fusion"
    reads: ClassVar[View] = "tokens"
    cost: ClassVar[float] = 2.5

    hidden: Width
    layers: Count
    dropout: Fraction


# The reference's tuned settings for CH-SIMS.
EF_LSTM = EarlyFusionSettings(
    hidden=32,
    layers=3,
    dropout=0.5,
    task_weights={"M": 1.0},
    weight_decay=1e-3,
    learning_rate=5e-4,
    batch_size=128,
)


class StepNorm(nn.BatchNorm1d):
    """Batch normalisation for each time step, over all columns of the clips that have this step.

    The running statistics of a step without clips in the batch do not change.
    """

    running_mean: Tensor
    running_var: Tensor

    def forward(self, rows: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the scale and the shift of packed rows, shape (N, D): shape (N, 1) each."""
        reached = len(packing.sizes)
        mean, variance = self.running_mean[:reached], self.running_var[:reached]
        if self.training:
            clips = torch.tensor(packing.sizes, dtype=rows.dtype, device=rows.device)

            def by_step(values: Tensor) -> Tensor:
                return torch.zeros_like(clips).index_add(0, packing.steps, values) / clips

            row_variance, row_mean = torch.var_mean(rows, dim=1, correction=0)
            mean = by_step(row_mean)
            variance = by_step(row_variance + (row_mean - mean[packing.steps]).square())
            values = clips * rows.shape[1]
            self._update_running(mean.detach(), (variance * values / (values - 1).clamp(min=1)).detach())
        scale = self.weight[:reached] * (variance + self.eps).rsqrt()
        shift = self.bias[:reached] - mean * scale
        return scale[packing.steps, None], shift[packing.steps, None]

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics of the steps that have clips, with the sample variance."""
        for running, measured in ((self.running_mean, mean), (self.running_var, variance)):
            running[: len(measured)].lerp_(measured, MOMENTUM)


@register_model(EarlyFusionSettings, {"ef-lstm": EF_LSTM})
class EarlyFusion(System):
    """EF-LSTM (Williams et al. 2018): h = LSTM(N([x_t; x_a; x_v])), y = W_2 ReLU(W_1 h_T), token by token.

    Audio and vision come as means over each token's share of the clip. ``norm`` is N, ``lstm`` has three
    layers, read at the text's last token; ``head`` holds W_1 and W_2. With 768, 33 and 709 columns and texts
    of up to 39 tokens there are 215,695 parameters.

    Parameters
    ----------
    text_length
        Longest text.
    """

    def __init__(self, settings: EarlyFusionSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings)
        between = settings.dropout if settings.layers > 1 else 0.0
        self.norm = StepNorm(text_length)
        self.lstm = PackedLSTM(sum(widths), settings.hidden, num_layers=settings.layers, dropout=between)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = Perceptron(settings.hidden, settings.hidden, 1, settings.dropout)

    def forward(self, text: Padded, audio: Padded, vision: Padded) -> dict[str, Tensor]:
        """Predict M, shape (B,), from three inputs of the text's lengths, shapes (B, L, widths)."""
        packing = Packing.of(text.lengths, text.values.device)
        rows = torch.cat([packing.pack(part.values) for part in (text, audio, vision)], dim=1)
        # Normalised rows are never stored: N(x) is x times a scale for each step, plus a shift for each step.
        states = self.lstm(rows, packing, *self.norm(rows, packing))
        return {"M": self.head(self.dropout(states[packing.last])).squeeze(-1)}
