"""The rows of the stage `words`, and the checks that both of its backends begin with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.words.stage import COLUMNS
from triptych.extractors.words.tokens import Token, tokens_of

_SHOWN = 5  # words that a note names


def checked_tokens(transcript: str) -> list[Token]:
    """Return the tokens of a transcript.

    Raises
    ------
    ExtractionError
        ``not_aligned``: it has no letter and no digit.
    """
    tokens = tokens_of(transcript)
    if not tokens:
        raise ExtractionError(Reason.NOT_ALIGNED, "the transcript has no letter and no digit")
    return tokens


def resampled(waveform: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Resample a mono waveform, shape (n,), from one rate to another [Hz].

    Raises
    ------
    ExtractionError
        ``empty_audio`` or ``non_finite_audio``.
    """
    if not len(waveform):
        raise ExtractionError(Reason.EMPTY_AUDIO, "the waveform has no sample")
    if not np.isfinite(waveform).all():
        raise ExtractionError(Reason.NON_FINITE_AUDIO, "the waveform holds NaN or infinity")
    sound: NDArray[np.float32] = soxr.resample(waveform, rate, wanted, quality="soxr_hq").astype(np.float32)
    return sound


def word_rows(
    tokens: Sequence[Token],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    score: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> Features:
    """Make the stage's rows from the tokens' spans [s], scores in [0, 1], and whether the model knows them."""
    unknown = [token.text for token, one in zip(tokens, known, strict=True) if not one]
    names, units = zip(*COLUMNS, strict=True)
    return Features(
        values=np.stack([start, end, score], axis=1).astype(np.float32),
        columns=names,
        units=units,
        times=np.asarray(start, np.float64),
        valid=np.asarray(known, dtype=np.bool_),
        extras={
            "tokens": np.array([token.text for token in tokens], dtype=object),
            "begin": np.array([token.begin for token in tokens], np.int32),
            "stop": np.array([token.stop for token in tokens], np.int32),
        },
        notes=(_note(unknown, len(tokens)),) if unknown else (),
    )


def _note(unknown: Sequence[str], count: int) -> str:
    named = ", ".join(list(dict.fromkeys(unknown))[:_SHOWN])
    return f"{len(unknown)} of {count} words are unknown to the model; their times are estimates: {named}"
