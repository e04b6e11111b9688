"""Training settings as users change them: ``name=value``, or ``section.name=value``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triptych.pipeline.assignments import assign, did_you_mean, parse_value, split_assignment
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.settings import SystemSettings
from triptych.pipeline.trainer.systems import settings_from


def with_assignments(settings: SystemSettings, assignments: Sequence[str]) -> SystemSettings:
    """Change settings as ``--set name=value`` says; values are TOML, or else plain text, and ``none`` is no value.

    Raises
    ------
    InputError
        A text does not have that form, a setting is unknown, or its value is invalid.
    """
    changes: dict[str, Any] = {}
    for text in assignments:
        parts = split_assignment(text)
        if parts is None:
            raise InputError(f"--set {text}: expected NAME=VALUE, such as --set learning_rate=1e-3")
        changes[".".join(parts[0])] = None if parts[1] == "none" else parse_value(parts[1])
    return changed(settings, changes, "--set: ") if changes else settings


def changed(settings: SystemSettings, changes: Mapping[str, Any], where: str = "") -> SystemSettings:
    """Change settings by their dotted names.

    Parameters
    ----------
    where
        Begins each message, before the settings and their values.

    Raises
    ------
    InputError
        A setting is unknown, or its value is invalid.
    """
    values = settings.model_dump()
    family = values.pop("family")
    for name, value in changes.items():
        try:
            assign(values, name.split("."), value)
        except KeyError as error:
            known = names(settings)
            raise InputError(
                f"{where}setting {name} is unknown; the system has {', '.join(known)}.{did_you_mean(name, known)}"
            ) from error
    where += ", ".join(f"{name}={value}" for name, value in changes.items())
    return settings_from({**values, "family": family}, where)


def names(settings: SystemSettings) -> list[str]:
    """Return the dotted name of every setting, without the family's."""
    dumped = settings.model_dump()
    del dumped["family"]
    return list(_dotted(dumped))


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        found += _dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return found
