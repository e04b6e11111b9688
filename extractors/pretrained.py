"""Where a language model is - a folder, the hub's cache, the hub - and which one it is. Imports no torch."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from triptych.extractors.base import BackendMissingError
from triptych.extractors.settings import TextSettings

# What a model's numbers depend on; its card and the like do not count.
MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".bin"}


def resolve_model(settings: TextSettings) -> TextSettings:
    """Make sure, before any work is begun, that the model is here or can be fetched; pin its revision.

    Returns
    -------
    TextSettings
        The same settings, with the hub's commit in `revision`; of a folder, its absolute path and no revision.

    Raises
    ------
    BackendMissingError
        There is no such model here and the hub gives none; the text says how to get it.
    """
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackendMissingError(
                f"text.model = {settings.model}: the folder holds no config.json, so no model"
            )
        return settings.model_copy(update={"model": str(folder.resolve()), "revision": ""})
    revision = settings.revision or "main"
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its retries are told once, by the error below
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


def model_identity(settings: TextSettings) -> str:
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


def how_to_get(settings: TextSettings, cause: str) -> str:
    """Say in one message why a model is not here and what brings it."""
    revision = f" --revision {settings.revision}" if settings.revision else ""
    first_line = cause.strip().splitlines()[0] if cause.strip() else "no reason given"
    return (
        f"text.model = {settings.model}: cannot be loaded, being neither a folder with a model, nor in the cache "
        f"({constants.HF_HUB_CACHE}), nor to be had from the hub ({first_line}). "
        f"With a network: `hf download {settings.model}{revision}`; without one, copy that cache from a machine "
        "that has it and set HF_HOME to it, or give a folder: --set text.model=FOLDER"
    )
