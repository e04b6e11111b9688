"""Which shards of one fingerprint are merged, so that the store gives the same rows as before. Reads no files.

For a clip with rows of one digest the store reads any of the shards that have them, and these rows are equal, or their
shards are `fixed`. For a clip with rows of several digests it may read those of the shard that was created last. A
merged shard has the newest time of its parts, so such shards are merged only with their neighbours in time: the order
in time of any two digests stays the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Pair = tuple[str, str]  # a clip's id and digest
STRING_BYTES = 32  # of a string's reference and its entry in the file's heap, without its characters
CLIP_BYTES = 8 + 2 * STRING_BYTES  # of a clip's offset, id and digest


@dataclass(frozen=True)
class Candidate:
    """An intact shard.

    Attributes
    ----------
    name
        Its file name.
    created
        When it was written.
    clips
        Id and digest of its clips.
    kind
        A hash of its attributes, columns and units: only shards of one kind are merged. None for a shard that must
        stay as it is.
    lengths
        How many rows each clip has; empty for a shard that must stay.
    row_bytes
        How many bytes one row needs in any shard, at least.
    """

    name: str
    created: str
    clips: tuple[Pair, ...]
    kind: str | None = None
    lengths: tuple[int, ...] = ()
    row_bytes: int = 0


def repeated(shards: Iterable[Candidate]) -> dict[Pair, list[str]]:
    """Return the names of the shards with each clip and digest that several shards have."""
    holders: dict[Pair, list[str]] = {}
    for shard in shards:
        for pair in shard.clips:
            holders.setdefault(pair, []).append(shard.name)
    return {pair: names for pair, names in holders.items() if len(names) > 1}


def contested(shards: Iterable[Candidate]) -> frozenset[str]:
    """Return the ids of the clips that have rows of several digests."""
    pairs = {pair for shard in shards for pair in shard.clips}
    return frozenset(id for id, count in Counter(id for id, _ in pairs).items() if count > 1)


def redundant(shards: Sequence[Candidate]) -> list[Candidate]:
    """Return the movable shards whose every clip is in others too; those of a killed merge, for example.

    Equal clips and digests in the shards have equal rows, unless one of them must stay.
    """
    several = contested(shards)
    holders: dict[Pair, set[tuple[str, str]]] = {}
    digests: dict[tuple[str, str], set[str]] = {}
    for shard in shards:
        for id, digest in shard.clips:
            holders.setdefault((id, digest), set()).add((shard.created, shard.name))
            digests.setdefault((id, shard.created), set()).add(digest)
    found = []
    for shard in sorted(shards, key=lambda shard: (len(shard.clips), shard.name)):
        own = shard.created, shard.name
        if shard.kind is not None and all(
            any(
                id not in several or (other[0] >= own[0] and len(digests[id, own[0]]) == 1)
                for other in holders[id, digest] - {own}
            )
            for id, digest in shard.clips
        ):
            found.append(shard)
            for pair in shard.clips:
                holders[pair].discard(own)
    return found


def merges(shards: Sequence[Candidate], target: int) -> list[tuple[Candidate, ...]]:
    """Choose which shards become one.

    Every result of two or more is more than half of `target` in bytes, except the last one of a kind and those whose
    neighbours have other digests of the same clips. So the results of one call are not merged by the next.

    Parameters
    ----------
    shards
        All shards of a fingerprint, without redundant ones. Movable ones are smaller than half of `target`.
    target
        The size of a merged shard [bytes].
    """
    several = contested(shards)
    quiet: list[Candidate] = []
    loud: list[Candidate] = []
    for shard in shards:
        (loud if several.intersection(id for id, _ in shard.clips) else quiet).append(shard)
    times = Counter(shard.created for shard in loud)
    movable = (shard for shard in quiet if shard.kind is not None)
    by_id = sorted(movable, key=lambda shard: (shard.kind, min(shard.clips), shard.name))
    in_time = sorted(loud, key=lambda shard: (shard.created, shard.name))
    fixed = {shard.name for shard in loud if shard.kind is None or times[shard.created] > 1}
    return [
        chosen for order in (by_id, in_time) for chosen in _filled(order, target, fixed) if len(chosen) > 1
    ]


def _filled(
    shards: Iterable[Candidate], target: int, fixed: Collection[str]
) -> Iterator[tuple[Candidate, ...]]:
    """Divide a sequence into runs of neighbours that fit into one shard."""
    chosen: list[Candidate] = []
    digests: dict[str, str] = {}
    size = 0
    for shard in shards:
        more = _added(shard, digests)
        if chosen and (
            shard.name in fixed
            or chosen[-1].name in fixed
            or shard.kind != chosen[-1].kind
            or size + more > target
            or any(digests.get(id, digest) != digest for id, digest in shard.clips)
        ):
            yield tuple(chosen)
            chosen, digests, size = [], {}, 0
            more = _added(shard, digests)
        chosen.append(shard)
        digests.update(shard.clips)
        size += more
    if chosen:
        yield tuple(chosen)


def _added(shard: Candidate, present: Mapping[str, str]) -> int:
    """Return by how many bytes a merged shard grows with this one, at least."""
    return sum(
        shard.row_bytes * length + CLIP_BYTES + len(id.encode()) + len(digest.encode())
        for (id, digest), length in zip(shard.clips, shard.lengths, strict=False)
        if id not in present
    )
