"""LF-DNN and MLF-DNN: three concatenated representations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks, Head, SubnetworkSettings
from triptych.pipeline.trainer.settings import Decays, Dropouts, Widths
from triptych.pipeline.trainer.systems import register_model


class LateFusionSettings(SubnetworkSettings):
    """LF-DNN (head M alone) and MLF-DNN (M, T, A, V)."""

    family: Literal["late-fusion"] = "late-fusion"


# The reference's tuned settings for CH-SIMS.
LF_DNN = LateFusionSettings(
    hidden=Widths(text=128, audio=32, vision=128),
    text_out=256,
    dropout=Dropouts(text=0.3, audio=0.3, vision=0.3),
    head_widths={"M": 32},
    head_dropout=0.5,
    task_weights={"M": 1.0},
    subnetwork_decay=Decays(text=5e-3, audio=5e-3, vision=5e-3),
    weight_decay=5e-3,
    learning_rate=5e-3,
    batch_size=128,
)
MLF_DNN = LateFusionSettings(
    hidden=Widths(text=64, audio=32, vision=64),
    text_out=32,
    dropout=Dropouts(text=0.3, audio=0.3, vision=0.3),
    head_widths={"M": 32, "T": 16, "A": 4, "V": 32},
    head_dropout=0.5,
    task_weights={"M": 0.6, "T": 0.2, "A": 0.8, "V": 0.8},
    subnetwork_decay=Decays(text=1e-4, audio=1e-3, vision=1e-4),
    weight_decay=0.0,
    learning_rate=2e-3,
    batch_size=32,
)


class Concatenation(nn.Module):
    """F = [R_t; R_a; R_v]."""

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Join shapes (B, D_u) to (B, sum of D_u)."""
        return torch.cat([text, audio, vision], dim=-1)


@register_model(LateFusionSettings, {"lf-dnn": LF_DNN, "mlf-dnn": MLF_DNN}, extends={"mlf-dnn": "lf-dnn"})
class LateFusion(FusedSubnetworks):
    """Late fusion of the CH-SIMS paper (Yu et al. 2020), single-task (head M alone) or multi-task (M, T, A, V).

    With the paper's features, 768, 33 and 709 columns, LF-DNN has 635,821 parameters and MLF-DNN 283,388.
    """

    def __init__(self, settings: LateFusionSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings, widths)
        self.fusion = Concatenation()
        fused = Head(sum(self.sizes.values()), settings.head_widths["M"], settings.head_dropout)
        self.heads = self.build_heads(settings, fused)
