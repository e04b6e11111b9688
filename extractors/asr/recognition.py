"""The loaded stage `asr`: sound is checked for speech, divided into pieces, and recognised in batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

from triptych.extractors.asr.heard import Heard, Recogniser, heard_rows
from triptych.extractors.asr.stage import AsrSettings
from triptych.extractors.base import ExtractionError, Features, Reason

if TYPE_CHECKING:
    from triptych.extractors.inputs import ClipInputs

SHORTEST = 0.2  # seconds of speech that are worth recognising
SEARCHED = 5.0  # long sound is divided at the least speech in the last seconds of a piece
VAD_RATE = 16000  # [Hz]


class Recognition:
    """A recogniser, loaded once, and the clips that wait for it.

    Parameters
    ----------
    settings
        The stage's settings, resolved.
    sample_rate
        Sample rate of the waveforms of all clips [Hz].
    device
        The device that torch computes on.

    Raises
    ------
    BackendMissingError
        The model cannot be loaded.
    UnusableSettingError
        The model is no recogniser that is supported.
    """

    def __init__(self, settings: AsrSettings, sample_rate: int, device: str = "cpu") -> None:
        self._rate, self._batch = sample_rate, settings.batch
        self._recogniser: Recogniser = _recogniser(settings, device)
        self._waiting: dict[str, list[tuple[float, NDArray[np.float32]]]] = {}

    def add(self, clip_id: str, clip: ClipInputs) -> bool:
        """Add one clip; its pieces stay in memory until `finish`."""
        self._waiting[clip_id] = self._pieces(clip.waveform())
        return sum(map(len, self._waiting.values())) >= self._batch

    def finish(self) -> Mapping[str, Features | Exception]:
        """Recognise all clips that were added."""
        waiting, self._waiting = self._waiting, {}
        pieces = [(id, start, sound) for id, parts in waiting.items() for start, sound in parts]
        words: dict[str, list[Heard]] = {id: [] for id in waiting}
        for first in range(0, len(pieces), self._batch):
            some = pieces[first : first + self._batch]
            found = self._recogniser.recognise([sound for _, _, sound in some])
            for (id, start, _), heard in zip(some, found, strict=True):
                words[id] += [replace(one, start=one.start + start, end=one.end + start) for one in heard]
        return {id: heard_rows(heard) if heard else _nothing() for id, heard in words.items()}

    def _pieces(self, waveform: NDArray[np.float32]) -> list[tuple[float, NDArray[np.float32]]]:
        """Return the pieces of a waveform that are at most as long as the recogniser takes, each with its start [s].

        Raises
        ------
        ExtractionError
            ``no_speech``: recognisers invent words for music and silence.
        """
        from triptych.extractors.cutting.voice import speech_probabilities, speech_segments

        speech = speech_probabilities(_resampled(waveform, self._rate, VAD_RATE))
        if not speech_segments(speech, shortest=SHORTEST):
            raise _nothing()
        sound = _resampled(waveform, self._rate, self._recogniser.rate)
        rate, most = self._recogniser.rate, self._recogniser.longest
        pieces, start = [], 0.0
        while len(sound) / rate - start > most:
            first, last = (round(second * 31.25) for second in (start + most - SEARCHED, start + most))
            end = (first + int(np.argmin(speech[first:last])) + 0.5) / 31.25
            pieces.append((start, sound[round(start * rate) : round(end * rate)]))
            start = end
        return [*pieces, (start, sound[round(start * rate) :])]


def _recogniser(settings: AsrSettings, device: str) -> Recogniser:
    if settings.backend == "pocketsphinx":
        from triptych.extractors.asr.sphinx import SphinxRecogniser

        return SphinxRecogniser()
    from triptych.extractors.asr.transformers_models import load_recogniser

    return load_recogniser(settings, device)


def _resampled(waveform: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    sound: NDArray[np.float32] = soxr.resample(waveform, rate, wanted, quality="soxr_hq").astype(np.float32)
    return sound


def _nothing() -> ExtractionError:
    return ExtractionError(Reason.NO_SPEECH, "nobody speaks, so that there is nothing to transcribe")
