"""Assignment of clips to the splits train, valid and test."""

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
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange

# F stands for the feature folder.
HOW_TO_SPLIT = "`triptych manifest F/manifest.csv --split 6:2:2 --anew -o F/manifest.csv` assigns new splits"
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
            f"split {text!r}: expected the ratio train:valid:test in whole numbers, not all zero, as in 6:2:2"
        )
    return train, valid, test


def assign_splits(manifest: Manifest, ratios: tuple[int, int, int], seed: int) -> Manifest:
    """Give a split to every clip that has none, in the given ratio over all clips and within each class.

    The classes are the CH-SIMS paper's five of the multimodal label (right-closed bins); clips without that
    label are a sixth. Existing splits stay, and count. The sizes over all clips follow the ratio, rounded by
    largest remainder, unless the existing splits exceed them. A clip's split depends on the ids, labels and
    splits and on the seed, not on the order of the rows.

    Parameters
    ----------
    manifest
        The clips.
    ratios
        Shares of train, valid and test.
    seed
        Decides which clips of a class go to which split.
    """
    classes: dict[int, list[Clip]] = {}
    for clip in manifest.clips:
        classes.setdefault(label_class(clip.label, manifest.label_range), []).append(clip)
    strata = [classes[number] for number in sorted(classes)]
    given: dict[str, str] = {}
    for stratum, counts in zip(strata, _counts(strata, ratios), strict=True):
        free = sorted(
            (clip.id for clip in stratum if clip.split is None), key=lambda id: (_draw(seed, id), id)
        )
        names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
        given.update(zip(free, names, strict=True))
    clips = tuple(replace(clip, split=given.get(clip.id, clip.split)) for clip in manifest.clips)
    return replace(manifest, clips=clips)


def empty_splits(manifest: Manifest, ratios: tuple[int, int, int]) -> list[str]:
    """Return the splits that no clip went to although the ratio gives them a share."""
    given = {clip.split for clip in manifest.clips}
    return [name for name, ratio in zip(SPLITS, ratios, strict=True) if ratio and name not in given]


def label_class(label: float, label_range: LabelRange = DEFAULT) -> int:
    """The paper's class of a label, 0 (negative) to 4 (positive); 5 if the label is missing.

    Parameters
    ----------
    label_range
        Lowest and highest possible label; the edges are those of CH-SIMS, scaled to it.
    """
    if math.isnan(label):
        return len(CLASS_EDGES) + 1
    if label_range != DEFAULT:
        low, high = label_range
        label = 2 * (label - low) / (high - low) - 1
    return bisect_left(CLASS_EDGES, label)


def _draw(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{id}".encode()).digest()


def _counts(strata: Sequence[Sequence[Clip]], ratios: tuple[int, int, int]) -> list[list[int]]:
    """How many clips without a split go from each stratum to each split.

    One clip at a time goes to the stratum and split that is furthest below its share, among the strata with
    a clip left and the splits with room left. So every count ends less than two from its share.
    """
    assigned = [Counter(clip.split for clip in stratum) for stratum in strata]
    free = [by_split.pop(None, 0) for by_split in assigned]
    room = _room([sum(by_split[name] for by_split in assigned) for name in SPLITS], sum(free), ratios)
    counts = [[0] * len(SPLITS) for _ in strata]
    # In units of 1 / sum(ratios) of a clip, so that all numbers are whole.
    deficit = [
        [
            len(stratum) * ratio - by_split[name] * sum(ratios)
            for name, ratio in zip(SPLITS, ratios, strict=True)
        ]
        for stratum, by_split in zip(strata, assigned, strict=True)
    ]
    pairs = [(row, column) for row in range(len(strata)) for column in range(len(SPLITS))]
    for _ in range(sum(free)):
        row, column = max(
            (pair for pair in pairs if free[pair[0]] and room[pair[1]]),
            key=lambda pair: deficit[pair[0]][pair[1]],
        )
        counts[row][column] += 1
        free[row] -= 1
        room[column] -= 1
        deficit[row][column] -= sum(ratios)
    return counts


def _room(assigned: Sequence[int], free: int, ratios: Sequence[int]) -> list[int]:
    """How many of the free clips each split takes, so that the sizes come as near the ratio as possible."""
    targets = _apportion(free + sum(assigned), ratios)
    missing = [max(0, target - size) for target, size in zip(targets, assigned, strict=True)]
    return _apportion(free, missing) if sum(missing) else [free, 0, 0]


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` by weight into whole numbers, by largest remainder; in a tie the first one wins."""
    shares = [total * weight // sum(weights) for weight in weights]
    remainders = [total * weight % sum(weights) for weight in weights]
    for index in sorted(range(len(weights)), key=lambda index: -remainders[index])[: total - sum(shares)]:
        shares[index] += 1
    return shares
