"""LMF and MLMF: the outer product of three representations, mapped by a weight tensor of low rank."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks, SubnetworkSettings, with_one
from triptych.pipeline.trainer.settings import Count, Decays, Dropouts, Positive, Task, Widths
from triptych.pipeline.trainer.systems import register_model


class LowRankSettings(SubnetworkSettings):
    """LMF (M alone) and MLMF (M, T, A, V). M is a linear map of the fused ranks, without hidden units."""

    family: Literal["low-rank"] = "low-rank"
    headless: ClassVar[frozenset[Task]] = frozenset({"M"})

    rank: Count
    factor_lr: Annotated[Positive, Field(description="Learning rate of the modality-specific factors.")]

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        return {**super().parameter_groups, "fusion.": {"lr": self.factor_lr}}


# The reference's tuned settings for CH-SIMS.
LMF = LowRankSettings(
    hidden=Widths(text=64, audio=16, vision=64),
    text_out=32,
    dropout=Dropouts(text=0.2, audio=0.2, vision=0.2),
    head_widths={},
    head_dropout=0.2,
    task_weights={"M": 1.0},
    subnetwork_decay=Decays(text=5e-3, audio=5e-3, vision=5e-3),
    weight_decay=5e-3,
    learning_rate=2e-3,
    batch_size=64,
    rank=4,
    factor_lr=5e-4,
)
MLMF = LowRankSettings(
    hidden=Widths(text=256, audio=32, vision=256),
    text_out=128,
    dropout=Dropouts(text=0.3, audio=0.3, vision=0.3),
    head_widths={"T": 8, "A": 4, "V": 32},
    head_dropout=0.4,
    task_weights={"M": 0.2, "T": 1.0, "A": 0.4, "V": 0.8},
    subnetwork_decay=Decays(text=1e-4, audio=0.0, vision=1e-4),
    weight_decay=5e-3,
    learning_rate=1e-3,
    batch_size=128,
    rank=3,
    factor_lr=1e-3,
)


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


@register_model(LowRankSettings, {"lmf": LMF, "mlmf": MLMF}, extends={"mlmf": "lmf"})
class LowRankFusion(FusedSubnetworks):
    """Low-rank multimodal fusion, LMF (head M alone) or MLMF (M, T, A, V).

    With 768, 33 and 709 columns LMF has 272,381 parameters, MLMF 1,413,392.
    """

    def __init__(self, settings: LowRankSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings, widths)
        self.fusion = LowRankProduct(self.sizes["T"], self.sizes["A"], self.sizes["V"], settings.rank)
        self.heads = self.build_heads(settings, RankHead(settings.rank))
