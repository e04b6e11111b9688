"""From a transcript's tokens to the symbols of a CTC model, and from its path to the tokens' spans."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.words.tokens import APOSTROPHES, Token
from triptych.extractors.words.viterbi import best_path, frames_needed

WILDCARD = -1
WILDCARD_COST = 1.0  # natural log; so that a wildcard never takes the frames of the symbols beside it


class Spelling(NamedTuple):
    """A transcript in the symbols of a model.

    Attributes
    ----------
    symbols
        int64, shape (S,): ids of the vocabulary, or `WILDCARD`.
    owner
        int64, shape (S,): the token of each symbol; every token has one at least.
    known
        bool, shape (tokens,): all letters of the token are in the vocabulary.
    """

    symbols: NDArray[np.int64]
    owner: NDArray[np.int64]
    known: NDArray[np.bool_]


class Spans(NamedTuple):
    """The spans of tokens: first frame, frame after the last one, and score in [0, 1], shape (tokens,) each."""

    first: NDArray[np.int64]
    after: NDArray[np.int64]
    score: NDArray[np.float64]


def spelled(tokens: Sequence[Token], vocabulary: Mapping[str, int]) -> Spelling:
    """Write tokens in the symbols of a vocabulary, in whichever case it has them.

    A run of letters that are not in it is one wildcard; apostrophes that are not in it are left out.
    """
    symbols: list[int] = []
    owner: list[int] = []
    known = np.ones(len(tokens), dtype=bool)
    for number, token in enumerate(tokens):
        own = _symbols(token.text, vocabulary)
        known[number] = WILDCARD not in own
        symbols += own
        owner += [number] * len(own)
    return Spelling(np.array(symbols, np.int64), np.array(owner, np.int64), known)


def _symbols(text: str, vocabulary: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    for character in unicodedata.normalize("NFKC", text):
        forms = (character, character.lower(), character.upper())
        symbol = next((vocabulary[form] for form in forms if form in vocabulary), WILDCARD)
        skipped = character in APOSTROPHES or unicodedata.category(character)[0] not in "LN"
        if symbol != WILDCARD or not (skipped or found[-1:] == [WILDCARD]):
            found.append(symbol)
    return found or [WILDCARD]


def frames_of(spelling: Spelling) -> int:
    """Count the frames that a spelling needs at least."""
    return frames_needed(_skips(spelling.symbols))


def align(scores: NDArray[np.float32], columns: Sequence[int], spelling: Spelling) -> Spans | None:
    """Find the spans of tokens.

    Parameters
    ----------
    scores
        Shape (T, 2 + U): log probability of silence, of the likeliest letter, and of the symbols `columns`.
    columns
        The U ids of the vocabulary that the spelling uses.

    Returns
    -------
    Spans or None
        None if the frames are too few. A token's score is the geometric mean of its symbols' probabilities in the
        frames that emit them; 0 if it has a wildcard.
    """
    place = {WILDCARD: 1, **{symbol: 2 + number for number, symbol in enumerate(columns)}}
    table = scores.copy()
    table[:, 1] -= WILDCARD_COST
    where = np.array([place[symbol] for symbol in spelling.symbols.tolist()], np.int64)
    path = best_path(table, where, _skips(spelling.symbols))
    if path is None:
        return None
    frames = np.flatnonzero(path >= 0)
    tokens = spelling.owner[path[frames]]
    count = len(spelling.known)
    first = np.searchsorted(tokens, np.arange(count))
    after = np.searchsorted(tokens, np.arange(count), side="right")
    sums = np.bincount(tokens, weights=scores[frames, where[path[frames]]], minlength=count)
    score = np.where(spelling.known, np.exp(sums / (after - first)), 0)
    return Spans(frames[first], frames[after - 1] + 1, np.clip(score, 0, 1))


def _skips(symbols: NDArray[np.int64]) -> NDArray[np.bool_]:
    skips = np.ones(len(symbols), dtype=bool)
    skips[1:] = (symbols[1:] != symbols[:-1]) | (symbols[1:] == WILDCARD)
    return skips


def joined(
    start: NDArray[np.float64], end: NDArray[np.float64], longest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extend spans [s] over the gaps between them, since CTC models emit a symbol in few frames.

    A gap of at most `longest` is divided at its middle; of a longer one, a pause, each side takes half of `longest`.
    Nothing is added before the first token or after the last one.
    """
    share = np.minimum(np.maximum(start[1:] - end[:-1], 0), longest) / 2
    return start - np.append(0.0, share), end + np.append(share, 0.0)
