"""One modality alone, as in the paper's Table 4."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.subnetworks import (
    Head,
    PooledSubnetwork,
    SubnetworkSettings,
    TextSubnetwork,
)
from triptych.pipeline.trainer.models.system import System
from triptych.pipeline.trainer.settings import (
    MODALITIES,
    TASK_OF_MODALITY,
    Decay,
    Fraction,
    SystemSettings,
    View,
    Width,
)
from triptych.pipeline.trainer.systems import register_model


class UnimodalSettings(SystemSettings):
    """One modality alone: its sub-network, and a head for the one label that it is trained on (Table 4)."""

    family: Literal["unimodal"] = "unimodal"
    reads: ClassVar[View] = "mean"

    modality: Literal["text", "audio", "vision"]
    hidden: Width
    out: Annotated[Width, Field(description="Width of the representation.")]
    dropout: Fraction
    head_width: Width
    head_dropout: Fraction
    subnetwork_decay: Decay

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        return {"subnetwork.": {"weight_decay": self.subnetwork_decay}}

    @classmethod
    def alone(
        cls, system: SubnetworkSettings, modality: Literal["text", "audio", "vision"]
    ) -> UnimodalSettings:
        """Make the unimodal system of one modality from a multi-task system's settings."""
        task = TASK_OF_MODALITY[modality]
        hidden: int = getattr(system.hidden, modality)
        return cls(
            modality=modality,
            hidden=hidden,
            out=system.text_out if modality == "text" else hidden,
            dropout=getattr(system.dropout, modality),
            head_width=system.head_widths[task],
            head_dropout=system.head_dropout,
            subnetwork_decay=getattr(system.subnetwork_decay, modality),
            task_weights={"M": 1.0},
            weight_decay=system.weight_decay,
            learning_rate=system.learning_rate,
            batch_size=system.batch_size,
            patience=system.patience,
            max_epochs=system.max_epochs,
        )


@register_model(UnimodalSettings)
class Unimodal(System):
    """y = H_u(S_u(x_u)): a sub-network and its head, as the multi-task systems have them."""

    def __init__(self, settings: UnimodalSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings)
        self.position = MODALITIES.index(settings.modality)
        width, hidden, dropout = widths[self.position], settings.hidden, settings.dropout
        self.subnetwork: nn.Module = (
            TextSubnetwork(width, hidden, settings.out, dropout)
            if settings.modality == "text"
            else PooledSubnetwork(width, hidden, dropout)
        )
        self.head = Head(settings.out, settings.head_width, settings.head_dropout)

    def forward(self, text: Padded, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Predict the one label of this modality, under M, shape (B,); the two other inputs are ignored."""
        return {"M": self.head(self.subnetwork((text, audio, vision)[self.position]))}
