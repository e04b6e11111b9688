"""What each family of systems can be set to. No torch and no numpy: the command line reads it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from triptych.extractors.settings import Settings

Task = Literal["M", "T", "A", "V"]
TASKS: tuple[Task, ...] = ("M", "T", "A", "V")  # the columns of every label array, in this order
MODALITIES = ("text", "audio", "vision")
TASK_OF_MODALITY: dict[str, Task] = {"text": "T", "audio": "A", "vision": "V"}
SEEDS = (1, 12, 123, 1234, 12345)  # the paper's five runs

View = Literal["mean", "words", "rows"]  # a clip's audio or vision: its mean, a mean a word, or its rows

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
    """The hidden layer of a small network: its units, and the dropout behind them."""

    width: Width
    dropout: Fraction


class SystemSettings(Settings):
    """What every system has: its tasks, objective and optimisation.

    The tasks are the keys of `task_weights`; M is always one of them.
    """

    reads: ClassVar[View]

    task_weights: Annotated[dict[Task, Annotated[float, Field(ge=0)]], Field(description="alpha_i of Eq. 4.")]
    weight_decay: Annotated[Decay, Field(description="Adam's, for what has no decay of its own.")]
    learning_rate: Positive
    batch_size: Annotated[int, Field(ge=2)]
    accumulate: Annotated[Count, Field(description="Batches whose gradients are summed for one step.")] = 1
    clip: Annotated[Positive | None, Field(description="Largest absolute value of a gradient's element.")] = (
        None
    )
    patience: Annotated[
        Count, Field(description="Epochs without a better validation loss before the end.")
    ] = 8
    max_epochs: Annotated[Count, Field(description="The end in any case.")] = 200
    padding: Annotated[
        Literal["masked", "counted"],
        Field(description="counted: zeros behind a clip's end are rows like any other, as in MMSA."),
    ] = "masked"

    @model_validator(mode="after")
    def _has_m(self) -> SystemSettings:
        if "M" not in self.task_weights:
            raise ValueError("task_weights lacks M, the task that early stopping watches")
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
        """Whether a clip's mean audio and vision row, which leave padding out, do not suffice."""
        return self.view != "mean" or self.padding == "counted"

    def as_mmsa(self) -> SystemSettings:
        """The same with the reference's padding, so that both can be compared (``--compat mmsa``)."""
        return self.model_copy(update={"padding": "counted"})

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        """Adam's options for the parameters whose names begin so; all others take the system's own."""
        return {}


class SubnetworkSettings(SystemSettings):
    """A text, an audio and a visual sub-network, a fusion of what they give, one head a task."""

    reads: ClassVar[View] = "mean"
    headless: ClassVar[frozenset[Task]] = frozenset()  # tasks whose head has no hidden units

    hidden: Widths
    text_out: Annotated[Width, Field(description="Width of the text representation, behind the LSTM.")]
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


class LateFusionSettings(SubnetworkSettings):
    """LF-DNN (head M alone) and MLF-DNN (M, T, A, V)."""

    family: Literal["late-fusion"] = "late-fusion"


class TensorFusionSettings(SubnetworkSettings):
    """TFN (head M alone) and MTFN (M, T, A, V). `head_dropout` falls on the fusion tensor too."""

    family: Literal["tensor-fusion"] = "tensor-fusion"

    output_range: Annotated[Positive, Field(description="M is squashed between minus and plus this.")] = 3.0


class LowRankSettings(SubnetworkSettings):
    """LMF (M alone) and MLMF (M, T, A, V). M is a linear map of the fused ranks, without hidden units."""

    family: Literal["low-rank"] = "low-rank"
    headless: ClassVar[frozenset[Task]] = frozenset({"M"})

    rank: Count
    factor_lr: Annotated[Positive, Field(description="Learning rate of the modality-specific factors.")]

    @property
    def parameter_groups(self) -> dict[str, dict[str, float]]:
        return {**super().parameter_groups, "fusion.": {"lr": self.factor_lr}}


class UnimodalSettings(SystemSettings):
    """One modality alone: its sub-network, and a head for the one label that is learnt (Table 4)."""

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
    def alone(cls, of: SubnetworkSettings, modality: Literal["text", "audio", "vision"]) -> UnimodalSettings:
        """One modality of a multi-task system, in the numbers that it has there."""
        task = TASK_OF_MODALITY[modality]
        hidden: int = getattr(of.hidden, modality)
        return cls(
            modality=modality,
            hidden=hidden,
            out=of.text_out if modality == "text" else hidden,
            dropout=getattr(of.dropout, modality),
            head_width=of.head_widths[task],
            head_dropout=of.head_dropout,
            subnetwork_decay=getattr(of.subnetwork_decay, modality),
            task_weights={"M": 1.0},
            weight_decay=of.weight_decay,
            learning_rate=of.learning_rate,
            batch_size=of.batch_size,
            patience=of.patience,
            max_epochs=of.max_epochs,
        )


class EarlyFusionSettings(SystemSettings):
    """EF-LSTM: one LSTM over the three modalities laid side by side, word by word."""

    family: Literal["early-fusion"] = "early-fusion"
    reads: ClassVar[View] = "words"

    hidden: Width
    layers: Count
    dropout: Fraction


class MemoryFusionSettings(SystemSettings):
    """MFN: an LSTM a modality, attention across their memories, a gated memory of what it finds."""

    family: Literal["memory-fusion"] = "memory-fusion"
    reads: ClassVar[View] = "rows"

    hidden: Widths
    memory: Width
    window: Annotated[int, Field(ge=2, description="Words whose memories are attended together.")] = 2
    attention: Annotated[Layer, Field(description="D_a (NN1).")]
    proposal: Annotated[Layer, Field(description="D_u (NN2).")]
    retain: Annotated[Layer, Field(description="D_gamma1.")]
    update: Annotated[Layer, Field(description="D_gamma2.")]
    output: Layer
    aligner: Annotated[
        Width | None,
        Field(
            description="Hidden units of the CTC modules' LSTM; none: each word gets the mean of its share."
        ),
    ]
    aligner_weight: Annotated[float, Field(ge=0, description="Weight of the CTC loss in the objective.")] = (
        1.0
    )

    @property
    def view(self) -> View:
        return self.reads if self.aligner else "words"

    def as_mmsa(self) -> SystemSettings:
        return super().as_mmsa().model_copy(update={"aligner": None})


class TransformerSettings(SystemSettings):
    """MulT: every modality attends to every other, unaligned."""

    family: Literal["transformer"] = "transformer"
    reads: ClassVar[View] = "rows"

    width: Annotated[Width, Field(description="Columns of each modality behind its convolution.")]
    heads: Count
    layers: Annotated[Count, Field(description="Depth of each crossmodal transformer.")]
    memory_layers: Annotated[Count, Field(description="Depth of each modality's own transformer.")]
    kernels: Annotated[Widths, Field(description="Rows that each modality's convolution spans.")]
    attention_dropout: Annotated[Dropouts, Field(description="By the modality that is attended to.")]
    memory_dropout: Annotated[Fraction, Field(description="Of attention in the modality's own transformer.")]
    text_dropout: Fraction
    embedding_dropout: Fraction
    relu_dropout: Fraction
    residual_dropout: Fraction
    output_dropout: Fraction

    @model_validator(mode="after")
    def _divides(self) -> TransformerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


ModelSettings = Annotated[
    LateFusionSettings
    | TensorFusionSettings
    | LowRankSettings
    | UnimodalSettings
    | EarlyFusionSettings
    | MemoryFusionSettings
    | TransformerSettings,
    Field(discriminator="family"),
]
