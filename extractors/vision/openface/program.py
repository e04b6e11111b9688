"""Find and identify OpenFace's program, and check it without running it. No numpy."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from triptych.extractors.vision.openface import processors

NAME = "FeatureExtraction"
VARIABLE = "OPENFACE_BIN"
SECONDS_VARIABLE = "OPENFACE_SECONDS_PER_FRAME"
SECONDS_PER_FRAME = 0.5  # 14 ms are usual; this allows for a slow model on a busy machine
START_FRAMES = 120  # time allowed for loading the models, as a number of images
# These six give all 714 columns, and prevent videos, HOG files and aligned images from being written.
ALL_COLUMNS = ("-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze")
# The program searches them in its working directory, beside itself, and in its installation folder.
MODEL_FOLDERS = ("model", "AU_predictors", "classifiers")
# Without these it crashes or changes its results silently: without the last one it uses another face detector.
NEEDED = ("model", "AU_predictors", "model/detection_validation", "model/mtcnn_detector")
# The main files of the landmark models, in the order in which the program prefers them.
LANDMARK_MODELS = ("main_ceclm_general.txt", "main_clnf_general.txt")
_MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64"}  # ELF's numbers for them
_SYNONYMS = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Identity:
    """What the program's numbers depend on; its path is not part of it.

    Attributes
    ----------
    program, models
        SHA-256 of the program's file, and of the names and contents of its model folders ("" if none is found).
    landmark_model
        File name of the main model that it takes by default.
    """

    program: str
    models: str
    landmark_model: str


def find() -> Path | None:
    """Find the program, named by OPENFACE_BIN or else on PATH; return its absolute path without links.

    Links are resolved because the program searches its models beside the path that it is called by.
    """
    named = os.environ.get(VARIABLE) or shutil.which(NAME)
    return Path(named).resolve() if named and Path(named).is_file() else None


def invalid_path() -> str | None:
    """Return an error message when OPENFACE_BIN names no file, so that no other program is used instead."""
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_file():
        return f"{VARIABLE} = {named}: file not found; set it to OpenFace's {NAME}, or unset it"
    return None


def arguments(program: Path, folders: Sequence[Path], output: Path) -> list[str]:
    """Give the command that writes ``<folder's name>.csv`` for each folder of images into `output`."""
    inputs = [word for folder in folders for word in ("-fdir", str(folder))]
    return [str(program), *ALL_COLUMNS, *inputs, "-out_dir", str(output)]


def seconds_allowed(frames: int) -> float:
    """Compute how long the program may take for so many images before it counts as hanging.

    Raises
    ------
    BackendMissingError
        OPENFACE_SECONDS_PER_FRAME is set, but not to a number above 0.
    """
    given = os.environ.get(SECONDS_VARIABLE, "")
    try:
        each = float(given or SECONDS_PER_FRAME)
    except ValueError:
        each = 0.0
    if not 0 < each < float("inf"):
        from triptych.extractors.base import BackendMissingError

        raise BackendMissingError(f"{SECONDS_VARIABLE} = {given}: set it to a number of seconds above 0")
    return (START_FRAMES + frames) * each


def models_folder(program: Path) -> Path | None:
    """Find the folder that holds ``model/``: beside the program, or the ``etc/OpenFace`` of its prefix."""
    folders = (program.parent, program.parent.parent / "etc" / "OpenFace")
    return next((folder for folder in folders if (folder / "model").is_dir()), None)


def identity(program: Path) -> Identity:
    """Identify the program; its models, about 500 MB, are read once per process."""
    status = program.stat()
    return _identity(program, status.st_size, status.st_mtime_ns)


@cache
def _identity(program: Path, size: int, mtime_ns: int) -> Identity:
    with program.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = models_folder(program)
    if folder is None:
        return Identity(digest, "", "")
    main = next((name for name in LANDMARK_MODELS if (folder / "model" / name).is_file()), "")
    return Identity(digest, _digest(folder), main)


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    files = (file for name in MODEL_FOLDERS for file in (folder / name).rglob("*") if file.is_file())
    for name, file in sorted((file.relative_to(folder).as_posix(), file) for file in files):
        with file.open("rb") as stream:
            whole.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def problem(program: Path) -> str | None:
    """Describe a problem of the program, or of this machine, that can be found without running it, and the remedy."""
    return _own_problem(program) or processors.problem()


def _own_problem(program: Path) -> str | None:
    if not os.access(program, os.X_OK):
        return f"{program} is not executable: chmod +x {program}"
    with program.open("rb") as file:
        head = file.read(20)
    script = head.startswith(b"#!")
    if not script and (wrong := _wrong_machine(program, head) or _missing_libraries(program)):
        return wrong
    folder = models_folder(program)
    if folder is None:
        # A script may start a program in another folder; only running it shows that.
        return None if script else f"{program}: no folder model/ beside it; copy OpenFace's models there"
    return _missing_models(program, folder)


def _wrong_machine(program: Path, head: bytes) -> str | None:
    if sys.platform != "linux":
        return None
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        return f"{program} is no program for Linux; install OpenFace built for it"
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    built = _MACHINES.get(number, f"ELF machine {number}")
    here = _SYNONYMS.get(platform.machine().lower(), platform.machine().lower())
    if built == here or (built, here) == ("i386", "x86_64"):
        return None
    return f"{program} is built for {built}, and this machine is {here}; install OpenFace built for {here}"


def _missing_libraries(program: Path) -> str | None:
    ldd = shutil.which("ldd")
    if ldd is None or sys.platform != "linux":
        return None
    result = subprocess.run(
        [ldd, str(program)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if "not found" in line]
    if not lines:
        return None
    names = ", ".join(dict.fromkeys(line.partition(" => ")[0] for line in lines))
    return f"{program} cannot be loaded, for ldd does not find {names}; install the packages that have them"


def _missing_models(program: Path, folder: Path) -> str | None:
    missing = [name for name in NEEDED if not (folder / name).is_dir()]
    if not any((folder / "model" / name).is_file() for name in LANDMARK_MODELS):
        missing.append(f"model/{LANDMARK_MODELS[0]}")
    if not missing:
        return None
    return f"{program}: {', '.join(missing)} missing in {folder}; copy OpenFace's own there"
