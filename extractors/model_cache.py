"""Exported models on disk: a model is exported once, under a lock, and loaded by any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from triptych.extractors.locks import exclusive

# Written last into an export's folder: the size of every other file, or why the model cannot be exported.
CONTENTS = "contents.json"


class ExportError(Exception):
    """A model cannot be exported, or its export differs from the model; the text says why."""


def cache_folder() -> Path:
    """Locate the cache: ``TRIPTYCH_CACHE``, else ``triptych`` in the user's cache folder.

    Raises
    ------
    OSError
        The user has no home folder.
    """
    if own := os.environ.get("TRIPTYCH_CACHE"):
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():  # the XDG specification ignores relative paths
        return Path(shared) / "triptych"
    try:
        return Path.home() / ".cache" / "triptych"
    except RuntimeError as error:
        raise OSError(str(error)) from error


def package_versions(*packages: str) -> dict[str, str]:
    """Look up the versions of installed packages, ``""`` for a missing one. Imports none of them."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    return versions


def _trust(folder: Path) -> bool:
    return True


def exported(
    kind: str,
    identity: Mapping[str, str],
    export: Callable[[Path], None],
    intact: Callable[[Path], bool] = _trust,
) -> Path:
    """Return the folder of a model's export, making it where it is missing.

    Of several processes that ask for the same export one makes it and the others wait. A folder appears
    complete or not at all. A failed export is stored too, so that it is not tried again.
    If the cache cannot be written (read-only, full), a temporary folder is used instead.

    Parameters
    ----------
    kind
        What is exported; the first part of the folder's name.
    identity
        What the export depends on: the model's content and the versions of the programs that export it.
    export
        Writes the export's files into a folder. May raise `ExportError`.
    intact
        Whether the files of an export, whose sizes are right, have the right content; if not, it is made again.

    Returns
    -------
    Path
        The folder that `export` filled, in this process or an earlier one.

    Raises
    ------
    ExportError
        The model cannot be exported, or no folder can store the export.
    """
    name = _name(kind, identity)
    for locate in (cache_folder, _temporary_folder):
        try:
            return _exported_in(locate() / "models", name, export, intact)
        except OSError as error:
            cause = error
    raise ExportError(f"no folder for exported models can be written ({cause})") from cause


def is_exported(kind: str, identity: Mapping[str, str], intact: Callable[[Path], bool] = _trust) -> bool:
    """Return whether the cache has this export, or a record that the export failed."""
    try:
        return _contents(cache_folder() / "models" / _name(kind, identity), intact) is not None
    except OSError:
        return False


def run_exporter(module: str, *arguments: str) -> None:
    """Run an export module in a separate process, so that this one does not import torch.

    A failure is ignored here: the process that needs the model meets the same problem and reports it.
    """
    # -P: no module of the current folder is imported.
    command = [sys.executable, "-P", "-m", module, *arguments]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _name(kind: str, identity: Mapping[str, str]) -> str:
    content = json.dumps(dict(identity), sort_keys=True).encode()
    return f"{kind}-{hashlib.sha256(content).hexdigest()[:32]}"


def _exported_in(
    root: Path, name: str, export: Callable[[Path], None], intact: Callable[[Path], bool]
) -> Path:
    folder = root / name
    contents = _contents(folder, intact)
    if contents is None:
        root.mkdir(parents=True, exist_ok=True)
        with exclusive(root / f"{name}.lock"):
            contents = _contents(folder, intact)  # another process may have made it meanwhile
            if contents is None:
                contents = _make(folder, export)
    if "error" in contents:
        raise ExportError(str(contents["error"]))
    return folder


def _make(folder: Path, export: Callable[[Path], None]) -> dict[str, object]:
    """Export into a hidden folder beside the final one and rename it."""
    for stale in (folder, *folder.parent.glob(f".{folder.name}-*")):  # damaged, or left by a killed process
        shutil.rmtree(stale, ignore_errors=True)
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        unfinished.mkdir()
        contents: dict[str, object]
        try:
            export(unfinished)
            contents = {"files": {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}}
        except ExportError as error:
            for file in unfinished.iterdir():
                file.unlink()
            contents = {"error": str(error)}
        (unfinished / CONTENTS).write_text(json.dumps(contents), encoding="utf-8")
        readable = (
            unfinished.stat().st_mode & 0o444
        )  # as the umask allows; onnx gives its files to the user alone
        for file in unfinished.iterdir():
            file.chmod(file.stat().st_mode | readable)
            _to_disk(file)
        _to_disk(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return contents


def _contents(folder: Path, intact: Callable[[Path], bool]) -> dict[str, object] | None:
    """Read what an export's folder has, or None where files are missing, cut short or damaged."""
    try:
        contents = json.loads((folder / CONTENTS).read_bytes())
        if "error" in contents:
            return dict(contents)
        sizes = {name: (folder / name).stat().st_size for name in contents["files"]}
        return dict(contents) if sizes == contents["files"] and intact(folder) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_folder() -> Path:
    """Make the user's own folder among the temporary files; one that others could write is not used."""
    folder = Path(tempfile.gettempdir()) / f"triptych-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} does not belong to this user alone")
    return folder
