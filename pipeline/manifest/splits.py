"""Train, valid and test for the clips that have no split yet."""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS, Clip, Manifest

# F is the feature folder.
HOW_TO_SPLIT = "`triptych manifest F/manifest.csv --split 6:2:2 --anew -o F/manifest.csv` assigns splits anew"
CLASS_EDGES = (-0.7, -0.1, 0.1, 0.7)
CLASS_NAMES = ("negative", "weakly negative", "neutral", "weakly positive", "positive")


def parse_ratio(text: str) -> tuple[int, int, int]:
    """Read ``train:valid:test``, such as ``6:2:2``.

    Raises
    ------
    InputError
        These are not three whole numbers, or all are zero.
    """
    match = re.fullmatch(r"\s*(\d{1,6}):(\d{1,6}):(\d{1,6})\s*", text, re.ASCII)
    train, valid, test = map(int, match.groups()) if match else (0, 0, 0)
    if train + valid + test == 0:
        raise InputError(
            f"split {text!r}: expected train:valid:test as whole numbers, not all of them zero, as in 6:2:2"
        )
    return train, valid, test


def assign_splits(manifest: Manifest, ratios: tuple[int, int, int], seed: int) -> Manifest:
    """Give a split to every clip that has none, in the given ratio over all clips and within each class.

    The classes are the CH-SIMS paper's five of the multimodal label (right-closed bins); clips without that
    label are a sixth. Splits that are there stay, and count. The sizes over all clips are those of the ratio,
    rounded by largest remainder, unless the splits that are there exceed them. What a clip is given depends
    on the ids, labels and splits and on the seed, not on the order of the rows.

    Parameters
    ----------
    ratios
        Shares of train, valid and test.
    seed
        Which clips of a class go where.
    """
    classes: dict[int, list[Clip]] = {}
    for clip in manifest.clips:
        classes.setdefault(label_class(clip.label), []).append(clip)
    strata = [classes[number] for number in sorted(classes)]
    given: dict[str, str] = {}
    for stratum, seats in zip(strata, _seats(strata, ratios), strict=True):
        free = sorted(
            (clip.id for clip in stratum if clip.split is None), key=lambda id: (_draw(seed, id), id)
        )
        names = [name for name, count in zip(SPLITS, seats, strict=True) for _ in range(count)]
        given.update(zip(free, names, strict=True))
    return Manifest(tuple(replace(clip, split=given.get(clip.id, clip.split)) for clip in manifest.clips))


def label_class(label: float) -> int:
    """The paper's class of a label, 0 (negative) to 4 (positive); 5 where it is missing."""
    return len(CLASS_EDGES) + 1 if math.isnan(label) else bisect_left(CLASS_EDGES, label)


def _draw(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{id}".encode()).digest()


def _seats(strata: Sequence[Sequence[Clip]], ratios: tuple[int, int, int]) -> list[list[int]]:
    """How many free clips of each stratum go to each split.

    Seat after seat goes to the stratum and split that is furthest below its share, among those strata with a
    clip left and those splits with room left. A count so ends less than two from its share.
    """
    taken = [Counter(clip.split for clip in stratum) for stratum in strata]
    clips = [taken_here.pop(None, 0) for taken_here in taken]
    room = _room([sum(counts[name] for counts in taken) for name in SPLITS], sum(clips), ratios)
    seats = [[0] * len(SPLITS) for _ in strata]
    # In units of one ratio-th of a clip, so that all numbers are whole.
    deficit = [
        [
            len(stratum) * ratio - counts[name] * sum(ratios)
            for name, ratio in zip(SPLITS, ratios, strict=True)
        ]
        for stratum, counts in zip(strata, taken, strict=True)
    ]
    cells = [(row, column) for row in range(len(strata)) for column in range(len(SPLITS))]
    for _ in range(sum(clips)):
        row, column = max(
            (cell for cell in cells if clips[cell[0]] and room[cell[1]]),
            key=lambda cell: deficit[cell[0]][cell[1]],
        )
        seats[row][column] += 1
        clips[row] -= 1
        room[column] -= 1
        deficit[row][column] -= sum(ratios)
    return seats


def _room(taken: Sequence[int], free: int, ratios: Sequence[int]) -> list[int]:
    """How many of the free clips each split takes, so that the sizes come as near the ratio as they can."""
    wanted = _apportion(free + sum(taken), ratios)
    lacking = [max(0, want - have) for want, have in zip(wanted, taken, strict=True)]
    return _apportion(free, lacking) if sum(lacking) else [free, 0, 0]


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Share `total` by weight in whole numbers, by largest remainder; the first comes first in a tie."""
    shares = [total * weight // sum(weights) for weight in weights]
    remainders = [total * weight % sum(weights) for weight in weights]
    for place in sorted(range(len(weights)), key=lambda place: -remainders[place])[: total - sum(shares)]:
        shares[place] += 1
    return shares
