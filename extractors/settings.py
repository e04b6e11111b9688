"""What the settings of all stages share. A stage's own settings are in its module. No numpy.

Settings change numbers. Options that only change speed (batch sizes, threads, buffers) are not settings, so they never
invalidate features.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# Raised whenever a change of `extractors/media` changes frames, waveforms or their times.
MEDIA_VERSION = 2


class Settings(BaseModel):
    """Base class of all settings: frozen; an unknown name is an error, and so are NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take true for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("true and false are no numbers")
        return value


class MediaSettings(Settings):
    """How frames and sound are read."""

    frame_rate: Annotated[float, Field(ge=0.1, le=240, description="Frames per second.")] = 30.0
    sample_rate: Annotated[
        int, Field(ge=8000, le=96000, description="Samples per second of the waveform.")
    ] = 22050
    deinterlace: Annotated[
        Literal["auto", "off"],
        Field(description="Deinterlace the frames that are marked as interlaced (yadif)."),
    ] = "auto"
    truncated: Annotated[
        Literal["note", "fail"],
        Field(description="A clip of which some is missing or corrupt gets a note, or fails (truncated)."),
    ] = "note"
    max_seconds: Annotated[
        float, Field(gt=0, le=7 * 86400, description="A clip that lasts longer fails (too_long) [s].")
    ] = 14400.0
    max_pixels: Annotated[
        int, Field(ge=1, le=2**28, description="A clip whose frames have more pixels fails (too_large).")
    ] = 8192 * 8192


ModelName = Annotated[
    str, Field(min_length=1, max_length=4096, description="Hub name, or a folder with a model.")
]
Revision = Annotated[
    str, Field(max_length=200, description="The hub's commit; '' takes the newest, once per folder.")
]


class PretrainedSettings(Settings):
    """Settings of a stage that runs a pretrained model of transformers: which one, at which revision."""

    section: ClassVar[str]  # the recipe section, for messages

    model: ModelName
    revision: Revision
