"""The first recipe and the first manifest of a source."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from triptych.extractors.settings import Settings
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.start.survey import Survey

RECIPE, MANIFEST, FEATURES = "recipe.toml", "clips.csv", "features"
_SIGNS = {Ge: ("from", "ge"), Gt: ("above", "gt"), Le: ("to", "le"), Lt: ("below", "lt")}


def recipe_text(chosen: tuple[str, ...], left_out: Mapping[str, str]) -> str:
    """Write a recipe whose settings are all comments with their defaults; only the stages are set."""
    lines = [
        "# The recipe of an extraction. Every line below shows a setting with its default: remove the # to change it.",
        "# A changed setting extracts only the stages that depend on it again.",
        "",
        f"# {Recipe.model_fields['stages'].description}",
        *(f"# Left out: {name}, as {' '.join(why.split())}" for name, why in left_out.items()),
        f"stages = {json.dumps(list(chosen))}",
    ]
    defaults = Recipe()
    for section in Recipe.model_fields:
        if section == "stages":
            continue
        values = getattr(defaults, section)
        off = section != "media" and section not in defaults.stages
        lines += [
            "",
            f"# {_summary(type(values))}{' Not extracted by default.' if off else ''}",
            f"[{section}]",
        ]
        lines += [
            _setting(name, getattr(values, name), one) for name, one in type(values).model_fields.items()
        ]
    return "\n".join(lines) + "\n"


def _summary(settings: type[Settings]) -> str:
    return (settings.__doc__ or "").strip().splitlines()[0]


def _setting(name: str, value: Any, field: Any) -> str:
    shown = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    bounds = [
        f"{word} {getattr(limit, attribute):.10g}"
        for limit in field.metadata
        for kind, (word, attribute) in _SIGNS.items()
        if isinstance(limit, kind)
    ]
    allowed = f" ({' '.join(bounds)})" if bounds else ""
    return f"# {name} = {shown}  # {field.description}{allowed}"


def write_start(survey: Survey, folder: Path) -> tuple[Path, Path]:
    """Write recipe and manifest into a folder; existing files are never replaced.

    Returns
    -------
    tuple of Path
        The recipe and the manifest.

    Raises
    ------
    InputError
        One of them exists, or the folder cannot be written.
    """
    recipe, manifest = folder / RECIPE, folder / MANIFEST
    if existing := [str(path) for path in (recipe, manifest) if os.path.lexists(path)]:
        raise InputError(
            f"{' and '.join(existing)}: exists already, and is not replaced. Choose another folder with -o"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with recipe.open("x", encoding="utf-8") as file:
            file.write(recipe_text(survey.stages, survey.left_out))
    except OSError as error:
        raise InputError(
            f"{recipe}: cannot be written ({error.strerror}). Choose a folder with -o"
        ) from error
    write_manifest(survey.manifest, manifest)
    return recipe, manifest


def next_command(recipe: Path, manifest: Path) -> str:
    """Return the command that extracts the clips, quoted for a shell; its output folder does not exist yet."""
    features = manifest.parent / FEATURES
    number = 2
    while os.path.lexists(features):
        features = manifest.parent / f"{FEATURES}-{number}"
        number += 1
    return shlex.join(["triptych", "extract", str(manifest), "--recipe", str(recipe), "-o", str(features)])
