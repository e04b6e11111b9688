"""Settings that every family of systems shares, and the names of tasks and modalities. Imports no torch, no numpy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from triptych.extractors.settings import Settings

Task = Literal["M", "T", "A", "V"]
TASKS: tuple[Task, ...] = ("M", "T", "A", "V")  # the columns of every label array, in this order
MODALITIES = ("text", "audio", "vision")
TASK_OF_MODALITY: dict[str, Task] = {"text": "T", "audio": "A", "vision": "V"}
SEEDS = (1, 12, 123, 1234, 12345)  # the paper's five runs

# A clip's audio or vision: its mean, a mean for each token, its mean at every token, or its rows.
View = Literal["mean", "tokens", "repeated", "rows"]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Widths(Settings):
    """One number of units for each modality."""

    text: Width
    audio: Width
    vision: Width


class Dropouts(Settings):
    """One dropout rate for each modality."""

    text: Fraction
    audio: Fraction
    vision: Fraction


class Decays(Settings):
    """Adam's weight decay of each modality's sub-network: 2 beta_j of Eq. 4."""

    text: Decay
    audio: Decay
    vision: Decay


class Layer(Settings):
    """The hidden layer of a small network: its units, and the dropout after them."""

    width: Width
    dropout: Fraction


class SystemSettings(Settings):
    """What every system has: its tasks, objective and optimisation.

    A family of systems derives its own class from this one, adds a field ``family`` whose only value is the
    family's name, and registers it (`systems.register_model`). The tasks are the keys of `task_weights`; M is
    always one of them.

    Attributes
    ----------
    reads
        How audio and vision are given to the family's systems; text always comes token by token.
    cost
        Rough cost of an epoch; LMF's is 1. Expensive trainings start first, so that processes end together.
    """

    reads: ClassVar[View]
    cost: ClassVar[float] = 1

    task_weights: Annotated[dict[Task, Annotated[float, Field(ge=0)]], Field(description="alpha_i of Eq. 4.")]
    weight_decay: Annotated[Decay, Field(description="Adam's, for parameters without a decay of their own.")]
    learning_rate: Positive
    batch_size: Annotated[int, Field(ge=2)]
    accumulate: Annotated[Count, Field(description="Batches whose gradients are summed for one step.")] = 1
    gradient_clip: Annotated[
        Positive | None, Field(description="Largest absolute value of a gradient's element.")
    ] = None
    clip_batches: Annotated[
        bool, Field(description="Clip the summed gradients after every batch, not only before a step.")
    ] = False
    patience: Annotated[
        Count, Field(description="Epochs without a lower validation loss after which training stops.")
    ] = 8
    max_epochs: Annotated[Count, Field(description="Largest number of epochs.")] = 200
    padding: Annotated[
        Literal["masked", "counted"],
        Field(description="counted: zeros after a clip's end count as rows, as in MMSA."),
    ] = "masked"

    @model_validator(mode="after")
    def _has_m(self) -> SystemSettings:
        if "M" not in self.task_weights:
            raise ValueError("task_weights has no M, the task that early stopping watches")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are predicted, in the order of the label columns."""
        return tuple(task for task in TASKS if task in self.task_weights)

    @property
    def view(self) -> View:
        """How audio and vision are given to the system."""
        return self.reads

    @property
    def needs_rows(self) -> bool:
        """Whether the system needs a clip's audio and vision rows, not only their mean without padding."""
        return self.view != "mean" or self.padding == "counted"

    def as_mmsa(self) -> SystemSettings:
        """Return the same settings as the reference computes them, for comparison (``--compat mmsa``)."""
        return self.model_copy(update={"padding": "counted"})

    def for_aligned(self) -> SystemSettings:
        """Return the same settings for inputs with one row for each word in every modality (``--align words``)."""
        return self

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        """Adam's options for parameters by the beginning of their names; all others take the system's own."""
        return {}
