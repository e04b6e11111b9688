"""A check that OpenFace works on this machine, by running it on one generated image."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.extractors.vision.openface import program
from triptych.extractors.vision.openface.images import bmp
from triptych.extractors.vision.openface.process import Ending, run
from triptych.extractors.vision.openface.scratch import Scratch, disk_root
from triptych.extractors.vision.openface.table import TornTableError, WrongColumnsError, read_table

SIDE = 224


@dataclass(frozen=True)
class Trial:
    """The result of a run on one image.

    Attributes
    ----------
    problem
        What is wrong with the program and how to repair it; None when it gave a row for the image.
    ending
        How the run ended; None where a problem was found before.
    """

    problem: str | None
    ending: Ending | None


def probe(path: Path) -> str | None:
    """Describe what is wrong with a program and how to repair it; None when it gives a row for an image."""
    return trial(path).problem


def trial(path: Path) -> Trial:
    """Run a program on one generated image.

    Parameters
    ----------
    path
        The program, as `program.find` gives it.
    """
    if problem := program.problem(path):
        return Trial(problem, None)
    scratch = Scratch()
    try:
        with tempfile.TemporaryDirectory(dir=scratch.under(disk_root())) as fresh:
            images, output, neutral = (Path(fresh, name) for name in ("image", "out", "cwd"))
            for folder in (images, output, neutral):
                folder.mkdir()
            shade = np.linspace(0, 255, SIDE).astype(np.uint8)
            (images / "0.bmp").write_bytes(bmp(np.stack([np.add.outer(shade // 2, shade // 2)] * 3, axis=-1)))
            command = program.arguments(path, [images], output)
            ending = run(command, neutral, program.seconds_allowed(1))
            return Trial(_problem(path, ending, output / "image.csv"), ending)
    finally:
        scratch.close()


def _problem(path: Path, ending: Ending, table: Path) -> str | None:
    models = program.models_folder(path)
    if "CEN patch" in ending.output and not table.exists():
        return (
            f"{path}: the CEN patch experts of its landmark model are missing: {models}/model/patch_experts "
            "needs cen_patches_*_of.dat, which OpenFace's download_models.sh fetches"
        )
    if "Could not load the landmark detector" in ending.output:
        return f"{path}: its landmark model cannot be loaded from {models}/model: {ending.last_lines()}"
    if not ending.well:
        return f"{path} {ending} on a generated image: {ending.last_lines()}"
    try:
        rows = len(read_table(table))
    except FileNotFoundError:
        rows = 0
    except (TornTableError, WrongColumnsError) as error:
        return f"{path}: {error}"
    return None if rows == 1 else f"{path} gives {rows} rows for one image: {ending.last_lines()}"
