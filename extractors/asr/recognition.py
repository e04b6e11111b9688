"""The loaded stage `asr`: sound is checked for speech, divided into pieces, and recognised in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.asr.heard import Heard, Recogniser, heard_rows
from triptych.extractors.asr.stage import AsrSettings
from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.words.rows import resampled

if TYPE_CHECKING:
    from triptych.extractors.inputs import ClipInputs

SHORTEST = 0.2  # seconds of speech that are worth recognising
SEARCHED = 5.0  # long sound is divided at the least speech in the last seconds of a piece
Piece = tuple[float, NDArray[np.float32]]  # where it starts in the sound [s], and its samples


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
        self._waiting: dict[str, list[Piece]] = {}

    def add(self, clip_id: str, clip: ClipInputs) -> bool:
        """Add one clip; its pieces stay in memory until `finish`."""
        self._waiting[clip_id] = self._pieces(clip.waveform())
        return sum(map(len, self._waiting.values())) >= self._batch

    def finish(self) -> Mapping[str, Features | Exception]:
        """Recognise all clips that were added."""
        waiting, self._waiting = self._waiting, {}
        try:
            words = self._recognised(waiting)
        except Exception:  # find the clip that caused it
            return {id: self._alone(id, parts) for id, parts in waiting.items()}
        return {id: heard_rows(heard) if heard else _nothing() for id, heard in words.items()}

    def _recognised(self, waiting: Mapping[str, Sequence[Piece]]) -> dict[str, list[Heard]]:
        pieces = [(id, start, sound) for id, parts in waiting.items() for start, sound in parts]
        words: dict[str, list[Heard]] = {id: [] for id in waiting}
        for first in range(0, len(pieces), self._batch):
            some = pieces[first : first + self._batch]
            found = self._recogniser.recognise([sound for _, _, sound in some])
            for (id, start, _), heard in zip(some, found, strict=True):
                words[id] += [replace(one, start=one.start + start, end=one.end + start) for one in heard]
        return words

    def _alone(self, id: str, parts: Sequence[Piece]) -> Features | Exception:
        try:
            heard = self._recognised({id: parts})[id]
        except Exception as error:
            return error
        return heard_rows(heard) if heard else _nothing()

    def _pieces(self, waveform: NDArray[np.float32]) -> list[Piece]:
        """Return the pieces of a waveform that are at most as long as the recogniser takes and have speech.

        Raises
        ------
        ExtractionError
            ``no_speech``: recognisers invent words for music and silence. Or the sound is empty or not finite.
        """
        from triptych.extractors.cutting.voice import (
            RATE,
            SAMPLE_RATE,
            speech_probabilities,
            speech_segments,
        )

        speech = speech_probabilities(resampled(waveform, self._rate, SAMPLE_RATE))
        segments = speech_segments(speech, shortest=SHORTEST)
        if not segments:
            raise _nothing()
        rate, most = self._recogniser.rate, self._recogniser.longest
        sound = resampled(waveform, self._rate, rate)
        edges = [0.0]
        while len(sound) / rate - edges[-1] > most:
            first, last = (round((edges[-1] + ahead) * RATE) for ahead in (most - SEARCHED, most))
            edges.append((first + int(np.argmin(speech[first:last])) + 0.5) / RATE)
        return [
            (start, sound[round(start * rate) : round(end * rate)])
            for start, end in pairwise([*edges, len(sound) / rate])
            if any(min(end, after) - max(start, begin) > 0 for begin, after in segments)
        ]


def _recogniser(settings: AsrSettings, device: str) -> Recogniser:
    if settings.backend == "pocketsphinx":
        from triptych.extractors.asr.sphinx import SphinxRecogniser

        return SphinxRecogniser()
    from triptych.extractors.asr.transformers_models import load_recogniser

    return load_recogniser(settings, device)


def _nothing() -> ExtractionError:
    return ExtractionError(Reason.NO_SPEECH, "nobody speaks, so that there is nothing to transcribe")
