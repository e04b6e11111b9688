"""The RUN folder of `triptych train`: the names of its files, and its ``run.json``. Imports no torch and no numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, field_validator

from triptych.pipeline.documents import read_json
from triptych.pipeline.errors import InputError

RUN = "run.json"
OLD_RUN = "recipe.json"  # its name before 0.2


class _Features(BaseModel):
    recipe: dict[str, Any]
    fingerprints: dict[str, str]


class _Run(BaseModel):
    """The types of what ``run.json`` must have."""

    model: str
    settings: dict[str, Any]
    seeds: Annotated[list[int], Field(min_length=1)]
    features: _Features
    streams: dict[str, str]
    label_range: tuple[FiniteFloat, FiniteFloat] = (-1, 1)

    @field_validator("label_range")
    @classmethod
    def _rises(cls, label_range: tuple[float, float]) -> tuple[float, float]:
        if label_range[0] >= label_range[1]:
            raise ValueError("the lowest label is not below the highest")
        return label_range


def checkpoint_name(seed: int) -> str:
    """Return the file name of one seed's checkpoint."""
    return f"seed-{seed}.pt"


def read_run(out: Path) -> dict[str, Any]:
    """Read a RUN folder's ``run.json``: system, settings, seeds, streams, and the features' recipe.

    Raises
    ------
    InputError
        The file is missing or damaged, or the folder is of an earlier version.
    """
    if (run := find_run(out)) is not None:
        return run
    if _is_old(out):
        raise InputError(
            f"{out}: an earlier version trained it (it has {OLD_RUN} instead of {RUN}); train again, "
            "with another folder after -o or --replace"
        )
    raise InputError(f"{out}/{RUN}: missing or damaged; `triptych train` writes it: train again")


def find_run(out: Path) -> dict[str, Any] | None:
    """Read a RUN folder's ``run.json``; None where it is missing or damaged."""
    run = _read(out / RUN)
    try:
        _Run.model_validate(run)
    except ValidationError:
        return None
    return run


def find_checkpoints(out: Path) -> list[Path]:
    """Find every checkpoint of a RUN folder, sorted by name.

    Raises
    ------
    InputError
        The folder does not exist or has no checkpoint, or not all of the run's, or its ``run.json`` is missing.
    """
    if not out.is_dir():
        raise InputError(f"{out}: not found; name the folder that `triptych train -o` wrote")
    paths = sorted(out.glob("seed-*.pt"))
    if not paths:
        raise InputError(f"{out}: has no seed-<n>.pt; name the folder that `triptych train -o` wrote")
    expected = {checkpoint_name(seed) for seed in read_run(out)["seeds"]}
    if missing := sorted(expected - {path.name for path in paths}):
        raise InputError(
            f"{out}: {', '.join(missing)} missing, so its training has not finished; "
            "run the same `triptych train` again to continue it"
        )
    return paths


def remove_old_run(out: Path) -> None:
    """Remove the ``recipe.json`` of a run of an earlier version; a feature folder's file of that name stays."""
    if _is_old(out):
        (out / OLD_RUN).unlink()


def _is_old(out: Path) -> bool:
    old = _read(out / OLD_RUN)
    return old is not None and old.keys() >= {"model", "settings"}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
