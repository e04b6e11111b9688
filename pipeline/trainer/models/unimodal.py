"""One modality alone, as in the paper's Table 4."""

from __future__ import annotations

from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.subnetworks import Head, PooledSubnetwork, TextSubnetwork
from triptych.pipeline.trainer.settings import MODALITIES, UnimodalSettings


class Unimodal(nn.Module):
    """y = H_u(S_u(x_u)): a sub-network and its head, as the multi-task systems have them."""

    def __init__(self, settings: UnimodalSettings, widths: InputWidths) -> None:
        super().__init__()
        self.place = MODALITIES.index(settings.modality)
        width, hidden, dropout = widths[self.place], settings.hidden, settings.dropout
        self.subnetwork: nn.Module = (
            TextSubnetwork(width, hidden, settings.out, dropout)
            if settings.modality == "text"
            else PooledSubnetwork(width, hidden, dropout)
        )
        self.head = Head(settings.out, settings.head_width, settings.head_dropout)

    def forward(self, text: Padded, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Predict the label that is learnt, under M, shape (B,); the two other inputs are not looked at."""
        return {"M": self.head(self.subnetwork((text, audio, vision)[self.place]))}
