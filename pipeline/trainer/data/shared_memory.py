"""Clips in one file that several processes map into memory, so that all of them share one copy."""

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
    """Pickles tensors like arrays: their bytes go into separate buffers."""

    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


def write_shared(data: SentimentData, folder: Path) -> None:
    """Write clips into a folder: the bytes of all arrays into one file, the other data into another.

    Only processes of this run may read the folder, and it is removed when the run ends.
    """
    buffers: list[pickle.PickleBuffer] = []
    structure = io.BytesIO()
    _Pickler(structure, protocol=5, buffer_callback=buffers.append).dump(data)
    positions = []
    with (folder / "arrays").open("wb") as file:
        for buffer in buffers:
            with buffer.raw() as content:
                positions.append((file.tell(), content.nbytes))
                file.write(content)
            file.write(bytes(-file.tell() % ALIGNMENT))
    (folder / "structure").write_bytes(pickle.dumps((structure.getvalue(), positions)))


@lru_cache(maxsize=1)
def open_shared(folder: Path) -> SentimentData:
    """Map clips that `write_shared` wrote; changes stay in the process that makes them."""
    structure, positions = pickle.loads((folder / "structure").read_bytes())
    with (folder / "arrays").open("rb") as file:
        # Copy-on-write, and so writable: torch warns about arrays that are not.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    data: SentimentData = pickle.loads(
        structure, buffers=[content[start : start + size] for start, size in positions]
    )
    return data
