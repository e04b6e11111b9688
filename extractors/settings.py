"""The settings that change a feature's numbers, with their defaults. No numpy: the command line reads it.

What only changes speed (batch sizes, threads, buffers) is not here, so that it never invalidates a feature.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MediaSettings(Settings):
    """The rates at which frames and sound are read."""

    frame_rate: Annotated[float, Field(gt=0, le=240, description="Frames per second.")] = 30.0
    sample_rate: Annotated[
        int, Field(ge=8000, le=96000, description="Samples per second of the waveform.")
    ] = 22050


class PretrainedSettings(Settings):
    """Settings of a stage that runs a pretrained model of transformers: which one, at which revision."""

    section: ClassVar[str]  # the recipe section, for messages

    model: str
    revision: str


class TextSettings(PretrainedSettings):
    """The language model."""

    section: ClassVar[str] = "text"

    model: Annotated[str, Field(min_length=1, description="Hub name, or a folder with a model.")] = (
        "google-bert/bert-base-chinese"
    )
    revision: Annotated[str, Field(description="The hub's commit; '' takes the newest, once per folder.")] = (
        "8f23c25b06e129b6c986331a13d8d025a92cf0ea"
    )
    max_tokens: Annotated[
        int, Field(ge=3, le=8192, description="Longest sequence in tokens, [CLS] and [SEP] included.")
    ] = 512
    runtime: Annotated[
        Literal["onnx", "torch"],
        Field(description="onnx: ONNX Runtime, equal to torch to 1e-5; torch: transformers on torch."),
    ] = "onnx"


class AudioSettings(Settings):
    """The 33 audio columns."""

    first: Annotated[
        Literal["log_f0", "zcr"],
        Field(description="First column: log_f0 (the paper) or zcr (its authors' code)."),
    ] = "log_f0"
    hop_length: Annotated[int, Field(ge=1, description="Samples between rows.")] = 512
    fmin: Annotated[float, Field(gt=0, description="Lowest F0 searched [Hz].")] = 60.0
    fmax: Annotated[float, Field(gt=0, description="Highest F0 searched [Hz].")] = 500.0
    frame_length: Annotated[int, Field(ge=256, description="Samples in a pYIN window.")] = 2048
    mfcc_htk: Annotated[bool, Field(description="Use HTK's mel scale instead of Slaney's.")] = False
    kernels: Annotated[
        Literal["fast", "librosa"],
        Field(description="fast: own kernels, equal to librosa to 1e-5; librosa: 30 times slower."),
    ] = "fast"

    @model_validator(mode="after")
    def _ordered(self) -> AudioSettings:
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin ({self.fmin}) must be below fmax ({self.fmax})")
        return self


class FacesSettings(Settings):
    """The face detector and its track."""

    min_face: Annotated[
        int, Field(ge=12, description="Smallest face searched, in pixels per 640 pixels of frame width.")
    ] = 20
    keyframe_every: Annotated[
        int, Field(ge=1, description="Frames between detections on the whole frame.")
    ] = 15
    min_score: Annotated[
        float, Field(gt=0, lt=1, description="A tracked face with a lower score is detected again.")
    ] = 0.8
    runtime: Annotated[
        Literal["onnx", "torch"],
        Field(description="onnx: ONNX Runtime, equal to torch to 1e-5; torch: the networks on torch."),
    ] = "onnx"


class VisionSettings(Settings):
    """The vision backend and the images it is given."""

    backend: Annotated[
        Literal["auto", "facemesh", "openface"],
        Field(
            description="auto: openface where its program is found, else facemesh; decided once per folder."
        ),
    ] = "auto"
    input: Annotated[
        Literal["stable", "original", "frame"],
        Field(
            description="A steady square crop, a crop cut anew in each frame (the authors' code), or the whole frame."
        ),
    ] = "stable"
    image_size: Annotated[int, Field(ge=64, le=1024, description="Side of a crop [pixels].")] = 224
    drop_invalid: Annotated[
        bool, Field(description="Leave out rows without a face, so that time shrinks.")
    ] = False
    average: Annotated[int, Field(ge=1, description="Average this many rows into one.")] = 1
