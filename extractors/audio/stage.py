"""The declaration of the audio stage."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.locks import exclusive
from triptych.extractors.model_cache import cache_folder
from triptych.extractors.settings import MediaSettings, Settings
from triptych.extractors.stage import ClipExtractor, Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.audio.features import Audio
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs


class AudioSettings(Settings):
    """The 33 audio columns."""

    first: Annotated[
        Literal["log_f0", "zcr"],
        Field(description="First column: log_f0 (the paper) or zcr (its authors' code)."),
    ] = "log_f0"
    hop_length: Annotated[int, Field(ge=32, le=8192, description="Samples between rows.")] = 512
    fmin: Annotated[float, Field(ge=10, le=2000, description="Lowest F0 searched [Hz].")] = 60.0
    fmax: Annotated[float, Field(ge=20, le=8000, description="Highest F0 searched [Hz].")] = 500.0
    frame_length: Annotated[int, Field(ge=256, le=16384, description="Samples in a pYIN window.")] = 2048
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


class _Waveforms:
    def __init__(self, audio: Audio) -> None:
        self._audio = audio

    def extract(self, clip: ClipInputs) -> Features:
        return self._audio.extract(clip.waveform())


def _load(settings: AudioSettings, media: MediaSettings, device: str) -> ClipExtractor:
    import numpy as np

    from triptych.extractors.audio.features import Audio

    audio = Audio(settings, media.sample_rate)
    # numba's cache on disk breaks when two processes fill it at once, so they compile one after the other.
    with exclusive(_lock_file()):
        half_a_second = np.random.default_rng(0).standard_normal(media.sample_rate // 2)
        audio.extract(half_a_second.astype(np.float32))
    return _Waveforms(audio)


def _lock_file() -> Path:
    """Return the lock of the compiled kernels, which numba caches for each user."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no folder of the user's own can be written
        return Path(gettempdir()) / f"triptych-{os.getuid()}.lock"
    return folder / "kernels.lock"


STAGE = Stage(
    name="audio",
    row="`hop_length` samples",
    settings=AudioSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [audio_columns("log_f0"), audio_columns("zcr")],
    row_rate=lambda settings, media: media.sample_rate / settings.hop_length,
    extras={"voiced": "bool"},
    load=_load,
    version=2,
    packages=("av", "librosa", "numba", "scipy", "soxr"),
    default=True,
)
