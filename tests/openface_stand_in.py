"""A stand-in for OpenFace 2.x's FeatureExtraction: its interface, and all its kinds of failures.

`install` puts it into a folder, with models as the real one looks for them. Run as a program, it reads
``-fdir`` folders of BMP images and writes the 714 columns. What it does wrong, it does for

- folders whose name holds one of ``FAULTS``: ``kills-SIGSEGV`` and the like, ``hangs``, ``short``, ``skipped``,
  ``faceless`` (it finds no face in any image, as the real one does at single margins of a crop), each only the first
  time with ``-once`` behind (remembered in the folder OPENFACE_STAND_IN_STATE, which also gets one JSON line a call,
  ``calls.jsonl``);
- an affinity of a single processor, on which it hangs;
- undecodable and tiny images, missing models and unwritable folders, as the real one does;
- the environment: OPENFACE_STAND_IN_SEPARATOR (", " as old builds, or ","), OPENFACE_STAND_IN_COLUMNS=other (not
  OpenFace 2.x), OPENFACE_STAND_IN_FAULT=hang|crash|exit (at once, for any input), OPENFACE_STAND_IN_CHILD
  (one that hangs has a child), OPENFACE_STAND_IN_LANDMARKS (the file of the landmark model that is
  compiled in; else the one that is there), OPENFACE_STAND_IN_START and OPENFACE_STAND_IN_FRAME (CPU seconds of a
  start and of an image).

Numbers that a test can recognise: ``x_0`` is a checksum of the image, ``AU01_r`` is 9 until the end of a sequence, 1
after it; a black image has no face, and its row holds what the real program writes for it. Needs the standard library
alone.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

VERSION_LINE = "OpenFace 2.0.2 (stand-in)"
CRASH = re.compile(r"kills-(SIG[A-Z]+)")
UNCALIBRATED, CALIBRATED = "9.00", "1.00"
AU_R = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
AU_C = (*AU_R[:-1], "28", "45")


def install(folder: Path, landmarks: str = "main_clnf_general.txt") -> Path:
    """Put the program and its models into a folder; give back the program."""
    for name in ("model/detection_validation", "model/mtcnn_detector", "AU_predictors", "classifiers"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "data.txt").write_text(name)
    (folder / "model" / landmarks).write_text("LandmarkDetector ...\n")
    if "ceclm" in landmarks:
        (folder / "model" / "patch_experts").mkdir(exist_ok=True)
        (folder / "model" / "patch_experts" / "cen_patches_0.25_of.dat").write_text("patches")
    program = folder / "FeatureExtraction"
    program.write_text(
        f"#!{sys.executable} -IS\n{Path(__file__).read_text(encoding='utf-8')}", encoding="utf-8"
    )
    program.chmod(0o755)
    return program


def checksum(pixels: bytes) -> float:
    """Compute `x_0` of an image from its BGR bytes, the lowest line first, as a BMP file has them."""
    return zlib.crc32(pixels) % 100000 / 100


def columns(flags: set[str]) -> list[str]:
    """Names of the columns that the output flags ask for; all where there are none."""
    every = {"-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze"}
    wanted = flags & every or every
    names = ["frame", "face_id", "timestamp", "confidence", "success"]
    if "-gaze" in wanted:
        names += [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
        names += [f"eye_lmk_{axis}_{i}" for axis in "xyXYZ" for i in range(56)]
    if "-pose" in wanted:
        names += [f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"]
    if "-2Dfp" in wanted:
        names += [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    if "-3Dfp" in wanted:
        names += [f"{axis}_{i}" for axis in "XYZ" for i in range(68)]
    if "-pdmparams" in wanted:
        names += ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty", *(f"p_{i}" for i in range(34))]
    if "-aus" in wanted:
        names += [f"AU{au}_r" for au in AU_R] + [f"AU{au}_c" for au in AU_C]
    return names


def die(name: str) -> None:
    """End as a crash does, without a message of Python."""
    sys.stdout.flush()
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(60)


def models() -> Path:
    """Where the models are: in the working directory, beside the program, or where an installation puts them."""
    beside = Path(sys.argv[0]).parent
    places = (Path(), beside, beside.parent / "etc" / "OpenFace")
    found = next((folder for folder in places if (folder / "model").is_dir()), None)
    if found is None:
        print(
            "Could not find the landmark detection model to load\nERROR: Could not load the landmark detector"
        )
        sys.exit(1)
    return found


def load_models(folder: Path) -> None:
    """Fail as the real program does without one of its models."""
    main = next((folder / "model").glob("main_*_general.txt"), folder / "model" / "main_ceclm_general.txt")
    if "OPENFACE_STAND_IN_LANDMARKS" in os.environ:
        main = folder / "model" / os.environ["OPENFACE_STAND_IN_LANDMARKS"]
    time.sleep(0.03)  # the real program loads its models for a second
    print(VERSION_LINE)
    print("Could not find the HAAR face detector location")
    print(f"Reading the landmark detector/tracker from: {main}")
    if "ceclm" in main.name and not any((folder / "model" / "patch_experts").glob("cen_patches_*")):
        print("Could not find CEN patch experts, for instructions of how to download them, see ...")
        print("ERROR: Could not load the landmark detector")
        sys.exit(1)
    if not (folder / "model" / "detection_validation").is_dir():
        die("SIGSEGV")
    if not (folder / "AU_predictors").is_dir():
        die("SIGABRT")
    if not (folder / "model" / "mtcnn_detector").is_dir():
        print("INFO: defaulting to HOG-SVM face detector")


def pixels(file: Path) -> tuple[bytes, int] | None:
    """A BMP's pixels and smaller side, or None where it cannot be decoded."""
    data = file.read_bytes()
    if data[:2] != b"BM" or len(data) < 54:
        return None
    start, width, height = *struct.unpack_from("<I", data, 10), *struct.unpack_from("<ii", data, 18)
    return (data[start:], min(width, abs(height))) if len(data) > start else None


def once(state: Path | None, name: str, deed: str) -> bool:
    """Return whether a fault is due: always, or the first time only."""
    if f"{deed}-once" not in name:
        return True
    assert state is not None, "OPENFACE_STAND_IN_STATE is needed for deeds done once"
    done = state / f"{name.partition('-')[2]}.done"
    if done.exists():
        return False
    done.touch()
    return True


def row(names: list[str], number: int, data: bytes, stale: list[str], *, faceless: bool) -> list[str]:
    """Return the cells of one image; without a face they are meaningless: wild poses and the last face's values."""
    if faceless or data.count(0) == len(data):
        cells = list(stale)
        cells[:5] = [str(number), "0", "0.000", "0.120", "0"]
        if "pose_Tx" in names:
            cells[names.index("pose_Tx")] = "20000000.0"
        return cells
    cells = [str(number), "0", "0.000", "0.980", "1", *("0.250" for _ in names[5:])]
    for name, value in (("x_0", f"{checksum(data):.2f}"), ("AU01_r", UNCALIBRATED)):
        if name in names:
            cells[names.index(name)] = value
    stale[:] = cells
    return cells


def spend(variable: str) -> None:
    """Use as much CPU time as a variable names."""
    end = time.process_time() + float(os.environ.get(variable) or 0)
    while time.process_time() < end:
        pass


def hang(state: Path | None) -> None:
    """Wait forever; with a child, where OPENFACE_STAND_IN_CHILD is set."""
    pids = [os.getpid()]
    if "OPENFACE_STAND_IN_CHILD" in os.environ:
        pids.append(subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(600)"]).pid)
    if state:
        with (state / "hanging").open("a") as file:
            file.write(" ".join(map(str, pids)) + "\n")
    time.sleep(600)


def read_folder(folder: Path, out: Path, names: list[str], stale: list[str], state: Path | None) -> bool:
    """Write one folder's CSV; False when the run is over, since the folder cannot be opened."""
    name = folder.name
    print(f"Attempting to read from directory: {folder}")
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    images = [file for file in files if file.suffix in (".bmp", ".png", ".jpg", ".jpeg")]
    if not images or ("skipped" in name and once(state, name, "skipped")):
        return False
    first = pixels(images[0])
    if first is None:
        die("SIGFPE")
    assert first is not None
    if first[1] <= 24:
        print("terminate called after throwing an instance of 'cv::Exception'")
        die("SIGABRT")
    separator = os.environ.get("OPENFACE_STAND_IN_SEPARATOR", ", ")
    table = out / f"{name.partition('.')[0]}.csv"
    rows = []
    if "short" in name and once(state, name, "short"):
        images = images[: len(images) // 2]
    faceless = "faceless" in name and once(state, name, "faceless")
    for number, file in enumerate(images, start=1):
        found = pixels(file)
        if found is None:
            break
        spend("OPENFACE_STAND_IN_FRAME")
        rows.append(row(names, number, found[0], stale, faceless=faceless))
    write(table, names, rows, separator)
    if (crash := CRASH.search(name)) and once(state, name, crash[0]):
        print(f"about to die of {crash[1]} in {name}")
        die(crash[1])
    if "hangs" in name and once(state, name, "hangs"):
        sys.stdout.flush()
        hang(state)
    if "AU01_r" in names:  # action units are calibrated over the whole sequence, at its end
        for cells in rows:
            cells[names.index("AU01_r")] = CALIBRATED
    write(table, names, rows, separator)
    return True


def write(table: Path, names: list[str], rows: list[list[str]], separator: str) -> None:
    """Write a CSV whole."""
    lines = [separator.join(cells) for cells in [names, *rows]]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def names_in(folder: Path) -> list[str] | None:
    """What a folder holds; None where there is none."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else None


def main() -> None:
    """Do what FeatureExtraction does."""
    words = sys.argv[1:]
    state = Path(os.environ["OPENFACE_STAND_IN_STATE"]) if "OPENFACE_STAND_IN_STATE" in os.environ else None
    if state:
        call = {"argv": sys.argv, "cwd": str(Path.cwd()), "in_cwd": names_in(Path()), "pid": os.getpid(),
                "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
                "in_out": names_in(Path(words[-1]))}  # fmt: skip
        with (state / "calls.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(call) + "\n")
    fault = os.environ.get("OPENFACE_STAND_IN_FAULT")
    if fault == "hang":
        hang(state)
    if fault == "crash":
        die("SIGSEGV")
    if fault == "exit":
        sys.exit(3)
    load_models(models())
    spend("OPENFACE_STAND_IN_START")
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < 2:
        sys.stdout.flush()
        hang(state)  # its capture thread never gets a processor
    folders = [Path(words[i + 1]) for i, word in enumerate(words) if word == "-fdir"]
    out = Path(words[words.index("-out_dir") + 1]) if "-out_dir" in words else Path("processed")
    names = columns(set(words))
    if os.environ.get("OPENFACE_STAND_IN_COLUMNS") == "other":
        names = [name for name in names if not name.startswith("AU")]
    if not os.access(out, os.W_OK):
        die("SIGABRT")
    stale = ["0.777"] * len(names)
    for folder in folders:
        if not read_folder(folder, out, names, stale, state):
            break
    sys.stdout.flush()


if __name__ == "__main__":
    main()
