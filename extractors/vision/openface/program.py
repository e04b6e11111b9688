"""Find and identify OpenFace's program, and check it without running it. No numpy."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.extractors.vision.openface import processors
from triptych.extractors.vision.openface.launched import Launched, is_script

if TYPE_CHECKING:
    from triptych.extractors.vision.openface.process import Ending

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
        SHA-256 of the program's file (for a script: of the script and the program that it starts), and of the names
        and contents of its model folders ("" if none is found).
    landmark_model
        File name of the main model that it takes by default; for a script, of the one that was loaded.
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


def loaded_model(output: str) -> str:
    """Find the landmark model's path in the program's output; empty if it reports none."""
    found = re.search(r"landmark detector/tracker from: *(.+)", output)
    return found[1].strip() if found else ""


def identity(program: Path, run: Ending | None = None) -> Identity:
    """Identify the program; its models, about 500 MB, are read once per process.

    A script is identified together with the program that it starts and the models that this program loads.

    Parameters
    ----------
    run
        A run of the program that ended well. Without one, a script is run on one image.

    Raises
    ------
    BackendMissingError
        A script does not work, or what it starts cannot be found on this machine.
    """
    status = program.stat()
    key = (program, status.st_size, status.st_mtime_ns)
    if not is_script(program):
        return _identity(*key)
    if run is None or run.launched is None:
        return _identity(*key, *_trial(*key))
    return _identity(*key, run.launched, loaded_model(run.output))


@cache
def _trial(program: Path, size: int, mtime_ns: int) -> tuple[Launched, str]:
    """Run a script on one image, and return what it starts and the landmark model that this reports."""
    from triptych.extractors.vision.openface.check import trial

    run = trial(program)
    if run.problem or run.ending is None:
        raise _unknown(program, run.problem or "it did not run")
    if run.ending.launched is None:
        raise _unknown(program, "none of its processes has OpenFace's arguments")
    return run.ending.launched, loaded_model(run.ending.output)


def _unknown(program: Path, why: str) -> Exception:
    from triptych.extractors.base import BackendMissingError

    return BackendMissingError(
        f"vision.backend = openface: {VARIABLE} = {program} is a script, and the program that it runs cannot be "
        f"identified for the fingerprint ({why}). Set {VARIABLE} to {NAME} itself"
    )


@cache
def _identity(
    program: Path, size: int, mtime_ns: int, launched: Launched | None = None, model: str = ""
) -> Identity:
    own = launched.program if launched else program
    folder = models_folder(own)
    main = next((name for name in LANDMARK_MODELS if folder and (folder / "model" / name).is_file()), "")
    folders = [folder / name for name in MODEL_FOLDERS] if folder else []
    if launched and model:
        loaded = launched.folder / model
        if not loaded.is_file():
            raise _unknown(program, f"its landmark model {loaded} is not on this machine")
        main = loaded.name
        beside = loaded.parent.parent
        # A script may name a model elsewhere, by one of OpenFace's own options.
        folders = [beside / name for name in MODEL_FOLDERS] if loaded.parent.name == "model" else folders
        folders = folders if loaded.parent in folders else [*folders, loaded.parent]
    if launched and not folders:
        raise _unknown(program, f"no models are beside {own}")
    files = (program,) if own == program else (program, own)
    return Identity(_digest_of_files(files), _digest(folders) if folders else "", main)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of_files(files: Sequence[Path]) -> str:
    digests = [_sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _digest(folders: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    files = ((folder, file) for folder in folders for file in folder.rglob("*") if file.is_file())
    for name, file in sorted((file.relative_to(folder.parent).as_posix(), file) for folder, file in files):
        whole.update(f"{name}\0{_sha256(file)}\n".encode())
    return whole.hexdigest()


def problem(program: Path) -> str | None:
    """Describe a problem of the program, or of this machine, that can be found without running it, and the remedy."""
    return _own_problem(program) or processors.problem()


def _own_problem(program: Path) -> str | None:
    if not os.access(program, os.X_OK):
        return f"{program} is not executable: chmod +x {program}"
    with program.open("rb") as file:
        head = file.read(20)
    script = is_script(program)
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
