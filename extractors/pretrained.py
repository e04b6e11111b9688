"""Find, load and identify pretrained models of transformers: in a folder, the cache or the hub. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from triptych.extractors.base import BackendMissingError
from triptych.extractors.model_cache import cache_folder
from triptych.extractors.settings import PretrainedSettings
from triptych.extractors.stage import Downloaded

Chosen = TypeVar("Chosen", bound=PretrainedSettings)
Loaded = TypeVar("Loaded")

# Files that a model's numbers depend on; its card and similar files do not matter.
MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".bin"}
COMMIT = re.compile("[0-9a-f]{40}")


def resolve_model(settings: Chosen) -> Chosen:
    """Check, before any work starts, that the model is on disk or can be downloaded; pin its revision.

    Returns
    -------
    PretrainedSettings
        The same settings, with the hub's commit in `revision`; for a folder, its absolute path and no revision.

    Raises
    ------
    BackendMissingError
        The model is neither on disk nor on the hub; the text says how to get it.
    """
    from huggingface_hub import hf_hub_download

    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackendMissingError(
                f"{settings.section}.model = {settings.model}: the folder has no config.json, so it is no model. "
                "Name a folder that transformers' save_pretrained wrote."
            )
        refuse_own_code(settings, folder)
        return settings.model_copy(update={"model": str(folder.resolve()), "revision": ""})
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its retries are reported once, by the error below
    try:
        snapshot = cached_snapshot(settings)
        if snapshot is None:
            revision = settings.revision or "main"
            snapshot = Path(hf_hub_download(settings.model, "config.json", revision=revision)).parent
    except Exception as error:  # the hub's client raises errors of several libraries
        raise BackendMissingError(how_to_get(settings, str(error))) from error
    finally:
        logger.setLevel(level)
    refuse_own_code(settings, snapshot)
    return settings.model_copy(update={"revision": snapshot.name})


def refuse_own_code(settings: PretrainedSettings, folder: Path) -> None:
    """Refuse a model that names Python code of its own in one of its configuration files.

    transformers would ask on the terminal whether to run it, or silently use a class of its own in its place, whose
    numbers are not those of the model.

    Raises
    ------
    BackendMissingError
        A file has an ``auto_map``.
    """
    for file in sorted(folder.glob("*config.json")):  # of the model, its tokenizer and its preprocessor
        if _names_code(file):
            raise BackendMissingError(
                f"{settings.section}.model = {settings.model}: {file.name} names Python code of the model (auto_map), "
                "which triptych never runs. Name a model whose architecture is part of transformers: "
                f"--set {settings.section}.model=NAME. Or leave the stage out: --only {_others(settings.section)}"
            )


def _names_code(file: Path) -> bool:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # transformers refuses it
    parts = [content, *content.values()] if isinstance(content, dict) else []
    return any(isinstance(part, dict) and part.get("auto_map") for part in parts)


def cached_snapshot(settings: PretrainedSettings) -> Path | None:
    """Locate a hub model's folder ``.../snapshots/<commit>`` in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision or "main")
    return Path(found).parent if isinstance(found, str) else None


def model_identity(settings: PretrainedSettings) -> str:
    """Identify a model by what decides its numbers: the hub's commit, or a folder's content (not its path)."""
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        return f"{settings.model}@{settings.revision or 'main'}"
    whole = hashlib.sha256()
    for file in _model_files(folder):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.name}\0{digest}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def remembered_identity(settings: PretrainedSettings) -> str | None:
    """Identify a model as `model_identity` does, reading files again only if they changed; for worker processes.

    Returns
    -------
    str or None
        None if a branch of a hub model is not cached yet, so that its commit is unknown.
    """
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        if not COMMIT.fullmatch(settings.revision):
            snapshot = cached_snapshot(settings)
            if snapshot is None:
                return None
            settings = settings.model_copy(update={"revision": snapshot.name})
        return model_identity(settings)
    statuses = {file.name: file.stat() for file in _model_files(folder)}
    status = {
        name: [each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns]
        for name, each in statuses.items()
    }
    key = hashlib.sha256(json.dumps([str(folder.resolve()), status]).encode()).hexdigest()[:32]
    try:
        memo = cache_folder() / "identities" / key
        if memo.is_file():
            return memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return model_identity(settings)
    identity = model_identity(settings)
    _remember(memo, identity)
    return identity


def _remember(memo: Path, identity: str) -> None:
    unfinished = memo.with_name(f".{memo.name}-{os.getpid()}")
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(identity, encoding="ascii")
        unfinished.replace(memo)
    except OSError:  # without a writable cache only time is lost
        with suppress(OSError):
            unfinished.unlink()


def _model_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES)


def how_to_get(settings: PretrainedSettings, cause: str) -> str:
    """Compose the error message: why a model cannot be loaded, and how to get it."""
    from huggingface_hub import constants

    revision = f" --revision {settings.revision}" if settings.revision else ""
    first_line = cause.strip().splitlines()[0] if cause.strip() else "no reason given"
    return (
        f"{settings.section}.model = {settings.model}: cannot be loaded. It is not a folder with a model, not in the "
        f"cache ({constants.HF_HUB_CACHE}), and the hub does not provide it ({first_line}). "
        f"With a network, run `hf download {settings.model}{revision}`; HF_ENDPOINT names a mirror of the hub. Without "
        "one, copy that cache from a machine that has it and set HF_HOME to it, or give a folder: "
        f"--set {settings.section}.model=FOLDER. Or leave the stage out: --only {_others(settings.section)}"
    )


def _others(section: str) -> str:
    from triptych.extractors.registry import stages  # which imports the stages that import this module

    return ",".join(name for name, stage in stages().items() if stage.default and name != section)


def keep_model(own: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the model and the revision that were resolved in a folder, unless a new section names another model."""
    resolved = {name: own[name] for name in ("model", "revision") if name in own}
    if "model" not in new:
        return {} if "revision" in new else resolved
    same = new["model"] == own.get("model") and "revision" not in new and "revision" in own
    return {"revision": own["revision"]} if same else {}


def download(settings: Chosen, load: Callable[[Chosen], object]) -> Downloaded:
    """Download a model by loading it as a run does, so that the cache has exactly the files that a run needs."""
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
        The stage's settings, resolved.
    load
        Called with the keyword arguments of ``from_pretrained`` that say where the model is. Code that comes with
        a model is never run.

    Raises
    ------
    BackendMissingError
        The model is in none of them, cannot be read, or names code of its own.
    """
    folder = Path(settings.model).expanduser()
    local: dict[str, Any] = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    hub: dict[str, Any] = {
        "pretrained_model_name_or_path": settings.model,
        "revision": settings.revision or "main",
    }
    # The cache is tried first: if all files are cached, a broken network must not cause timeouts.
    sources = [local] if folder.is_dir() else [{**hub, "local_files_only": True}, hub]
    cause: Exception = OSError("nothing was tried")
    if found := folder if folder.is_dir() else cached_snapshot(settings):
        refuse_own_code(settings, found)
    for source in sources:
        try:
            with quiet_transformers():
                return load(**source, trust_remote_code=False)
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # a damaged or hostile model: errors of transformers, torch, safetensors and pickle
            cause = error
    raise BackendMissingError(how_to_get(settings, str(cause))) from cause


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide progress bars of loading and reports of unused weights (pre-training heads)."""
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
