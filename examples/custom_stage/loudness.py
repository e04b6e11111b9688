"""Two custom stages: `loudness` reads the waveform, `speech_rate` the transcript and the rows of `loudness`.

Install the folder into the environment that triptych is in, and name the stages:

    pip install ./examples/custom_stage
    triptych extract clips/ -o features/ --only loudness,speech_rate
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from triptych.extractors.base import Features
from triptych.extractors.inputs import ClipInputs
from triptych.extractors.settings import MediaSettings, Settings
from triptych.extractors.stage import Input, Stage

LOUDNESS_COLUMNS = (("rms", "dB re full scale"), ("peak", "full scale"))
SPEECH_RATE_COLUMNS = (("characters_per_second", "1/s"),)


class LoudnessSettings(Settings):
    """How loudness is measured. Every setting has a default and a description."""

    rows_per_second: Annotated[float, Field(gt=0, le=100, description="Rows per second.")] = 10.0
    floor: Annotated[float, Field(ge=-200, lt=0, description="Silence counts as this level [dB].")] = -100.0


class Loudness:
    """Level and peak of consecutive stretches of sound."""

    def __init__(self, settings: LoudnessSettings, sample_rate: int) -> None:
        self.settings = settings
        self.sample_rate = sample_rate

    def extract(self, clip: ClipInputs) -> Features:
        """Measure one clip: shape (T, 2), `times` at the start of each stretch [s]; extra ``clipped``."""
        sound = clip.waveform()
        step = round(self.sample_rate / self.settings.rows_per_second)
        rows = -(-len(sound) // step)
        padded = np.zeros(rows * step, np.float32)
        padded[: len(sound)] = sound
        stretches = padded.reshape(rows, step)
        power = np.maximum((stretches.astype(np.float64) ** 2).mean(axis=1), 1e-30)
        level = np.maximum(10 * np.log10(power), self.settings.floor)
        peak = np.abs(stretches).max(axis=1)
        names, units = zip(*LOUDNESS_COLUMNS, strict=True)
        return Features(
            values=np.column_stack([level, peak]).astype(np.float32),
            columns=names,
            units=units,
            times=np.arange(rows) * (step / self.sample_rate),
            valid=np.ones(rows, dtype=bool),
            extras={"clipped": peak >= 1},
        )


class SpeechRateSettings(Settings):
    """What counts as speech."""

    threshold: Annotated[float, Field(description="Stretches louder than this are speech [dB].")] = -50.0


class SpeechRate:
    """Characters of the transcript per second of speech: one row a clip."""

    def __init__(self, settings: SpeechRateSettings) -> None:
        self.settings = settings

    def extract(self, clip: ClipInputs) -> Features:
        """Compute one row, shape (1, 1), at time 0."""
        loudness = clip.rows("loudness")
        level = loudness.values[:, loudness.columns.index("rms")]
        step = loudness.times[1] - loudness.times[0] if len(loudness) > 1 else 1.0
        seconds = max((level > self.settings.threshold).sum() * step, step)
        characters = sum(not character.isspace() for character in clip.text)
        names, units = zip(*SPEECH_RATE_COLUMNS, strict=True)
        return Features(
            values=np.array([[characters / seconds]], np.float32),
            columns=names,
            units=units,
            times=np.zeros(1),
            valid=np.ones(1, dtype=bool),
            notes=()
            if (level > self.settings.threshold).any()
            else ("no stretch is loud enough for speech",),
        )


def _load_loudness(settings: LoudnessSettings, media: MediaSettings, device: str) -> Loudness:
    return Loudness(settings, media.sample_rate)


LOUDNESS = Stage(
    name="loudness",
    row="a stretch of sound",
    settings=LoudnessSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [LOUDNESS_COLUMNS],
    row_rate=lambda settings, media: settings.rows_per_second,
    extras={"clipped": "bool"},
    load=_load_loudness,
    version=1,  # raise it if a change of the code changes the numbers
    packages=("av", "soxr"),
)

SPEECH_RATE = Stage(
    name="speech_rate",
    row="a clip",
    settings=SpeechRateSettings,
    reads=(Input.TEXT,),
    rows_of=("loudness",),
    columns=lambda width: [SPEECH_RATE_COLUMNS],
    row_rate=lambda settings, media: 1.0,
    load=lambda settings, media, device: SpeechRate(settings),
)
