"""What recognisers give: words with times, their text, and the rows of the stage."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.asr.stage import COLUMNS
from triptych.extractors.base import Features

UNSURE = 0.5  # mean confidence below which a note asks to look at the transcript
REPEATED = 2.4  # a text that zlib makes smaller by this factor repeats itself, as Whisper's authors found


@dataclass(frozen=True)
class Heard:
    """A word, or a phrase.

    Attributes
    ----------
    text
        Without blanks around it.
    start, end
        From the sound's start [s].
    confidence
        Its probability, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


class Recogniser(Protocol):
    """A loaded recogniser of mono sound at `rate` Hz, at most `longest` seconds at once."""

    rate: int
    longest: float

    def recognise(self, sounds: Sequence[NDArray[np.float32]]) -> list[list[Heard]]:
        """Return the words of each sound, in order."""


def is_wide(character: str) -> bool:
    """Return whether a character is written without blanks around it, as those of Chinese."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH", "IDEOGRAPHIC"))


def joined_text(words: Sequence[str]) -> str:
    """Join words by blanks, and Chinese characters and what follows them without."""
    parts = [words[0]] if words else []
    for before, word in pairwise(words):
        blank = "" if is_wide(before[-1]) and is_wide(word[0]) else " "
        parts.append(blank + word)
    return "".join(parts)


def heard_rows(words: Sequence[Heard]) -> Features:
    """Make the stage's rows; starts rise."""
    names, units = zip(*COLUMNS, strict=True)
    starts = np.array([word.start for word in words], np.float64)
    starts = np.maximum.accumulate(starts) + np.arange(len(words)) * 1e-6  # two words may begin in one frame
    ends = np.maximum([word.end for word in words], starts)
    confidence = np.array([word.confidence for word in words])
    text = joined_text([word.text for word in words])
    notes = []
    if confidence.mean() < UNSURE:
        notes.append(f"the recogniser is unsure: mean confidence {confidence.mean():.2f}")
    if len(text.encode()) / len(zlib.compress(text.encode())) > REPEATED:
        notes.append("the transcript repeats itself, which recognisers do where nothing is said")
    return Features(
        values=np.stack([starts, ends, confidence], axis=1).astype(np.float32),
        columns=names,
        units=units,
        times=starts,
        valid=np.ones(len(words), np.bool_),
        extras={"tokens": np.array([word.text for word in words], dtype=object)},
        notes=tuple(notes),
    )
