"""The recipe: every setting of every stage, named recipes, and how a user changes them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from triptych.extractors.settings import (
    AudioSettings,
    FacesSettings,
    MediaSettings,
    Settings,
    TextSettings,
    VisionSettings,
)
from triptych.pipeline.assignments import parse_value, split_assignment
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError


class Recipe(Settings):
    """All settings of an extraction, one section a stage."""

    media: MediaSettings = Field(default_factory=MediaSettings)
    text: TextSettings = Field(default_factory=TextSettings)
    audio: AudioSettings = Field(default_factory=AudioSettings)
    faces: FacesSettings = Field(default_factory=FacesSettings)
    vision: VisionSettings = Field(default_factory=VisionSettings)


STORED = "recipe.json"

# Hub models whose commit is fixed here; any other one's is looked up once, when a folder is first made with it.
DEFAULT_MODEL = TextSettings().model
PINNED = {DEFAULT_MODEL: TextSettings().revision}

# `paper` follows the paper's text (section 4.1); `authors-code` what the released code did instead.
NAMED: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {},
    "authors-code": {
        "audio": {"first": "zcr", "mfcc_htk": True},
        "vision": {"input": "original", "drop_invalid": True, "average": 5},
    },
}


def load_recipe(name_or_file: str) -> dict[str, dict[str, Any]]:
    """Read the settings of a named recipe or of a TOML file.

    Raises
    ------
    InputError
        The name is unknown and no such file is there, or the file is not TOML.
    """
    if name_or_file in NAMED:
        return {section: dict(values) for section, values in NAMED[name_or_file].items()}
    path = Path(name_or_file)
    if not path.is_file():
        raise InputError(
            f"recipe {name_or_file!r}: neither a named recipe ({', '.join(NAMED)}) nor a TOML file that exists; "
            "`triptych recipes` lists the named ones"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a TOML recipe ({error}); `triptych recipes paper` prints one"
        ) from error


def store_recipe(folder: Path, recipe: Recipe, fingerprints: Mapping[str, str]) -> None:
    """Write a feature folder's recipe.json: every setting, resolved, and the stages' fingerprints."""
    document = {"recipe": recipe.model_dump(mode="json"), "fingerprints": dict(fingerprints)}
    write_whole(folder / STORED, json.dumps(document, indent=2, ensure_ascii=False).encode())


def stored_recipe(folder: Path) -> dict[str, Any] | None:
    """Read a feature folder's recipe.json: its ``recipe`` and ``fingerprints``, or None where there is none.

    Raises
    ------
    InputError
        It is damaged.
    """
    path = folder / STORED
    try:
        stored = json.loads(path.read_bytes())
        return {"recipe": dict(stored["recipe"]), "fingerprints": dict(stored["fingerprints"])}
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise InputError(
            f"{path}: no recipe of a feature folder (it lacks {error}); name one that `triptych extract` made"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); remove it, and `triptych extract` "
            "writes it again for the recipe that you give it"
        ) from error


def parse_assignments(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Turn ``section.name=value`` words into settings; values are TOML, or else plain text.

    Raises
    ------
    InputError
        A word is not of that form.
    """
    settings: dict[str, dict[str, Any]] = {}
    mistakes = []
    for word in assignments:
        parts = split_assignment(word)
        if parts is None or len(parts[0]) != 2:
            mistakes.append(f"--set {word}: expected section.name=value, as in --set vision.backend=facemesh")
            continue
        (section, name), value = parts
        settings.setdefault(section, {})[name] = parse_value(value)
    if mistakes:
        raise InputError(mistakes)
    return settings


def build_recipe(*layers: Mapping[str, Mapping[str, Any]], where: str = "recipe") -> Recipe:
    """Lay settings over the defaults, later layers over earlier ones.

    Raises
    ------
    InputError
        A section or setting is unknown or a value is out of range; all such mistakes at once.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            before = merged.get(section, {})
            if not (isinstance(values, Mapping) and isinstance(before, Mapping)):
                merged[section] = before if section in merged else values  # refused below, by its name
                continue
            merged[section] = {**before, **values}
            other_model = values.get("model") not in (None, before.get("model", DEFAULT_MODEL))
            if section == "text" and other_model and "revision" not in values:
                # A revision belongs to its model: what was pinned says nothing about another one.
                merged[section]["revision"] = PINNED.get(str(values["model"]), "")
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise InputError([_explain(where, dict(problem)) for problem in error.errors()]) from error


def _explain(where: str, problem: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {place} = {problem['input']!r}: {problem['msg']}"
    model: Any = Recipe
    for part in problem["loc"][:-1]:
        model = model.model_fields[part].annotation
    return f"{where}: {place}: no such setting; there are {', '.join(model.model_fields)}"


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, every setting with the sentence that describes it."""
    lines = []
    for section, field in Recipe.model_fields.items():
        values = getattr(recipe, section)
        lines.append(f"[{section}]")
        model: Any = field.annotation
        for name, setting in model.model_fields.items():
            lines.append(
                f"{name} = {json.dumps(getattr(values, name), ensure_ascii=False)}  # {setting.description}"
            )
        lines.append("")
    return "\n".join(lines)
