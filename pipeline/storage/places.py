"""Where the rows of each clip are, for as many clips as there may be: a few bytes for each besides its id."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Places:
    """The place of the rows of each clip of one stage.

    Attributes
    ----------
    ids
        The clips, sorted.
    shards
        The files.
    shard, row
        int32, shape (len(ids),): each clip's shard, as a position in `shards`, and its position in it.
    """

    ids: tuple[str, ...]
    shards: tuple[Path, ...]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, clip_id: str) -> tuple[Path, int] | None:
        """Return the shard that has a clip, and the clip's position in it; None if there is none."""
        position = bisect_left(self.ids, clip_id)
        if position == len(self.ids) or self.ids[position] != clip_id:
            return None
        return self.shards[self.shard[position]], int(self.row[position])


class PlacesMaker:
    """Makes the places of several stages, which share one tuple of ids where they have the same clips."""

    def __init__(self) -> None:
        self._ids: tuple[str, ...] = ()
        self._positions: dict[str, int] = {}

    def make(
        self, ids: Sequence[str], shards: Sequence[Path], shard: NDArray[np.int32], row: NDArray[np.int32]
    ) -> Places:
        """Sort the places of clips, of which each occurs once, by id."""
        positions = list(map(self._positions.get, ids))
        if len(ids) != len(self._ids) or None in positions:
            self._ids = tuple(sorted(ids))
            self._positions = {clip_id: position for position, clip_id in enumerate(self._ids)}
            positions = list(map(self._positions.get, ids))
        order = np.argsort(np.array(positions, np.int64))
        return Places(self._ids, tuple(shards), shard[order], row[order])
