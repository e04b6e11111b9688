"""The registry of stages: the built-in ones, one line each, and those of installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from triptych.extractors.stage import Stage

ENTRY_POINTS = "triptych.stages"

# Each module declares its stage as `STAGE`. A stage comes after those whose rows it reads.
BUILT_IN = (
    "triptych.extractors.text.stage",
    "triptych.extractors.audio.stage",
    "triptych.extractors.faces.stage",
    "triptych.extractors.vision.stage",
    "triptych.extractors.speech",
    "triptych.extractors.appearance",
    "triptych.extractors.egemaps",
    "triptych.extractors.cutting.voice_stage",
    "triptych.extractors.cutting.scenes_stage",
    "triptych.extractors.words.stage",
    "triptych.extractors.asr.stage",
)
# Names that a feature folder or a recipe uses for something else.
RESERVED = frozenset({"media", "stages", "ledger", "manifest", "recipe", "index", "imported"})
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Registry:
    """All stages, each after those whose rows it reads.

    Attributes
    ----------
    stages
        By name.
    problems
        Stages of installed packages that cannot be used: one sentence each, with the remedy.
    """

    stages: Mapping[str, Stage]
    problems: tuple[str, ...] = field(default=())


@cache
def registry() -> Registry:
    """Load all declarations, once per process."""
    built_in = [import_module(module).STAGE for module in BUILT_IN]
    return assemble(built_in, entry_points(group=ENTRY_POINTS))


def stages() -> Mapping[str, Stage]:
    """Return all stages, by name."""
    return registry().stages


def assemble(built_in: Iterable[Stage], points: Iterable[EntryPoint]) -> Registry:
    """Join the built-in stages with those of entry points; a broken package loses only its own stages."""
    found = {stage.name: stage for stage in built_in}
    problems = []
    waiting: dict[str, tuple[EntryPoint, Stage]] = {}
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        stage = _loaded(point)
        problem = stage if isinstance(stage, str) else _problem(stage, {*found, *waiting})
        if problem or isinstance(stage, str):
            problems.append(f"stage {point.name!r} of {_distribution(point)}: {problem}")
        else:
            waiting[stage.name] = point, stage
    while ready := [name for name, (_, stage) in waiting.items() if set(stage.upstream) <= found.keys()]:
        found |= {name: waiting.pop(name)[1] for name in ready}
    problems += [
        f"stage {name!r} of {_distribution(point)}: it reads rows of "
        f"{', '.join(sorted(set(stage.upstream) - found.keys()))}, which no installed package declares"
        for name, (point, stage) in waiting.items()
    ]
    return Registry(found, tuple(problems))


def _loaded(point: EntryPoint) -> Stage | str:
    try:
        stage = point.load()
    except (Exception, SystemExit) as error:  # the import of a foreign module may raise anything
        return f"cannot be loaded ({type(error).__name__}: {error}); update or remove the package"
    if not isinstance(stage, Stage):
        return f"{point.value} is a {type(stage).__name__}, not a triptych.extractors.stage.Stage"
    return stage


def _problem(stage: Stage, taken: set[str]) -> str | None:
    if not _NAME.fullmatch(stage.name) or stage.name in RESERVED:
        return f"the name {stage.name!r} cannot be used; take lower-case letters, digits, - and _"
    return f"another stage is named {stage.name!r} already" if stage.name in taken else None


def _distribution(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist else point.value
