"""LF-DNN and MLF-DNN: three representations laid side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks, Head
from triptych.pipeline.trainer.settings import LateFusionSettings


class Concatenation(nn.Module):
    """F = [R_t; R_a; R_v]."""

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Join shapes (B, D_u) to (B, sum of D_u)."""
        return torch.cat([text, audio, vision], dim=-1)


class LateFusion(FusedSubnetworks):
    """Late fusion of the CH-SIMS paper (Yu et al. 2020), single-task (head M alone) or multi-task (M, T, A, V).

    With the paper's features, 768, 33 and 709 columns, LF-DNN has 635,821 parameters and MLF-DNN 283,388.
    """

    def __init__(self, settings: LateFusionSettings, widths: InputWidths) -> None:
        super().__init__(settings, widths)
        self.fusion = Concatenation()
        whole = Head(sum(self.sizes.values()), settings.head_widths["M"], settings.head_dropout)
        self.heads = self.build_heads(settings, whole)
