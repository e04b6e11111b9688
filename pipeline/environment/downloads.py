"""The models that a run would fetch from a hub as it begins, brought into the cache beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from triptych.extractors.pretrained import resolve_model
from triptych.extractors.settings import TextSettings
from triptych.pipeline.stages.recipe import Recipe


@dataclass(frozen=True)
class Pulled:
    """One model that is here now.

    Attributes
    ----------
    revision
        The hub's commit; empty for a folder.
    place
        Where its files lie.
    """

    name: str
    revision: str
    place: Path


def pull(recipe: Recipe) -> Pulled:
    """Fetch the language model, the one model that comes with no package; what is cached stays as it is.

    It is loaded as a run loads it, so that exactly the files that a run opens are here afterwards.

    Raises
    ------
    triptych.extractors.base.BackendMissingError
        The hub cannot be reached or has no such model; the text says how else to get it.
    """
    settings = resolve_model(recipe.text)
    from triptych.extractors.text.encoder import (
        TextEncoder,  # after the hub's answer: torch takes its time to load
    )

    TextEncoder(settings)
    return Pulled(settings.model, settings.revision, _place(settings))


def _place(settings: TextSettings) -> Path:
    if not settings.revision:
        return Path(settings.model).expanduser()
    return Path(str(try_to_load_from_cache(settings.model, "config.json", revision=settings.revision))).parent
