"""Extract into small disks, each a little larger than the one before, so that every write meets a full one.

    unshare -rm python full_disks.py CLIPS EXPECTED DISK

Prints a line for each size: bytes, how the run ended, and whether the run after it, on a large disk, gave the rows of
EXPECTED. Exits with 99 where nothing can be mounted.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np

from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.storage.store import FeatureStore

STEP = 4096  # bytes: a page, the unit of this kind of disk


def mount(disk: Path, options: str) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=False).returncode:
        sys.exit(99)


def extracted(clips: Path, folder: Path) -> str:
    """Return how a run ends."""
    try:
        run(prepare(clips, folder, only=["audio"]), jobs=0, group_size=2)
    except OSError as error:
        return "full" if error.errno == errno.ENOSPC else repr(error)
    return "done"


def is_equal(folder: Path, expected: FeatureStore) -> bool:
    found = FeatureStore(folder)
    return found.ids("audio") == expected.ids("audio") and all(
        np.array_equal(found.read("audio", clip).values, expected.read("audio", clip).values)
        for clip in expected.ids("audio")
    )


def main(clips: Path, expected: Path, disk: Path) -> None:
    store = FeatureStore(expected)
    size, ended = STEP, ""
    while ended != "done":
        mount(disk, f"size={size}")
        ended = extracted(clips, disk / "f")
        mount(disk, "remount,size=1g")
        again = extracted(clips, disk / "f")
        print(size, ended, again == "done" and is_equal(disk / "f", store), flush=True)
        subprocess.run(["umount", "--lazy", disk], check=True)
        size += STEP


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
