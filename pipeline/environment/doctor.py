"""Check what is installed on this machine, what is missing, and how to install it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from triptych.extractors.base import BackendMissingError, package_version
from triptych.extractors.registry import registry
from triptych.extractors.vision.facemesh import bundle
from triptych.extractors.vision.openface import processors, program
from triptych.pipeline.stages.recipe import Recipe

HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    what
        The component.
    state
        ``"ok"``, ``"optional"`` (missing, but only some uses need it) or ``"missing"`` (required).
    detail
        Version, path, or how to install it.
    """

    what: str
    state: Literal["ok", "optional", "missing"]
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Return the finding as a dict for JSON."""
        return asdict(self)


def examine(recipe: Recipe, *, quick: bool = False) -> list[Finding]:
    """Check everything that a recipe needs on this machine. Nothing is changed.

    Parameters
    ----------
    recipe
        The settings whose requirements are checked.
    quick
        Load no library and run no program, for a container's health check.
    """
    quick_checks: list[Callable[[Recipe], Finding]] = [
        _python, _packages, _threads, _face_detector, _facemesh, _openface_file
    ]  # fmt: skip
    checks: list[Callable[[Recipe], Finding]] = [
        _python, _packages, _opencv, _decoder, _threads, _torch_device,
        _language_model, _face_detector, _facemesh, _openface,
    ]  # fmt: skip
    broken = [Finding("stage package", "optional", problem) for problem in registry().problems]
    return [_guarded(check, recipe) for check in (quick_checks if quick else checks)] + broken


def examine_models(recipe: Recipe, *, text: bool) -> list[Finding]:
    """Check only the models and programs of a recipe's stages; no library is loaded, no program run.

    Parameters
    ----------
    text
        Whether there are transcripts, so that the language model is needed.
    """
    checks: list[Callable[[Recipe], Finding]] = [_face_detector, _facemesh, _openface_file]
    return [_guarded(check, recipe) for check in ([_language_model] * text) + checks]


def _guarded(check: Callable[[Recipe], Finding], recipe: Recipe) -> Finding:
    try:
        return check(recipe)
    except Exception as error:  # a broken library may raise anything when it is imported
        return Finding(
            check.__name__.strip("_").replace("_", " "), "missing", f"{type(error).__name__}: {error}"
        )


def _python(recipe: Recipe) -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages(recipe: Recipe) -> Finding:
    wanted = ("av", "click", "facenet-pytorch", "h5py", "joblib", "librosa", "numpy", "opencv-python-headless",
              "pydantic", "rich", "scikit-learn", "soxr", "torch", "torchvision", "transformers")  # fmt: skip
    found = {name: package_version(name) for name in wanted}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return Finding(
            "packages",
            "missing",
            f"not installed: {', '.join(missing)}; `pip install triptych` installs them",
        )
    return Finding("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _opencv(recipe: Recipe) -> Finding:
    import_opencv()
    import cv2

    return Finding("opencv", "ok", cv2.__version__)


def import_opencv() -> None:
    """Import cv2, which needs system libraries that are missing on minimal systems.

    Raises
    ------
    triptych.extractors.base.BackendMissingError
        cv2 cannot be loaded; the message names the system packages to install.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise BackendMissingError(
            f"OpenCV (cv2) cannot be loaded ({error}). The headless build needs no system library: `pip install "
            "--force-reinstall opencv-python-headless`; another build needs libgl1 and libglib2.0-0"
        ) from error


def _decoder(recipe: Recipe) -> Finding:
    import av

    return Finding("decoder", "ok", f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def _threads(recipe: Recipe) -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(
        "cores",
        "ok",
        f"{usable} usable; extract starts one worker process for each, unless -j sets the number",
    )


def _torch_device(recipe: Recipe) -> Finding:
    import torch

    device = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
    return Finding("torch device", "ok", f"torch {torch.__version__}, {device}")


def _language_model(recipe: Recipe) -> Finding:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    from triptych.extractors.pretrained import how_to_get

    settings = recipe.text
    if Path(settings.model).expanduser().is_dir():
        return Finding("language model", "ok", f"folder {settings.model}")
    found = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision or "main")
    if isinstance(found, str):
        return Finding("language model", "ok", f"{settings.model}, cached at {Path(found).parent}")
    if constants.HF_HUB_OFFLINE:
        return Finding("language model", "missing", how_to_get(settings, "offline mode is on"))
    try:
        address = hf_hub_url(settings.model, "config.json", revision=settings.revision or "main")
        get_hf_file_metadata(address, timeout=HUB_SECONDS)
    except Exception as error:  # the hub's client raises errors of several libraries
        return Finding("language model", "missing", how_to_get(settings, str(error)))
    return Finding(
        "language model",
        "optional",
        f"{settings.model}: not cached in {constants.HF_HUB_CACHE}; the first run downloads it",
    )


def _face_detector(recipe: Recipe) -> Finding:
    spec = find_spec("facenet_pytorch")
    weights = Path(spec.origin).parent / "data" if spec and spec.origin else None
    names = [weights / f"{net}net.pt" for net in "pro"] if weights else []
    if not names or not all(name.is_file() for name in names):
        return Finding(
            "face detector",
            "missing",
            "MTCNN's weights not found; `pip install facenet-pytorch==2.5.3` installs them",
        )
    return Finding("face detector", "ok", f"MTCNN, facenet-pytorch {package_version('facenet-pytorch')}")


def _facemesh(recipe: Recipe) -> Finding:
    version = package_version("ai-edge-litert")
    if version is None:
        return Finding(
            "facemesh", "optional", "not installed; `pip install 'triptych[facemesh]'` installs it"
        )
    settings = recipe.vision
    if settings.model:
        try:
            bundle.model_file(settings.model)
        except BackendMissingError as error:
            return Finding("facemesh", "missing", str(error))
    if bundle.is_here(settings.model):
        return Finding("facemesh", "ok", f"ai-edge-litert {version}, {settings.model or bundle.NAME}")
    pull = "`triptych models pull --only vision`"
    remedy = (
        f"and offline mode is on (HF_HUB_OFFLINE): run {pull} without it"
        if bundle.is_offline()
        else f"the first run fetches it, or {pull}"
    )
    missing = f"its model {bundle.NAME} is not in the cache"
    return Finding("facemesh", "optional", f"ai-edge-litert {version}; {missing}: {remedy}")


def _openface(recipe: Recipe) -> Finding:
    from triptych.extractors.vision.openface.check import trial

    finding = _openface_file(recipe)
    found = program.find()
    if finding.state != "ok" or found is None:
        return finding
    run = trial(found)
    if run.problem or run.ending is None:
        return _broken_openface(recipe, run.problem or "not run")
    try:
        which = program.identity(found, run.ending)
    except BackendMissingError as error:
        return _broken_openface(recipe, str(error))
    started = run.ending.launched.program if run.ending.launched else found
    parts = [
        str(found) if started == found else f"{found}, which runs {started}",
        Path(program.loaded_model(run.ending.output)).name or "landmark model not reported",
        f"sha256 {which.program[:16]}",
    ]
    if processors.widened():
        parts.append("bound to one processor, so that OpenFace gets a second processor")
    return Finding("openface", "ok", ", ".join(parts))


def _openface_file(recipe: Recipe) -> Finding:
    found = program.find()
    if found is None:
        if problem := program.invalid_path():
            return _broken_openface(recipe, problem)
        state: Literal["optional", "missing"] = (
            "missing" if recipe.vision.backend == "openface" else "optional"
        )
        return Finding(
            "openface",
            state,
            "FeatureExtraction not found; install OpenFace 2.x and set OPENFACE_BIN to it, or add it to PATH",
        )
    problem = program.problem(found)
    return _broken_openface(recipe, problem) if problem else Finding("openface", "ok", str(found))


def _broken_openface(recipe: Recipe, problem: str) -> Finding:
    """OpenFace is installed, so that `auto` would use it, but does not work."""
    return Finding("openface", "optional" if recipe.vision.backend == "facemesh" else "missing", problem)
