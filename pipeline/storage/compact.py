"""Merge the small shards of a feature folder into larger ones, without a change of what `FeatureStore` reads.

An old shard is removed when the new one is complete, on disk, compared with it and in the index. So a kill at any
moment leaves each clip in at least one shard; what is in two is found by the next call.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from triptych.extractors.base import Features
from triptych.extractors.registry import stages
from triptych.pipeline.atomic import remove_stale_temporaries
from triptych.pipeline.storage.compact_plan import (
    STRING_BYTES,
    Candidate,
    Pair,
    merges,
    redundant,
    repeated,
)
from triptych.pipeline.storage.index import FeatureIndex, remember_damage
from triptych.pipeline.storage.merged_shard import Part, rows_digest, write_merged
from triptych.pipeline.storage.schema import ShardError, row_types, shard_name
from triptych.pipeline.storage.shard_reader import CheckedShard, Names, Shard
from triptych.pipeline.storage.shards import checksum_problem

TARGET = 256 * 2**20  # bytes
OPEN_SHARDS = 64
# Old shards that are removed together [bytes]: listing the folder for each new shard would take longer than merging.
BATCH_BYTES = 2**30
MARGIN = 2**20  # bytes by which a shard can be larger than its parts: chunks are stored whole


@dataclass
class Compacted:
    """The shards of one stage: number and bytes, before and after.

    Attributes
    ----------
    bytes_after
        None if nothing was written.
    """

    shards_before: int = 0
    shards_after: int = 0
    bytes_before: int = 0
    bytes_after: int | None = None


@dataclass(frozen=True)
class _Planned:
    """What is to be done with the shards of one fingerprint in one folder."""

    folder: Path
    redundant: tuple[Candidate, ...]
    merges: tuple[tuple[Candidate, ...], ...]


def compact(
    folder: Path, target: int = TARGET, *, dry_run: bool = False
) -> tuple[dict[str, Compacted], tuple[Path, ...]]:
    """Merge the shards that are smaller than half of a size, up to that size, and remove redundant ones.

    Shards of other settings or software are not mixed. Damaged shards, links and other files are left alone.

    Parameters
    ----------
    folder
        The feature folder; nothing else may write to it meanwhile.
    target
        The size of a shard [bytes].
    dry_run
        Only plan.

    Returns
    -------
    tuple of dict and tuple
        By stage, what was done; and the damaged shards.

    Raises
    ------
    InputError
        A newer version has written shards in the folder.
    OSError
        The folder cannot be written, or the disk has too little space; what was not merged is as before.
    ShardError
        A shard was damaged in the meantime.
    """
    results, damaged = {}, set[Path]()
    with FeatureIndex(folder) as index:
        index.refuse_newer()
        for stage in stages():
            if not dry_run:
                remove_stale_temporaries(folder / stage)
            sizes, planned = _plan(index, stage, target, damaged)
            if not sizes:
                continue
            results[stage] = Compacted(len(sizes), len(sizes), sum(sizes.values()))
            for one in planned:
                gone = len(one.redundant) + sum(len(chosen) - 1 for chosen in one.merges)
                results[stage].shards_after -= gone
            if not dry_run:
                if results[stage].shards_after < results[stage].shards_before:
                    _carry_out(index, planned, sizes)
                left = {holding.shard for holding in index.holdings(stage)}
                results[stage].bytes_after = sum(path.stat().st_size for path in left)
        damaged |= set(index.damaged)
    remember_damage(folder, damaged - set(index.damaged))
    return results, tuple(sorted(damaged))


# -- planning -------------------------------------------------------------------------------------------


def _plan(
    index: FeatureIndex, stage: str, target: int, damaged: set[Path]
) -> tuple[dict[Path, int], list[_Planned]]:
    """Return the sizes of a stage's shards, and what is to be done for each fingerprint."""
    folder = index.folder / stage
    clips: dict[Path, list[Pair]] = {}
    about: dict[Path, tuple[str, str]] = {}
    for holding in index.holdings(stage):
        clips.setdefault(holding.shard, []).append((holding.clip_id, holding.digest))
        about[holding.shard] = holding.fingerprint, holding.created
    sizes = {path: path.stat().st_size for path in clips}
    by_print: dict[str, list[Candidate]] = {}
    for path, pairs in clips.items():
        fingerprint, created = about[path]
        shard = Candidate(path.name, created, tuple(pairs))
        try:
            if sizes[path] < target // 2 and not path.is_symlink():
                shard = _examined(path, shard)
            by_print.setdefault(fingerprint, []).append(shard)
        except ShardError:
            damaged.add(path)
    planned = []
    for fingerprint, shards in sorted(by_print.items()):
        shards = _with_differing_fixed(folder, shards, damaged)
        covered = redundant(shards)
        gone = {shard.name for shard in covered}
        chosen = merges([shard for shard in shards if shard.name not in gone], target)
        # One of other rows or times, or a damaged file, may have the name.
        free = [one for one in chosen if not os.path.lexists(folder / _merged_name(fingerprint, one))]
        planned.append(_Planned(folder, tuple(covered), tuple(free)))
    return sizes, planned


def _merged_name(fingerprint: str, chosen: Sequence[Candidate]) -> str:
    return shard_name(fingerprint, {pair for shard in chosen for pair in shard.clips})


def _examined(path: Path, shard: Candidate) -> Candidate:
    """Read what decides whether a shard can be merged, after a comparison with its checksum."""
    if problem := checksum_problem(path):
        raise ShardError(path, problem)
    with CheckedShard(path, path.parent.name) as content:  # checked by the index
        header = content.read_header()
        if content.read_clips() != shard.clips:
            raise ShardError(path, "it was changed in the meantime")
        attributes = [(name, type(value), value) for name, value in sorted(header.attributes.items())]
        software = sorted(header.software.items())
        shared = (header.stage, header.fingerprint, header.recipe, software, header.frame_rate, attributes)
        kind = repr((shared, content.columns, content.units)).encode("utf-8", "surrogatepass")
        lengths = tuple(np.diff(content.offsets).tolist())
    types = row_types(header.stage).values()
    row_bytes = sum(STRING_BYTES if kind == "str" else np.dtype(kind).itemsize for kind in types)
    return replace(
        shard,
        kind=hashlib.sha256(kind).hexdigest(),
        lengths=lengths,
        row_bytes=4 * len(content.columns) + row_bytes,
    )


def _with_differing_fixed(folder: Path, shards: list[Candidate], damaged: set[Path]) -> list[Candidate]:
    """Let shards stay as they are that have other rows or attributes for a clip and digest than another shard.

    Equal settings give equal bits on one kind of processor only: a GPU computes others.
    """
    by_name = {shard.name: shard for shard in shards}
    examined = {shard.name: shard for shard in shards if shard.kind is not None}
    fixed, broken = set[str](), set[str]()
    rows_of = _reader(folder)

    @cache
    def positions(name: str) -> dict[Pair, int]:
        return {pair: row for row, pair in enumerate(by_name[name].clips)}

    def differ(pair: Pair, names: Sequence[str]) -> bool:
        for name in names:
            if name not in examined:
                examined[name] = _examined(folder / name, by_name[name])
        rows = {rows_digest([rows_of(name, positions(name)[pair])]) for name in names}
        return len(rows) > 1 or len({examined[name].kind for name in names}) > 1

    for pair, names in repeated(shards).items():
        if not any(by_name[name].kind for name in names):
            continue
        try:
            if any((folder / name).is_symlink() for name in names) or differ(pair, names):
                fixed.update(names)
        except ShardError as error:
            damaged.add(error.path)
            broken.add(error.path.name)
            fixed.update(names)
    return [
        replace(shard, kind=None) if shard.name in fixed else shard
        for shard in shards
        if shard.name not in broken
    ]


def _reader(folder: Path, names: Names | None = None) -> Callable[[str, int], Features]:
    """Return a function that reads the rows of a shard and a position, for shards whose checksum was compared."""

    @lru_cache(OPEN_SHARDS)  # a shard that leaves the cache is closed
    def opened(name: str) -> CheckedShard:
        return CheckedShard(folder / name, folder.name, names)

    return lambda name, row: opened(name).read_at(row)


# -- merging --------------------------------------------------------------------------------------------


def _carry_out(index: FeatureIndex, planned: Sequence[_Planned], sizes: Mapping[Path, int]) -> None:
    for one in planned:
        for shard in one.redundant:
            (one.folder / shard.name).unlink(missing_ok=True)
        for batch in _batches(one, sizes):
            old = [one.folder / shard.name for chosen in batch for shard in chosen]
            _check_space(one.folder, sum(sizes[path] for path in old) + MARGIN * len(batch), len(old))
            new = [_merge(one.folder, chosen) for chosen in batch]
            index.refresh()  # compares the new shards with their checksums
            if bad := [index.damaged[path] for path in new if path in index.damaged]:
                raise bad[0]
            for path in old:
                path.unlink(missing_ok=True)
    index.refresh()


def _batches(one: _Planned, sizes: Mapping[Path, int]) -> Iterator[list[tuple[Candidate, ...]]]:
    batch: list[tuple[Candidate, ...]] = []
    size = 0
    for chosen in one.merges:
        batch.append(chosen)
        size += sum(sizes[one.folder / shard.name] for shard in chosen)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_space(folder: Path, needed: int, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = (
            f"{os.strerror(errno.ENOSPC)}: merging {count} shards needs {needed / 2**20:.0f} MiB for the time that "
            f"old and new ones exist, and {free / 2**20:.0f} MiB are free"
        )
        raise OSError(errno.ENOSPC, problem, str(folder))


def _merge(folder: Path, chosen: Sequence[Candidate]) -> Path:
    with Shard(folder / chosen[0].name) as first:
        header, names = first.header, (first.columns, first.units)
    parts = {
        id: Part(id, digest, shard.name, row, length)
        for shard in chosen
        for row, ((id, digest), length) in enumerate(zip(shard.clips, shard.lengths, strict=True))
    }
    created = max(shard.created for shard in chosen)
    in_order = [parts[id] for id in sorted(parts)]
    return write_merged(folder, header, created, names, in_order, _reader(folder, names))
