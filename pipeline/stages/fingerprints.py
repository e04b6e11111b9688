"""The stage graph, and the fingerprint that says which settings, models and code made a feature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import Any, Literal

from triptych.extractors.vision.openface import program
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One stream of features.

    Attributes
    ----------
    name
        Also the name of its folder.
    upstream
        Stages whose rows it reads.
    settings
        What of the recipe shapes its rows, as ``section`` or ``section.name``.
    source
        What of a clip it is made from, and hence what its digest is taken of.
    code
        Raised whenever a change of our code changes the numbers.
    packages
        Recorded in its shards.
    """

    name: str
    upstream: tuple[str, ...]
    settings: tuple[str, ...]
    source: Literal["text", "media"]
    code: int
    packages: tuple[str, ...]


_GRAPH = (
    Stage("text", (), ("text",), "text", 1, ("torch", "transformers")),
    Stage(
        "audio", (), ("media.sample_rate", "audio"), "media", 2, ("av", "librosa", "numba", "scipy", "soxr")
    ),
    Stage(
        "faces",
        (),
        ("media.frame_rate", "faces"),
        "media",
        1,
        ("av", "facenet-pytorch", "opencv-python", "torch"),
    ),
    # The backend adds its own: `triptych.extractors.vision.backends.VisionBackend.software`.
    Stage("vision", ("faces",), ("media.frame_rate", "vision"), "media", 1, ("av", "opencv-python")),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in _GRAPH}


def with_upstream(names: Iterable[str]) -> tuple[str, ...]:
    """Add to the named stages those that they read from, in the graph's order."""
    wanted = set(names)
    for stage in reversed(_GRAPH):
        if stage.name in wanted:
            wanted.update(stage.upstream)
    return tuple(name for name in STAGES if name in wanted)


def resolve(recipe: Recipe, stages: Iterable[str]) -> Recipe:
    """Replace what a recipe leaves to be found here by what was found, and check that it is here.

    Raises
    ------
    InputError
        A backend that a wanted stage needs is not installed.
    triptych.extractors.base.BackendMissingError
        The language model is not to be had.
    """
    wanted = set(stages)
    if "text" in wanted:
        from triptych.extractors.pretrained import resolve_model

        recipe = recipe.model_copy(update={"text": resolve_model(recipe.text)})
    if "vision" in wanted:
        found_by_looking = recipe.vision.backend == "auto"
        if found_by_looking:
            backend = "openface" if program.find() else "facemesh"
            recipe = recipe.model_copy(
                update={"vision": recipe.vision.model_copy(update={"backend": backend})}
            )
        if found_by_looking and (mistake := program.misnamed()):
            raise InputError(f"vision.backend = auto: {mistake}")
        _check_vision_backend(recipe.vision.backend)
    return recipe


def _check_vision_backend(backend: str) -> None:
    if backend == "openface":
        found = program.find()
        if found is None:
            nowhere = program.misnamed() or "no FeatureExtraction on PATH and OPENFACE_BIN names none"
            raise InputError(
                f"vision.backend = openface: {nowhere}; install OpenFace 2.x and set OPENFACE_BIN to its "
                "FeatureExtraction, or take --set vision.backend=facemesh"
            )
        if problem := program.problem(found):
            raise InputError(f"vision.backend = openface: {problem}")
        program.seconds_allowed(0)
        return
    if package_version("mediapipe") is None:
        raise InputError(
            "vision.backend = facemesh: the package mediapipe is not installed; "
            "`pip install 'triptych[facemesh]'` brings it, or leave vision out: --only text,audio,faces"
        )


def package_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def software(stage: Stage) -> dict[str, str]:
    """Versions of ours and of the packages that make a stage's numbers."""
    names = ("triptych", *stage.packages, "numpy")
    return {name: found for name in names if (found := package_version(name)) is not None}


def fingerprints(recipe: Recipe, kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """SHA-256 (hex) per stage over its settings, models, code and upstream stages.

    Two folders with equal fingerprints hold interchangeable rows; whatever only changes speed is not in it.

    Parameters
    ----------
    kept
        Fingerprints that stand as they are while those upstream of them do: of stages that a run leaves
        alone, whose model may not even be at hand.
    """
    kept = kept or {}
    result: dict[str, str] = {}
    for stage in _GRAPH:
        if stage.name in kept and all(result[name] == kept.get(name) for name in stage.upstream):
            result[stage.name] = kept[stage.name]
            continue
        content = {
            "stage": stage.name,
            "code": stage.code,
            "settings": _stage_settings(stage, recipe),
            "model": _model(stage, recipe),
            "upstream": {name: result[name] for name in stage.upstream},
        }
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        result[stage.name] = hashlib.sha256(canonical.encode()).hexdigest()
    return result


def same_settings(name: str, one: Recipe, other: Recipe) -> bool:
    """Whether two recipes say the same of a stage, its model's name included."""
    places = STAGES[name].settings
    return all(attrgetter(place)(one) == attrgetter(place)(other) for place in places)


def _stage_settings(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    everything = recipe.model_dump(mode="json")
    chosen: dict[str, Any] = {}
    for place in stage.settings:
        section, _, name = place.partition(".")
        chosen[place] = everything[section][name] if name else dict(everything[section])
    if stage.name == "text":  # what a model is called, or where it lies, is not what it is: see `_model`
        del chosen["text"]["model"], chosen["text"]["revision"]
    return chosen


def _model(stage: Stage, recipe: Recipe) -> str:
    if stage.name == "text":
        from triptych.extractors.pretrained import model_identity

        return model_identity(recipe.text)
    if stage.name == "vision" and recipe.vision.backend == "openface":
        found = program.find()
        which = program.identity(found) if found else None
        return f"openface {which.program} {which.models}" if which else "openface, not here"
    package = {"faces": "facenet-pytorch", "vision": "mediapipe"}.get(stage.name)  # both carry their weights
    return f"{package} {package_version(package)}" if package else ""
