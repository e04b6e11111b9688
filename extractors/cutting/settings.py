"""The settings by which a recording is divided. No numpy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from triptych.extractors.settings import Settings


class ScenesSettings(Settings):
    """How shots and faces are searched for."""

    smallest_face: Annotated[
        float,
        Field(
            ge=0.02, le=1, description="The smallest face searched, as a share of the frame's shorter side."
        ),
    ] = 0.06
    detection_rate: Annotated[
        float, Field(ge=0.5, le=10, description="Searches of whole frames for faces [Hz].")
    ] = 2.5
    mouth_rate: Annotated[float, Field(ge=12, le=30, description="Values of a mouth's motion [Hz].")] = 15.0
    cut_threshold: Annotated[
        float,
        Field(gt=0, le=255, description="Mean change of small frames that makes a shot boundary [levels]."),
    ] = 18.0


class VoiceSettings(Settings):
    """Nothing: the network and its input are fixed."""


class CutSettings(Settings):
    """How long clips are, which pauses divide them, and which faces count."""

    min_seconds: Annotated[float, Field(ge=0.2, le=60, description="The shortest clip [s].")] = 1.0
    max_seconds: Annotated[
        float, Field(ge=1, le=600, description="The longest clip [s]; longer speech is divided.")
    ] = 10.0
    speech_threshold: Annotated[
        float, Field(gt=0, lt=1, description="Probability from which on sound is speech.")
    ] = 0.5
    pause: Annotated[
        float, Field(ge=0.05, le=10, description="A pause of this length divides speech into clips [s].")
    ] = 0.5
    short_pause: Annotated[
        float,
        Field(ge=0.03, le=10, description="Speech that is too long is divided at pauses of this length [s]."),
    ] = 0.1
    margin: Annotated[
        float,
        Field(ge=0, le=2, description="Of a pause, at most this much stays with the speech beside it [s]."),
    ] = 0.15
    min_face: Annotated[
        float,
        Field(ge=0.03, le=1, description="The smallest face, as a share of the frame's shorter side."),
    ] = 0.1
    min_presence: Annotated[
        float, Field(ge=0.1, le=1, description="Share of a clip in which its face must be seen.")
    ] = 0.9
    rival_size: Annotated[
        float,
        Field(gt=0, le=1, description="A face of this share of the largest face's size may be the speaker."),
    ] = 0.5
    min_fit: Annotated[
        float,
        Field(ge=-1, le=1, description="The lowest correlation of a speaker's mouth with the sound."),
    ] = 0.2
    min_lead: Annotated[
        float,
        Field(ge=0, le=2, description="How far the speaker's correlation must exceed that of other faces."),
    ] = 0.1
    min_motion: Annotated[
        float,
        Field(
            ge=0, le=10, description="The lowest motion of a speaking mouth, relative to the upper face's."
        ),
    ] = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> CutSettings:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds:g} exceeds max_seconds {self.max_seconds:g}")
        return self
