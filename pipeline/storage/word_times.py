"""Times for text rows: each token of the language model gets the start of the word that it belongs to."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.words.tokens import is_single

_UNKNOWN = frozenset({"[UNK]", "<unk>"})
_SPECIAL = frozenset({"[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>"})
_MARKS = ("##", "▁", "Ġ")  # of a piece within a word, or at its start
_AHEAD = 8  # characters that may be passed over to find a token again


class _Plain(NamedTuple):
    """A transcript as language models simplify it, and the transcript's character of each of its characters."""

    text: str
    origin: tuple[int, ...]


def needs_times(features: Features) -> bool:
    """Return whether rows are tokens of a transcript and have no times."""
    return "tokens" in features.extras and bool(np.isnan(features.times).all())


def with_word_times(features: Features, words: Features, transcript: str) -> Features:
    """Fill the times of text rows from the rows of the stage `words` of the same transcript.

    Parameters
    ----------
    features
        Text rows with the extra array ``tokens``.
    words
        Rows with ``begin`` and ``stop``, characters of the transcript.

    Returns
    -------
    Features
        The same rows; `times` is the start of the word [s] that a token belongs to, NaN for tokens of no word: special
        ones, punctuation, and those that cannot be found in the transcript.
    """
    places = token_places([str(token) for token in features.extras["tokens"]], transcript)
    begin, stop = words.extras["begin"], words.extras["stop"]
    row = np.searchsorted(begin, places, side="right") - 1
    inside = (places >= 0) & (row >= 0)
    inside[inside] = places[inside] < stop[row[inside]]
    times = np.full(len(features), np.nan)
    times[inside] = words.times[row[inside]]
    return replace(features, times=times)


def token_places(tokens: Sequence[str], transcript: str) -> NDArray[np.int64]:
    """Find the transcript's character at which each token begins; -1 where it has none.

    Tokens are compared without case, accents and full-width forms, in order. Tokens that the model does not know
    (``[UNK]``) stand for the words between the tokens around them.
    """
    plain = _plain(transcript)
    places = np.full(len(tokens), -1, np.int64)
    position, unknown = 0, list[int]()
    for number, token in enumerate(tokens):
        if token in _UNKNOWN:
            unknown.append(number)
            continue
        piece = "" if token in _SPECIAL else _plain(_unmarked(token)).text
        if not piece:
            continue
        limit = len(plain.text) if unknown else position + _AHEAD + len(piece)
        at = plain.text.find(piece, position + len(unknown), limit)
        if at < 0:
            continue
        _place_unknown(places, unknown, plain, position, at)
        unknown = []
        places[number] = plain.origin[at]
        position = at + len(piece)
    _place_unknown(places, unknown, plain, position, len(plain.text))
    return places


def _place_unknown(
    places: NDArray[np.int64], numbers: Sequence[int], plain: _Plain, first: int, after: int
) -> None:
    """Give unknown tokens the beginnings of the words of ``plain.text[first:after]``, in order."""
    begins = [at for at in range(first, after) if at == first or _begins(plain, at)]
    for number, at in zip(numbers, begins, strict=False):
        places[number] = plain.origin[at]


def _begins(plain: _Plain, at: int) -> bool:
    """Return whether a language model divides a text before a character: at spaces, punctuation and Chinese ones."""
    before, here = plain.text[at - 1], plain.text[at]
    gap = plain.origin[at] - plain.origin[at - 1] > 1  # spaces are left out
    return gap or _alone(before) or _alone(here)


def _alone(character: str) -> bool:
    return is_single(character) or unicodedata.category(character)[0] in "PS"


def _unmarked(token: str) -> str:
    for mark in _MARKS:
        if token.startswith(mark) and token != mark:
            return token[len(mark) :]
    return token


def _plain(text: str) -> _Plain:
    """Fold case and width, and leave out accents, spaces and control characters."""
    found = [
        (character, at)
        for at, original in enumerate(text)
        for character in unicodedata.normalize("NFKD", original).lower()
        if not character.isspace() and unicodedata.category(character)[0] not in "MCZ"
    ]
    return _Plain("".join(character for character, _ in found), tuple(at for _, at in found))
