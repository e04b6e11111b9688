"""Parts that several families share: sub-networks, heads, and the base class that joins them."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.lstm import PackedLSTM, Packing
from triptych.pipeline.trainer.models.system import System
from triptych.pipeline.trainer.settings import (
    MODALITIES,
    Decays,
    Dropouts,
    Fraction,
    SystemSettings,
    Task,
    View,
    Width,
    Widths,
)


class SubnetworkSettings(SystemSettings):
    """A text, an audio and a visual sub-network, a fusion of their representations, one head for each task."""

    reads: ClassVar[View] = "mean"
    headless: ClassVar[frozenset[Task]] = frozenset()  # tasks whose head has no hidden units

    hidden: Widths
    text_out: Annotated[Width, Field(description="Width of the text representation, after the LSTM.")]
    # The reference's text dropout has no effect: it is applied between the layers of an LSTM that has one layer. Here
    # it is applied to the text representation, as for audio and vision.
    dropout: Dropouts
    head_widths: Annotated[dict[Task, Width], Field(description="Hidden units of each task's head.")]
    head_dropout: Fraction
    subnetwork_decay: Decays

    @model_validator(mode="after")
    def _agree(self) -> SubnetworkSettings:
        if self.head_widths.keys() != self.task_weights.keys() - self.headless:
            raise ValueError("head_widths and task_weights name different tasks")
        return self

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        return {f"{name}.": {"weight_decay": getattr(self.subnetwork_decay, name)} for name in MODALITIES}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that also accepts a batch of one.

    A single sample has no variance: in training it is normalised by the running statistics and does not change them.
    Any larger batch is normalised as usual.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise shape (B, D) by column."""
        if self.training and len(input) == 1:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class TextSubnetwork(nn.Module):
    """LSTM over a text's token embeddings, read at the text's own last token, then a linear map.

    Padding is left out by packing: it affects neither the state nor the cost.
    """

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = PackedLSTM(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, out)

    def forward(self, text: Padded) -> Tensor:
        """Map tokens, shape (B, L, width), to one representation for each clip, shape (B, out)."""
        packing = Packing.of(text.lengths, text.values.device)
        states = self.lstm(packing.pack(text.values), packing)
        out: Tensor = self.project(self.dropout(states[packing.last]))
        return out


class PooledSubnetwork(nn.Module):
    """Three-layer DNN over a clip's mean audio or vision row."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Map shape (B, width) to shape (B, hidden)."""
        x = self.dropout(self.norm(rows))
        return relu(self.linear_3(relu(self.linear_2(relu(self.linear_1(x))))))


class Head(nn.Module):
    """Three-layer DNN from a representation to one task's sentiment."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, 1)

    def forward(self, representation: Tensor) -> Tensor:
        """Map shape (B, width) to shape (B,)."""
        x = relu(self.linear_1(self.dropout(representation)))
        out: Tensor = self.linear_3(relu(self.linear_2(x)))
        return out.squeeze(-1)


class Perceptron(nn.Module):
    """Two linear maps with a hidden layer between them, dropout after its ReLU."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear_2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., width) to shape (..., out)."""
        out: Tensor = self.linear_2(self.dropout(relu(self.linear_1(x))))
        return out


class FusedSubnetworks(System):
    """Three sub-networks, a fusion of their representations, one head for each task: the paper's Figure 3.

    Symbols of the paper, for a modality u of {t, a, v}: ``text``, ``audio`` and ``vision`` are S_u, which
    give R_u; ``fusion`` makes F of the three; ``heads.M`` maps F, and ``heads.T``, ``heads.A`` and
    ``heads.V`` map R_t, R_a and R_v, to y^_i. The sub-networks are what Eq. 4 calls shared: every head that
    reads them trains them. A derived class defines the fusion and head M.

    Parameters
    ----------
    settings
        Widths, dropout rates and which heads there are.
    widths
        Columns of the three inputs.
    """

    fusion: nn.Module
    heads: nn.ModuleDict

    def __init__(self, settings: SubnetworkSettings, widths: InputWidths) -> None:
        super().__init__(settings)
        hidden, dropout = settings.hidden, settings.dropout
        self.text = TextSubnetwork(widths.text, hidden.text, settings.text_out, dropout.text)
        self.audio = PooledSubnetwork(widths.audio, hidden.audio, dropout.audio)
        self.vision = PooledSubnetwork(widths.vision, hidden.vision, dropout.vision)
        self.sizes: dict[Task, int] = {"T": settings.text_out, "A": hidden.audio, "V": hidden.vision}

    def build_heads(self, settings: SubnetworkSettings, fused: nn.Module) -> nn.ModuleDict:
        """Make one head for each task: ``fused`` for M, the usual one for T, A and V where they are tasks."""
        alone: dict[str, nn.Module] = {
            task: Head(self.sizes[task], settings.head_widths[task], settings.head_dropout)
            for task in settings.tasks
            if task != "M"
        }
        return nn.ModuleDict({"M": fused, **alone})

    def represent(self, text: Padded, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Return R_t, R_a and R_v, under the names of the tasks that read them; inputs as `forward`.

        Returns
        -------
        T shape (B, text_out), A (B, hidden.audio), V (B, hidden.vision).
        """
        return {"T": self.text(text), "A": self.audio(audio), "V": self.vision(vision)}

    def forward(self, text: Padded, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Predict the sentiment of every task that has a head.

        Parameters
        ----------
        text
            Token embeddings, shape (B, L, widths.text).
        audio, vision
            Mean of each clip's usable rows, shapes (B, widths.audio) and (B, widths.vision).

        Returns
        -------
        By task, shape (B,) each.
        """
        states = self.represent(text, audio, vision)
        states["M"] = self.fusion(states["T"], states["A"], states["V"])
        return {task: head(states[task]) for task, head in self.heads.items()}


def with_one(representation: Tensor) -> Tensor:
    """Put the constant 1 before a representation, (B, D) to (B, 1 + D), so products include each one alone."""
    return torch.nn.functional.pad(representation, (1, 0), value=1.0)
