"""Praat's TextGrid: the tiers of intervals of its long and its short form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# As Praat reads a file: only texts, flags and numbers between blanks count, so both forms are the same.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<\w+>|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\S)')
_SPOKEN = ("words", "word", "text", "transcript", "transcription", "utterances", "utterance", "sentence")


class Tier(NamedTuple):
    """A tier of intervals: its name, and start [s], end [s] and text of each interval."""

    name: str
    intervals: list[tuple[float, float, str]]


def text_grid_tiers(text: str) -> list[Tier]:
    """Read all tiers of intervals; tiers of points are left out.

    Raises
    ------
    ValueError
        The text is not a TextGrid, or ends early.
    """
    tokens = (
        match[2] if match[1] is None else '"' + match[1].replace('""', '"') for match in _TOKEN.finditer(text)
    )
    try:
        if next(tokens) != '"ooTextFile' or next(tokens) != '"TextGrid':
            raise ValueError("not a TextGrid")
        next(tokens), next(tokens), next(tokens)  # start, end, <exists>
        tiers = [_tier(tokens) for _ in range(int(next(tokens)))]
    except StopIteration:
        raise ValueError("the file ends early") from None
    return [tier for tier in tiers if tier is not None]


def spoken_tier(tiers: list[Tier]) -> Tier | None:
    """Return the tier to use as transcript: one named ``words`` or the like, or else the first that has text.

    Aligners also write a tier of phones, sometimes before that of words.
    """
    filled = [tier for tier in tiers if any(text.strip() for _, _, text in tier.intervals)]
    named = {tier.name.strip().lower(): tier for tier in reversed(filled)}
    spoken = [named[name] for name in _SPOKEN if name in named]
    return next(iter([*spoken, *filled, *tiers]), None)


def _tier(tokens: Iterator[str]) -> Tier | None:
    kind, name = next(tokens)[1:], next(tokens)[1:]
    next(tokens), next(tokens)  # start, end
    count = int(next(tokens))
    if kind == "IntervalTier":
        return Tier(
            name, [(float(next(tokens)), float(next(tokens)), next(tokens)[1:]) for _ in range(count)]
        )
    for _ in range(2 * count):
        next(tokens)
    return None
