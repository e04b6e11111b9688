"""Clips in one file that several processes map into memory: there once, however many train on them."""

from __future__ import annotations

import io
import mmap
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from triptych.pipeline.trainer.data.clips import SentimentData

ALIGNMENT = 64


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays are: their bytes apart."""

    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


def write_shared(data: SentimentData, folder: Path) -> None:
    """Write clips into a folder: every array's bytes into one file, what refers to them into another.

    The folder is to be read by processes of this run alone, and removed at its end.
    """
    buffers: list[pickle.PickleBuffer] = []
    structure = io.BytesIO()
    _Pickler(structure, protocol=5, buffer_callback=buffers.append).dump(data)
    places = []
    with (folder / "arrays").open("wb") as file:
        for buffer in buffers:
            with buffer.raw() as content:
                places.append((file.tell(), content.nbytes))
                file.write(content)
            file.write(bytes(-file.tell() % ALIGNMENT))
    (folder / "structure").write_bytes(pickle.dumps((structure.getvalue(), places)))


@lru_cache(maxsize=1)
def open_shared(folder: Path) -> SentimentData:
    """Map clips that `write_shared` wrote; one process' changes are seen by no other."""
    structure, places = pickle.loads((folder / "structure").read_bytes())
    with (folder / "arrays").open("rb") as file:
        # Copied only where written to, and so writable: torch complains of arrays that are not.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    data: SentimentData = pickle.loads(structure, buffers=[content[at : at + size] for at, size in places])
    return data
