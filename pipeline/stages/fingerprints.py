"""The fingerprint of each stage: a hash of the settings, models and code that compute its features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from triptych.extractors.base import BackendMissingError, UnusableSettingError, package_version
from triptych.extractors.registry import stages
from triptych.extractors.settings import MEDIA_VERSION
from triptych.extractors.stage import Stage
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.graph import with_upstream
from triptych.pipeline.stages.recipe import Recipe


def resolve(recipe: Recipe, names: Iterable[str], missing: list[str] | None = None) -> Recipe:
    """Replace settings that a recipe leaves open by what this machine has, and check that they can be used.

    Parameters
    ----------
    missing
        Collects what is said of models that cannot be loaded; without it, the first one is raised.

    Raises
    ------
    InputError
        A setting of a named stage cannot be used on this machine; every such stage is listed.
    triptych.extractors.base.BackendMissingError
        A model cannot be loaded.
    """
    problems = []
    for name in with_upstream(names):
        try:
            stage = stages()[name]
            recipe = recipe.replaced(name, _of_stage(stage, stage.resolve, recipe.section(name)))
        except UnusableSettingError as error:
            problems.append(str(error))
        except BackendMissingError as error:
            if missing is None:
                raise
            missing.append(str(error))
    if problems:
        raise InputError(problems)
    return recipe


def _of_stage(stage: Stage, function: Callable[[Any], Any], settings: Any) -> Any:
    """Call a function of a declaration; what the code of another package raises becomes one clear error."""
    try:
        return function(settings)
    except (BackendMissingError, UnusableSettingError, InputError, OSError):
        raise
    except Exception as error:
        raise InputError(
            f"stage {stage.name}: its declaration failed ({type(error).__name__}: {error}). Update the package that "
            "declares it, or leave the stage out of --only"
        ) from error


def software(stage: Stage) -> dict[str, str]:
    """Return the versions of triptych and of the packages that compute a stage's numbers."""
    names = ("triptych", *stage.packages, "numpy")
    return {name: found for name in names if (found := package_version(name)) is not None}


def fingerprints(
    recipe: Recipe, names: Iterable[str] | None = None, fixed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Compute each stage's SHA-256 (hex) over its settings, models, code and upstream stages.

    Rows with equal fingerprints are interchangeable; options that only change speed are not included.

    Parameters
    ----------
    names
        The requested stages, by default the recipe's; the stages that they read are added.
    fixed
        Fingerprints of stages that a run does not touch and whose model may be missing on this machine. They are
        used unchanged if the fingerprints of their upstream stages are unchanged too.
    """
    fixed = fixed or {}
    result: dict[str, str] = {}
    for name in with_upstream(recipe.stages if names is None else names):
        stage = stages()[name]
        if name in fixed and all(result[up] == fixed.get(up) for up in stage.upstream):
            result[name] = fixed[name]
            continue
        content = {
            "stage": name,
            "code": stage.version,
            "settings": _decisive_settings(stage, recipe),
            "model": _of_stage(stage, stage.model_identity, recipe.section(name)),
            "upstream": {up: result[up] for up in stage.upstream},
        }
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        result[name] = hashlib.sha256(canonical.encode()).hexdigest()
    return result


def same_settings(name: str, one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes have the same settings of a stage, its model's name included."""
    media = all(
        getattr(one.media, setting) == getattr(other.media, setting)
        for setting in stages()[name].media_settings
    )
    return media and one.section(name) == other.section(name)


def _decisive_settings(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Return what decides a stage's rows besides its own code and model: settings, and the version of decoding."""
    media = recipe.media.model_dump(mode="json")
    own = recipe.section(stage.name).model_dump(mode="json")
    return {
        **({"media.code": MEDIA_VERSION} if "media" in stage.sources else {}),
        **{f"media.{setting}": media[setting] for setting in stage.media_settings},
        stage.name: {key: value for key, value in own.items() if key not in stage.identified},
    }
