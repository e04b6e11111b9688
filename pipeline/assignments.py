"""Dotted settings as users write them on the command line: ``section.name=value``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from triptych.pipeline.documents import read_toml


def split_assignment(text: str) -> tuple[tuple[str, ...], str] | None:
    """Split ``section.name=value`` into the setting's path and the value's text; None for any other form."""
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    return (path, value) if equals and all(path) else None


def parse_value(text: str) -> Any:
    """Read a value as TOML, or as plain text where it is not TOML."""
    try:
        return read_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid dotted name that an unknown one probably means; empty where none is similar.

    A name whose last part is similar, or equal, comes before one of the same section.
    """
    paths = list(valid)
    last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    section, _, own = name.rpartition(".")
    same = {path.rpartition(".")[2]: path for path in paths if path.rpartition(".")[0] == section}
    if found := get_close_matches(own, same, 1, 0.75):
        return same[found[0]]
    if found := get_close_matches(own, last, 1, 0.75):
        alike = [path for path in paths if path.rpartition(".")[2] == found[0]]
        return next(iter(get_close_matches(name, alike, 1, 0.0)), alike[0])
    return next(iter(get_close_matches(name, paths, 1, 0.75)), "")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `` Did you mean x?`` with the valid name nearest to an unknown one; empty if none is similar."""
    paths = list(valid)
    found = nearest(name, paths)
    if not found and "." not in name:  # one wrong letter in three, as in `mfm`, is 0.67 of similarity
        found = next(iter(get_close_matches(name, paths, 1, 0.6)), "")
    return f" Did you mean {found}?" if found else ""


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
