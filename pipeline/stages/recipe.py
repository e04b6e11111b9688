"""The recipe: every setting of every stage, named recipes, and how a user changes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model, field_validator

from triptych.extractors.registry import stages
from triptych.extractors.settings import MediaSettings, PretrainedSettings, Settings
from triptych.pipeline.assignments import did_you_mean, parse_value, split_assignment
from triptych.pipeline.documents import read_toml
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted, shown

_DEFAULT_STAGES = tuple(name for name, stage in stages().items() if stage.default)
_StageNames = Annotated[tuple[str, ...], Field(description="Stages to extract unless --only names others.")]
_FIELDS: dict[str, Any] = {
    "stages": (_StageNames, _DEFAULT_STAGES),
    "media": (MediaSettings, Field(default_factory=MediaSettings)),
    **{name: (stage.settings, Field(default_factory=stage.settings)) for name, stage in stages().items()},
}
_Sections: Any = create_model("_Sections", __base__=Settings, **_FIELDS)


class Recipe(_Sections):  # type: ignore[misc]  # its sections are those of the registered stages
    """All settings of an extraction: the media settings, and one section for each stage, by its name."""

    @field_validator("stages")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in stages()]:
            hint = f".{did_you_mean(unknown[0], stages())}".rstrip(".")
            raise ValueError(f"unknown stage {', '.join(unknown)}; choose from {', '.join(stages())}{hint}")
        return names

    def section(self, stage: str) -> Settings:
        """Return the settings of one stage."""
        settings: Settings = getattr(self, stage)
        return settings

    def replaced(self, stage: str, settings: Settings) -> Recipe:
        """Return the same recipe with other settings of one stage."""
        copy: Recipe = self.model_copy(update={stage: settings})
        return copy


# `paper` follows the paper's text (section 4.1); `authors-code` what the released code did instead.
NAMED: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {},
    "authors-code": {
        "audio": {"first": "zcr", "mfcc_htk": True},
        "vision": {"input": "original", "drop_invalid": True, "average": 5},
    },
}


def load_recipe(name_or_file: str) -> dict[str, Any]:
    """Read the settings of a named recipe or of a TOML file.

    Raises
    ------
    InputError
        The name is neither a built-in recipe nor a file, or the file is not TOML.
    """
    if name_or_file in NAMED:
        return {section: dict(values) for section, values in NAMED[name_or_file].items()}
    path = Path(name_or_file)
    if not path.is_file():
        raise InputError(
            f"recipe {name_or_file!r}: neither a named recipe ({', '.join(NAMED)}) nor an existing TOML file."
            f"{did_you_mean(name_or_file, NAMED) or ' `triptych recipes` lists the named ones'}"
        )
    try:
        return read_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: not valid TOML ({shown(str(error))}); `triptych recipes paper` prints a valid recipe"
        ) from error


def parse_assignments(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Convert ``section.name=value`` texts to settings; values are TOML, or else plain text.

    Raises
    ------
    InputError
        A text does not have that form.
    """
    settings: dict[str, dict[str, Any]] = {}
    problems = []
    for assignment in assignments:
        parts = split_assignment(assignment)
        if parts is None or len(parts[0]) != 2:
            problems.append(
                f"--set {assignment}: expected SECTION.NAME=VALUE, such as --set vision.backend=facemesh"
            )
            continue
        (section, name), value = parts
        settings.setdefault(section, {})[name] = parse_value(value)
    if problems:
        raise InputError(problems)
    return settings


def build_recipe(*layers: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Lay settings over the defaults, later layers over earlier ones.

    Raises
    ------
    InputError
        A section or setting is unknown or a value is out of range; all such errors at once.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            before = merged.get(section, {})
            if isinstance(values, Mapping) and isinstance(before, Mapping):
                merged[section] = {**before, **values, **_revision(section, before, values)}
            elif section == "stages" or section not in merged:
                merged[section] = values  # other names are refused below
    try:
        recipe: Recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise InputError([_explain(where, dict(problem)) for problem in error.errors()]) from error
    return recipe


def _revision(section: str, before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the revision of a model named without one: pinned for the default model, else the newest."""
    stage = stages().get(section)
    if stage is None or not issubclass(stage.settings, PretrainedSettings):
        return {}
    default: Any = stage.settings()  # type: ignore[call-arg]  # a stage's settings all have defaults
    if "revision" in values or values.get("model") in (None, before.get("model", default.model)):
        return {}
    return {"revision": default.revision if values["model"] == default.model else ""}


def _explain(where: str, problem: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    name = shown(".".join(path))
    if problem["type"] != "extra_forbidden":
        return f"{where}: {name} = {quoted(problem['input'])}: {problem['msg']}"
    valid = _setting_names(Recipe)
    section = path[:-1]
    names = [each[-1] for each in valid if each[:-1] == section]
    hint = f".{did_you_mean('.'.join(path), ['.'.join(each) for each in valid])}".rstrip(".")
    return f"{where}: {name}: unknown setting; choose from {', '.join(names)}{hint}"


def _setting_names(model: type[Settings], section: tuple[str, ...] = ()) -> list[list[str]]:
    """Return the path of every section and setting, the outer ones first."""
    names = [[*section, name] for name in model.model_fields]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            names += _setting_names(field.annotation, (*section, name))
    return names


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, every setting with the sentence that describes it.

    The sections of stages that are off by default come last.
    """
    described = Recipe.model_fields["stages"].description
    lines = [f"stages = {json.dumps(list(recipe.stages))}  # {described}", ""]
    sections = [name for name in Recipe.model_fields if name != "stages"]
    for section in sections:
        values = getattr(recipe, section)
        lines.append(f"[{section}]")
        lines += [
            f"{name} = {_toml(getattr(values, name))}  # {setting.description}"
            for name, setting in type(values).model_fields.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
