"""Text that comes from files, as messages and tables show it: on one line, without codes that change the terminal."""

from __future__ import annotations

import unicodedata

LONGEST = 200  # characters of one value
# Control, format (among them bidi overrides), surrogate, line and paragraph separator.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_hidden(character: str) -> bool:
    """Return whether a character has no shape of its own, and changes how others are shown."""
    return unicodedata.category(character) in _HIDDEN


# Codes that reverse or isolate a run of text, so that a name is shown as another one.
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def has_control(text: str) -> bool:
    """Return whether a name has control characters, line separators or codes that change the direction of text."""
    if text.isascii() and text.isprintable():
        return False
    return any(
        unicodedata.category(each) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(each) in _BIDI
        for each in text
    )


def escaped(text: str) -> str:
    r"""Return a text with its hidden characters as escapes, such as ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(repr(each)[1:-1] if is_hidden(each) else each for each in text)


def shown(text: str, longest: int = LONGEST) -> str:
    """Return a text of bounded length, escaped; what is cut off is replaced by an ellipsis."""
    text = escaped(text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def quoted(value: object, longest: int = LONGEST) -> str:
    """Return a value as Python writes it, of bounded length."""
    return shown(repr(value[: longest + 1] if isinstance(value, str | bytes) else value), longest)
