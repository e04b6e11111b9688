"""The systems by name and every number of theirs. No torch and no numpy: the command line reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from extractors.settings import Settings

Task = Literal["M", "T", "A", "V"]
TASKS: tuple[Task, ...] = ("M", "T", "A", "V")  # the columns of every label array, in this order
MODALITIES = ("text", "audio", "vision")
TASK_OF_MODALITY: dict[str, Task] = {"text": "T", "audio": "A", "vision": "V"}
SEEDS = (1, 12, 123, 1234, 12345)  # the paper's five runs

Fraction = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]


class Widths(Settings):
    """Hidden units of each modality's sub-network."""

    text: Width
    audio: Width
    vision: Width


class Dropouts(Settings):
    """Dropout rate in each modality's sub-network."""

    text: Fraction
    audio: Fraction
    vision: Fraction


class Decays(Settings):
    """Adam's weight decay of each modality's sub-network: 2 beta_j of Eq. 4."""

    text: Decay
    audio: Decay
    vision: Decay


class LateFusionSettings(Settings):
    """Architecture, objective and optimisation of LF-DNN and MLF-DNN.

    The tasks are the keys of `head_widths`: M alone is LF-DNN, more of them make it MLF-DNN.
    """

    hidden: Widths
    text_out: Annotated[Width, Field(description="Width of the text representation, behind the LSTM.")]
    dropout: Dropouts
    head_widths: Annotated[dict[Task, Width], Field(description="Hidden units of each task's head.")]
    head_dropout: Fraction
    task_weights: Annotated[dict[Task, Annotated[float, Field(ge=0)]], Field(description="alpha_i of Eq. 4.")]
    subnetwork_decay: Decays
    weight_decay: Annotated[Decay, Field(description="Adam's weight decay of the heads.")]
    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=2)]
    patience: Annotated[
        int, Field(ge=1, description="Epochs without a better validation loss before the end.")
    ] = 8
    max_epochs: Annotated[int, Field(ge=1, description="The end in any case.")] = 200

    @model_validator(mode="after")
    def _agree(self) -> LateFusionSettings:
        if "M" not in self.head_widths:
            raise ValueError("head_widths lacks M, the task that early stopping watches")
        if self.head_widths.keys() != self.task_weights.keys():
            raise ValueError("head_widths and task_weights name different tasks")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have a head, in the order of the label columns."""
        return tuple(task for task in TASKS if task in self.head_widths)


# The reference's tuned settings for CH-SIMS.
MODELS: dict[str, LateFusionSettings] = {
    "lf-dnn": LateFusionSettings(
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
    ),
    "mlf-dnn": LateFusionSettings(
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
    ),
}
