"""Download of the models that a run would otherwise download at its start, and their export."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from triptych.extractors.model_cache import ExportError
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
    """Download the language model, the one model that comes with no package, and export it.

    It is loaded as a run loads it, so that exactly the files that a run opens are in the cache afterwards.
    What is cached already stays as it is. A model that cannot be exported is no error: a run uses torch.

    Raises
    ------
    triptych.extractors.base.BackendMissingError
        The hub cannot be reached or has no such model; the text says how else to get it.
    """
    settings = resolve_model(recipe.text)
    # Imported after the hub's answer, because torch takes seconds to import.
    from triptych.extractors.text.export import ensure_exported
    from triptych.extractors.text.torch_model import TorchModel

    TorchModel(settings)
    if settings.runtime == "onnx":
        with suppress(ExportError):
            ensure_exported(settings)
    return Pulled(settings.model, settings.revision, _place(settings))


def _place(settings: TextSettings) -> Path:
    if not settings.revision:
        return Path(settings.model).expanduser()
    return Path(str(try_to_load_from_cache(settings.model, "config.json", revision=settings.revision))).parent
