"""What a shell is offered for the values of options; imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from triptych.extractors.registry import stages
from triptych.pipeline.stages.recipe import NAMED, Recipe
from triptych.pipeline.trainer.settings import TASKS, SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS

Items = list[CompletionItem]


def complete_stage(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete one stage."""
    return _items(stages(), incomplete)


def complete_stages(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete the last of several stages, ``text,au``."""
    return _listed(stages(), incomplete)


def complete_systems(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete the last of several systems, ``lmf,mf``."""
    return _listed(SYSTEMS, incomplete)


def complete_recipe(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete a named recipe, or a TOML file; where there is none, the shell completes any path."""
    found = _items(NAMED, incomplete)
    folder = Path(
        incomplete if incomplete.endswith("/") else incomplete.rpartition("/")[0] or "."
    ).expanduser()
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError:
        files = []
    start = incomplete[: incomplete.rfind("/") + 1]
    found += _items((f"{start}{path.name}" for path in files), incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def complete_setting(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete ``section.name=`` of a recipe, and after it the values that the setting names."""
    choices: dict[str, tuple[str, ...]] = {}
    helps: dict[str, str | None] = {}
    for section, field in Recipe.model_fields.items():
        for name, setting in getattr(field.annotation, "model_fields", {}).items():
            choices[f"{section}.{name}"] = _choices(setting.annotation)
            helps[f"{section}.{name}"] = setting.description
    return _assignments(choices, helps, incomplete)


def complete_training_setting(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete ``name=`` of the training settings that every system has; a system's own would need its torch module."""
    fields = {name: field for name, field in SystemSettings.model_fields.items() if name != "task_weights"}
    choices = {name: _choices(field.annotation) for name, field in fields.items()}
    helps: dict[str, str | None] = {name: field.description for name, field in fields.items()}
    choices |= {f"task_weights.{task}": () for task in TASKS}
    return _assignments(choices, helps, incomplete)


def _assignments(choices: dict[str, tuple[str, ...]], helps: dict[str, str | None], incomplete: str) -> Items:
    name, equals, _ = incomplete.partition("=")
    if equals:
        return _items((f"{name}={value}" for value in choices.get(name, ())), incomplete)
    return [
        CompletionItem(f"{known}=", help=helps.get(known))
        for known in choices
        if known.startswith(incomplete)
    ]


def _choices(annotation: object) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def _listed(names: Iterable[str], incomplete: str) -> Items:
    before, comma, last = incomplete.rpartition(",")
    used = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in used
    ]


def _items(names: Iterable[str], incomplete: str) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
