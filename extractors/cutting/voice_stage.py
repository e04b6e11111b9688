"""The stage `voice`: how likely each 32 ms of a recording are speech, and the energy of its speech bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych.extractors.base import ExtractionError, Features, Reason, package_version
from triptych.extractors.cutting.settings import VoiceSettings
from triptych.extractors.settings import MediaSettings
from triptych.extractors.stage import Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.inputs import ClipInputs

COLUMNS = (("speech", "probability"), ("energy_1", "full scale"), ("energy_2", "full scale"))
ROW_RATE = 31.25  # [Hz]


class VoiceDetector:
    """Silero's network, loaded once.

    Parameters
    ----------
    sample_rate
        Sample rate of the waveforms of all clips [Hz].
    """

    def __init__(self, sample_rate: int) -> None:
        from triptych.extractors.cutting.voice import model_file

        model_file()  # raises an error where the package is missing
        self._rate = sample_rate

    def extract(self, clip: ClipInputs) -> Features:
        """Compute the rows of one clip: the probability, and the energy of the first and second 16 ms of each row."""
        import numpy as np
        import soxr

        from triptych.extractors.cutting.energy import speech_energy
        from triptych.extractors.cutting.voice import SAMPLE_RATE, speech_probabilities

        sound = clip.waveform()
        if self._rate != SAMPLE_RATE:
            sound = soxr.resample(sound, self._rate, SAMPLE_RATE, quality="soxr_hq").astype(np.float32)
        if not len(sound):
            raise ExtractionError(Reason.EMPTY_AUDIO, "the waveform has no sample at 16 kHz")
        speech = speech_probabilities(sound)
        energy = speech_energy(sound)
        energy = np.pad(energy, (0, 2 * len(speech) - len(energy))).reshape(-1, 2)
        names, units = zip(*COLUMNS, strict=True)
        return Features(
            values=np.column_stack([speech, energy]).astype(np.float32),
            columns=names,
            units=units,
            times=np.arange(len(speech)) / ROW_RATE,
            valid=np.ones(len(speech), np.bool_),
        )


def _load(settings: VoiceSettings, media: MediaSettings, device: str) -> VoiceDetector:
    return VoiceDetector(media.sample_rate)


STAGE = Stage(
    name="voice",
    row="32 ms of sound",
    settings=VoiceSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [COLUMNS],
    row_rate=lambda settings, media: ROW_RATE,
    load=_load,
    packages=("av", "onnxruntime", "silero-vad", "soxr"),
    model_identity=lambda settings: f"silero-vad {package_version('silero-vad')}",  # it ships the weights
)
