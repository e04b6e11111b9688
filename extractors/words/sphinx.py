"""Forced alignment of an English transcript by pocketsphinx, whose package includes an acoustic model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.words.rows import checked_tokens, resampled, word_rows
from triptych.extractors.words.spans import joined
from triptych.extractors.words.stage import WordsSettings
from triptych.extractors.words.tokens import Token

if TYPE_CHECKING:
    from triptych.extractors.inputs import ClipInputs

RATE = 16000  # of the package's acoustic model [Hz]
FRAMES = 100  # per second
_VARIANT = re.compile(r"\(\d+\)$")  # the dictionary's second pronunciation of "the" is "the(2)"
LEAST_SPOKEN = 3  # frames: one for each state of a phone


class SphinxAligner:
    """pocketsphinx with its English model, loaded once; words that its dictionary does not have are estimated.

    Parameters
    ----------
    settings
        The stage's settings.
    sample_rate
        Sample rate of the waveforms of all clips [Hz].
    """

    def __init__(self, settings: WordsSettings, sample_rate: int) -> None:
        import pocketsphinx

        self._from, self._join = sample_rate, settings.join
        self._decoder: Any = pocketsphinx.Decoder(loglevel="FATAL", lm=None)

    def extract(self, clip: ClipInputs) -> Features:
        """Align one clip; see `align`."""
        return self.align(clip.text, clip.waveform())

    def align(self, transcript: str, waveform: NDArray[np.float32]) -> Features:
        """Align a transcript to a mono waveform, shape (n,), at the sample rate given at loading.

        Returns
        -------
        Features
            One row for each token. pocketsphinx has no probabilities, so the score is 1; it is 0 for a word that the
            dictionary does not have, which gets a share of the gap between its neighbours.

        Raises
        ------
        ExtractionError
            ``not_aligned``: no word is in the dictionary, or the transcript does not fit the sound.
        """
        tokens = checked_tokens(transcript)
        sound = resampled(waveform, self._from, RATE)
        words = [token.text.lower().replace("’", "'") for token in tokens]
        known = np.array([self._decoder.lookup_word(word) is not None for word in words])
        if not known.any():
            raise ExtractionError(Reason.NOT_ALIGNED, "the dictionary of pocketsphinx has none of the words")
        found = self._spans([word for word, one in zip(words, known, strict=True) if one], sound)
        if len(found) != known.sum():
            raise ExtractionError(Reason.NOT_ALIGNED, "the transcript does not fit the sound")
        start, end = np.zeros(len(tokens)), np.zeros(len(tokens))
        start[known], end[known] = np.array(found).T
        _estimate(tokens, known, start, end, len(sound) / RATE)
        start, end = joined(start, end, self._join)
        return word_rows(tokens, start, end, known.astype(np.float64), known)

    def _spans(self, words: Sequence[str], sound: NDArray[np.float32]) -> list[tuple[float, float]]:
        """Return start and end [s] of each word, in order; none where the alignment failed."""
        decoder = self._decoder
        samples = np.clip(np.rint(sound * 32767), -32768, 32767).astype("<i2").tobytes()
        try:
            decoder.set_align_text(" ".join(words))
            decoder.start_utt()
            decoder.process_raw(samples, full_utt=True)
            decoder.end_utt()
            segments = list(decoder.seg() or ())
        except (RuntimeError, ValueError):
            return []
        spoken = [one for one in segments if not one.word.startswith(("<", "[", "(", "+"))]
        if [_VARIANT.sub("", one.word) for one in spoken] != list(words):
            return []
        return [(one.start_frame / FRAMES, (one.end_frame + 1) / FRAMES) for one in spoken]


def _estimate(
    tokens: Sequence[Token],
    known: NDArray[np.bool_],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    length: float,
) -> None:
    """Give each run of unknown words equal shares of the gap between the known words beside it, in place.

    Where the gap is too short, the neighbours give up to half of their spans.
    """
    for at in range(len(tokens)):
        if known[at] or (at and not known[at - 1]):
            continue
        after = next((later for later in range(at, len(tokens)) if known[later]), len(tokens))
        left = end[at - 1] if at else 0.0
        right = start[after] if after < len(tokens) else length
        if at:
            left -= np.clip(_least(after - at) - (right - left), 0, (end[at - 1] - start[at - 1]) / 2)
            end[at - 1] = left
        if after < len(tokens):
            right += np.clip(_least(after - at) - (right - left), 0, (end[after] - start[after]) / 2)
            start[after] = right
        edges = np.linspace(left, right, after - at + 1)
        start[at:after], end[at:after] = edges[:-1], edges[1:]


def _least(words: int) -> float:
    return words * LEAST_SPOKEN / FRAMES
