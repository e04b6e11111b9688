"""The tokens of a transcript that an alignment gives a time to. Imports no numpy."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

APOSTROPHES = "'’ʼ＇"
# Scripts whose characters are one token each: Han with its extensions, kana, bopomofo.
_SINGLE = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x312F), (0x31A0, 0x31FF), (0x3400, 0x4DBF),
           (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))  # fmt: skip


class Token(NamedTuple):
    """One Chinese character or one word.

    Attributes
    ----------
    begin, stop
        Its characters in the transcript: ``transcript[begin:stop] == text``.
    """

    text: str
    begin: int
    stop: int


def tokens_of(transcript: str) -> list[Token]:
    """Divide a transcript into Chinese characters and words; punctuation and spaces are part of no token.

    A word is a run of letters, marks and digits; an apostrophe between two letters belongs to it.
    """
    found: list[Token] = []
    begin = -1
    for at, character in enumerate(transcript):
        inside = _in_word(character) or (begin >= 0 and _joins(transcript, at))
        if begin >= 0 and not inside:
            found.append(Token(transcript[begin:at], begin, at))
            begin = -1
        if is_single(character):
            found.append(Token(character, at, at + 1))
        elif inside and begin < 0:
            begin = at
    if begin >= 0:
        found.append(Token(transcript[begin:], begin, len(transcript)))
    return found


def is_single(character: str) -> bool:
    """Return whether a character is a token by itself, as a Chinese one is."""
    code = ord(character)
    return code >= 0x2E80 and any(first <= code <= last for first, last in _SINGLE)


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" and not is_single(character)


def _joins(transcript: str, at: int) -> bool:
    around = transcript[at - 1 : at] + transcript[at + 1 : at + 2]
    return transcript[at] in APOSTROPHES and len(around) == 2 and around.isalpha() and _in_word(around[1])
