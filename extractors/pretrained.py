"""Find, load and identify pretrained models of transformers: in a folder, the cache or the hub. Imports no torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from triptych.extractors.base import BackendMissingError
from triptych.extractors.settings import PretrainedSettings
from triptych.extractors.stage import Downloaded

Chosen = TypeVar("Chosen", bound=PretrainedSettings)
Loaded = TypeVar("Loaded")

# What a model's numbers depend on; its card and the like do not count.
MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".bin"}


def resolve_model(settings: Chosen) -> Chosen:
    """Make sure, before any work starts, that the model is cached or can be fetched, and pin its revision.

    Returns
    -------
    PretrainedSettings
        The same settings, with the hub's commit in `revision`; of a folder, its absolute path and no revision.

    Raises
    ------
    BackendMissingError
        The model is not on this machine and the hub does not give it; the text says how to get it.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackendMissingError(
                f"{settings.section}.model = {settings.model}: the folder holds no config.json, so no model"
            )
        return settings.model_copy(update={"model": str(folder.resolve()), "revision": ""})
    revision = settings.revision or "main"
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its retries are reported once, by the error below
    try:
        found = try_to_load_from_cache(settings.model, "config.json", revision=revision)
        if not isinstance(found, str):
            found = hf_hub_download(settings.model, "config.json", revision=revision)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise BackendMissingError(how_to_get(settings, str(error))) from error
    finally:
        logger.setLevel(level)
    return settings.model_copy(
        update={"revision": Path(found).parent.name}
    )  # .../snapshots/<commit>/config.json


def model_identity(settings: PretrainedSettings) -> str:
    """Name what the model's numbers depend on: a folder's content, wherever it lies, or the hub's commit."""
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        return f"{settings.model}@{settings.revision or 'main'}"
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.name}\0{digest}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def how_to_get(settings: PretrainedSettings, cause: str) -> str:
    """Say in one message why a model is missing and how to get it."""
    from huggingface_hub import constants

    revision = f" --revision {settings.revision}" if settings.revision else ""
    first_line = cause.strip().splitlines()[0] if cause.strip() else "no reason given"
    return (
        f"{settings.section}.model = {settings.model}: cannot be loaded. It is no folder with a model, it is not in "
        f"the cache ({constants.HF_HUB_CACHE}), and the hub does not give it ({first_line}). "
        f"With a network: `hf download {settings.model}{revision}`. Without one, copy that cache from a machine "
        "that has it and set HF_HOME to it, or give a folder: "
        f"--set {settings.section}.model=FOLDER"
    )


def keep_revision(own: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the revision that a folder resolved, where a new section names the same model and no revision."""
    same = "model" in new and new["model"] == own.get("model")
    return {"revision": own["revision"]} if same and "revision" not in new and "revision" in own else {}


def download(settings: Chosen, load: Callable[[Chosen], object]) -> Downloaded:
    """Fetch a model into the cache: it is loaded as a run loads it, so that exactly the files it needs are there."""
    from huggingface_hub import try_to_load_from_cache

    settings = resolve_model(settings)
    load(settings)
    if not settings.revision:
        return Downloaded(settings.model, "", str(Path(settings.model).expanduser()))
    config = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision)
    return Downloaded(settings.model, settings.revision, str(Path(str(config)).parent))


def load_pretrained(settings: PretrainedSettings, load: Callable[..., Loaded]) -> Loaded:
    """Load a model from its folder, the cache, or else the hub, in this order.

    Parameters
    ----------
    settings
        Resolved.
    load
        Called with the keyword arguments of ``from_pretrained`` that say where the model is. Code that comes with
        a model is never run.

    Raises
    ------
    BackendMissingError
        The model is in none of these places, or cannot be read.
    """
    from safetensors import SafetensorError

    folder = Path(settings.model).expanduser()
    local: dict[str, Any] = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    hub: dict[str, Any] = {
        "pretrained_model_name_or_path": settings.model,
        "revision": settings.revision or "main",
    }
    # The cache alone first: where everything is cached, a broken network must not cost its timeouts.
    sources = [local] if folder.is_dir() else [{**hub, "local_files_only": True}, hub]
    cause: Exception = OSError("nothing was tried")
    for source in sources:
        try:
            with quiet_transformers():
                return load(**source, trust_remote_code=False)
        except (OSError, ValueError, SafetensorError) as error:
            cause = error
    raise BackendMissingError(how_to_get(settings, str(cause))) from cause


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep loading bars and reports on unused weights (the heads of pre-training) off the terminal."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
