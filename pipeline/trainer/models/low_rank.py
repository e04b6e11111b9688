"""LMF and MLMF: the outer product of three representations, mapped by a weight tensor of low rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks, with_one
from triptych.pipeline.trainer.settings import LowRankSettings


class LowRankProduct(nn.Module):
    """F_i = (w_t^(i) . z_t) (w_a^(i) . z_a) (w_v^(i) . z_v), z_u = [1; R_u] (Liu et al. 2018, Eq. 6).

    ``text``, ``audio`` and ``vision`` hold the modality-specific factors w_u^(i), a row for each rank i; the
    1 is the first column. The paper adds the ranks up; here head M weighs them first, as its authors'
    program does.
    """

    def __init__(self, text: int, audio: int, vision: int, rank: int) -> None:
        super().__init__()
        self.text = nn.Parameter(torch.empty(rank, 1 + text))
        self.audio = nn.Parameter(torch.empty(rank, 1 + audio))
        self.vision = nn.Parameter(torch.empty(rank, 1 + vision))
        for factor in self.parameters():
            nn.init.xavier_normal_(factor)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Map shapes (B, D_u) to (B, rank)."""
        return (
            with_one(text)
            @ self.text.T
            * (with_one(audio) @ self.audio.T)
            * (with_one(vision) @ self.vision.T)
        )


class RankHead(nn.Linear):
    """y = sum_i weight_i F_i + bias."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, 1)
        nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map shape (B, rank) to (B,)."""
        return super().forward(input).squeeze(-1)


class LowRankFusion(FusedSubnetworks):
    """Low-rank multimodal fusion, LMF (head M alone) or MLMF (M, T, A, V).

    With 768, 33 and 709 columns LMF has 272,381 parameters, MLMF 1,413,392.
    """

    def __init__(self, settings: LowRankSettings, widths: InputWidths) -> None:
        super().__init__(settings, widths)
        self.fusion = LowRankProduct(self.sizes["T"], self.sizes["A"], self.sizes["V"], settings.rank)
        self.heads = self.build_heads(settings, RankHead(settings.rank))
