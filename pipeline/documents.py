"""Read JSON and TOML that a user gives: whatever is wrong with them is a ValueError."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any

DEEPEST = 32  # levels; no file of this program has more than eight


def read_json(data: bytes | str) -> Any:
    """Parse a JSON document.

    Raises
    ------
    ValueError
        It is not JSON, or nested deeper than `DEEPEST` levels.
    """
    return _parsed(json.loads, data)


def read_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises
    ------
    ValueError
        It is not TOML, or nested deeper than `DEEPEST` levels.
    """
    document: dict[str, Any] = _parsed(tomllib.loads, text)
    return document


def _parsed(parse: Callable[[Any], Any], text: bytes | str) -> Any:
    """Return a document of bounded depth: deeper ones end in a RecursionError where they are printed or copied."""
    try:
        document = parse(text)
    except RecursionError as error:
        raise _too_deep() from error
    level = [document]
    for _ in range(DEEPEST):
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return document
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"nested deeper than {DEEPEST} levels")
