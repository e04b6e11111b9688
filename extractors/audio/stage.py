"""The declaration of the audio stage."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from triptych.extractors.columns import audio_columns
from triptych.extractors.settings import AudioSettings, MediaSettings
from triptych.extractors.stage import ClipExtractor, Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.audio.features import Audio
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs


class _Waveforms:
    def __init__(self, audio: Audio) -> None:
        self._audio = audio

    def extract(self, clip: ClipInputs) -> Features:
        return self._audio.extract(clip.waveform())


def _load(settings: AudioSettings, media: MediaSettings, device: str) -> ClipExtractor:
    import fcntl

    import numpy as np

    from triptych.extractors.audio.features import Audio

    audio = Audio(settings, media.sample_rate)
    # numba's cache on disk breaks when two processes fill it at once, so they compile one after the other.
    with (Path(gettempdir()) / f"triptych-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        half_a_second = np.random.default_rng(0).standard_normal(media.sample_rate // 2)
        audio.extract(half_a_second.astype(np.float32))
    return _Waveforms(audio)


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
