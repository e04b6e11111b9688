"""Check that an HDF5 file reads nothing but itself, and holds as much as it claims, before its values are read.

HDF5 follows links to other files, reads datasets that are stored in other files, loads filters as libraries, and gives
fill values for chunks that do not exist, so that a few kilobytes can claim any number of rows.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

FILTERS = {h5py.h5z.FILTER_FLETCHER32}  # those that `shards` writes
AT_ONCE, LEAST = 2**29, 4  # bytes of strings that may be read at once, and the fewest entries


def confined_problems(file: h5py.File, path: Path) -> list[str]:
    """List what an HDF5 file of datasets without groups must not have; no value is read.

    Parameters
    ----------
    file
        The file, open for reading.
    path
        Its path, for its size.

    Returns
    -------
    list of str
        Links (soft or to other files), groups, external storage, virtual datasets, filters other than fletcher32,
        chunks that are not stored, attributes of the file that are arrays, and data beyond the file's size.
    """
    problems = []
    for index in range(h5py.h5a.get_num_attrs(file.id)):
        attribute = h5py.h5a.open(file.id, index=index)
        if attribute.shape != ():
            problems.append(f"attribute {_text(attribute.name)}: not a single value")
    total = 0
    for name in file.id:
        if file.id.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            problems.append(f"{_text(name)}: a link to another place, which is not followed")
            continue
        stored = h5py.h5o.open(file.id, name)
        if not isinstance(stored, h5py.h5d.DatasetID):
            problems.append(f"{_text(name)}: not a dataset")
        elif problem := _foreign(stored) or _unstored(stored):
            problems.append(f"{_text(name)}: {problem}")
        else:
            total += stored.get_storage_size()
    size = path.stat().st_size
    if total > size:
        problems.append(f"its datasets claim {total} bytes of a file of {size}")
    return problems


def _foreign(dataset: h5py.h5d.DatasetID) -> str:
    """Return why a dataset must not be read; asked before its shape, for which HDF5 opens a virtual one's sources."""
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset, whose values are in other files"
    if properties.get_layout() == h5py.h5d.CONTIGUOUS and properties.get_external_count():
        return "its values are in another file"
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if unknown := sorted(filters - FILTERS):
        return f"filter {', '.join(map(str, unknown))}; only fletcher32 is used"
    return ""


def _unstored(dataset: h5py.h5d.DatasetID) -> str:
    """Return by how much a dataset without compression claims more than it stores."""
    shape, properties = dataset.shape, dataset.get_create_plist()
    if properties.get_layout() == h5py.h5d.CHUNKED:
        shape = tuple(
            -(-length // chunk) * chunk for length, chunk in zip(shape, properties.get_chunk(), strict=True)
        )
    claimed = prod(shape) * dataset.get_type().get_size()
    stored = dataset.get_storage_size()
    return f"claims {claimed} bytes and stores {stored}" if stored < claimed else ""


def read_strings(dataset: h5py.Dataset, path: Path, rows: slice = slice(None)) -> NDArray[np.object_]:
    """Read entries of a dataset of UTF-8 strings, which together are no longer than the file.

    Entries may share their bytes in the file, so that their number alone is no bound.

    Raises
    ------
    ValueError
        They are longer.
    """
    size = path.stat().st_size
    start, stop, _ = rows.indices(len(dataset))
    step = max(LEAST, AT_ONCE // size)
    texts, total = dataset.asstr(), 0
    parts = []
    for first in range(start, stop, step):
        part = texts[first : min(first + step, stop)]
        total += sum(map(len, part))
        if total > size:
            raise ValueError(f"{dataset.name}: its strings are longer than the file of {size} bytes")
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0, dtype=object)


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
