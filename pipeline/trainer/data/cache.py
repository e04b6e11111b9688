"""Standardised clips in files that all trainings of a run share, for views that are small beside the clips' rows."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.locks import exclusive
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.filed import FiledRows
from triptych.pipeline.trainer.data.pooled import Rows
from triptych.pipeline.trainer.data.standardising import Normaliser, SplitTensors
from triptych.pipeline.trainer.settings import MODALITIES, View

CLIPS_AT_A_TIME = 64


def cached(normaliser: Normaliser, data: SentimentData, rows: Rows, view: View, folder: Path) -> SplitTensors:
    """Return clips as `Normaliser.apply` does, but with rows in files; written by the first caller.

    Trainings with other seeds or settings, in any process, have the same normaliser and use the same files. Others
    wait while one writes them.

    Parameters
    ----------
    folder
        Where the files are; its owner removes it.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full.
    """
    place = folder / _key(normaliser, rows, view)
    with exclusive(place.with_suffix(".lock")):
        if not place.is_dir():
            unfinished = place.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
            unfinished.mkdir()
            try:
                _write(unfinished, normaliser, data, rows, view)
            except OSError as error:  # that of a full disk names no file
                raise OSError(error.errno, error.strerror, str(folder.parent)) from error
            unfinished.rename(place)
    text, audio, vision = (_open(place, modality) for modality in MODALITIES)
    ids, labels = tuple(data.ids[row] for row in rows), torch.from_numpy(data.labels[rows])
    return SplitTensors(ids, text, audio, vision, labels)  # type: ignore[arg-type]


def _write(folder: Path, normaliser: Normaliser, data: SentimentData, rows: Rows, view: View) -> None:
    """Write each modality: the values of rows into one file, all that is small into another."""
    small: dict[str, dict[str, list[NDArray[np.generic]]]] = {modality: {} for modality in MODALITIES}
    with ExitStack() as until_end:
        files = {
            modality: until_end.enter_context(_values(folder, modality).open("wb")) for modality in MODALITIES
        }
        for start in range(0, len(rows), CLIPS_AT_A_TIME):
            clips = normaliser.apply(data, rows[start : start + CLIPS_AT_A_TIME], view)
            for modality in MODALITIES:
                part = getattr(clips, modality)
                arrays = {"means": part}
                if not isinstance(part, Tensor):
                    files[modality].write(
                        part.values[:-1].numpy().data
                    )  # the last row is that of the padding
                    arrays = {"valid": part.valid[:-1], "lengths": part.lengths}
                for name, array in arrays.items():
                    small[modality].setdefault(name, []).append(array.numpy())
    for modality, parts in small.items():
        for name, part in parts.items():
            np.save(_small(folder, modality, name), np.concatenate(part), allow_pickle=False)


def _open(folder: Path, modality: str) -> Tensor | FiledRows:
    means, valid, lengths = (_small(folder, modality, name) for name in ("means", "valid", "lengths"))
    if means.exists():
        return torch.from_numpy(np.load(means, allow_pickle=False))
    counts, rows = (torch.from_numpy(np.load(path, allow_pickle=False)) for path in (valid, lengths))
    path = _values(folder, modality)
    width = path.stat().st_size // (4 * len(counts))
    return FiledRows(path, width, counts, rows)


def _values(folder: Path, modality: str) -> Path:
    return folder / f"{modality}.float32"


def _small(folder: Path, modality: str, name: str) -> Path:
    return folder / f"{modality}-{name}.npy"


def _key(normaliser: Normaliser, rows: Rows, view: View) -> str:
    """SHA-256 of everything that decides the values, given the data."""
    digest = hashlib.sha256(f"{type(normaliser).__name__} {view}".encode())
    for value in (*astuple(normaliser), rows):
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
