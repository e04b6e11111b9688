"""Dotted settings as users write them on the command line: ``section.name=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any


def split_assignment(text: str) -> tuple[tuple[str, ...], str] | None:
    """Split ``section.name=value`` into the setting's path and the value's text; None for any other form."""
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    return (path, value) if equals and all(path) else None


def parse_value(text: str) -> Any:
    """Read a value as TOML, or as plain text where it is not TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def assign(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value that exists in nested settings.

    Raises
    ------
    KeyError
        No setting has this path.
    """
    *sections, name = path
    section: Any = settings
    for key in sections:
        section = section.get(key) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section:
        raise KeyError(".".join(path))
    section[name] = value
