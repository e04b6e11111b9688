"""What `compact` merges: no step of a plan changes a choice of the store, and a second plan is empty."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from triptych.pipeline.storage.compact_plan import Candidate, contested, merges, redundant
from triptych.pipeline.storage.schema import shard_name


def random_shards(draw):
    """Shards of a few clips and contents, so that most clips are in several."""
    shards, latest = {}, draw.choice([3, 30])
    for _ in range(draw.randint(2, 14)):
        clips = draw.sample(range(draw.choice([4, 12, 40])), draw.randint(1, 4))
        some = tuple(sorted((f"c{k}", draw.choice("xxxyz")) for k in clips))
        kind = draw.choice(["a", "a", "a", "b", None])
        created = f"{draw.randint(0, latest):03d}"
        shards[shard_name("f" * 64, some)] = Candidate(
            shard_name("f" * 64, some), created, some, kind, tuple(int(id[1:]) + 1 for id, _ in some), 1
        )
    # Equal clips and digests in shards of several kinds have other rows, perhaps, so they stay.
    kinds = {}
    for shard in shards.values():
        for pair in shard.clips:
            kinds.setdefault(pair, set()).add(shard.kind)
    return [
        replace(shard, kind=None) if any(len(kinds[pair] - {None}) > 1 for pair in shard.clips) else shard
        for shard in shards.values()
    ]


def choices(shards):
    """What the store gives for each clip: for each current digest, and if that is unknown."""
    found = {}
    for shard in sorted(shards, key=lambda shard: shard.name):
        for id, value in shard.clips:
            found.setdefault(id, []).append((shard.created, value))
    return {
        id: ({value for _, value in several}, max(several, key=lambda one: one[0])[1])
        for id, several in found.items()
    }


def merged(chosen):
    clips = {pair: n for shard in chosen for pair, n in zip(shard.clips, shard.lengths, strict=True)}
    names = tuple(sorted(clips))
    assert len(dict(names)) == len(names), "a clip would be twice in a shard"
    assert {shard.kind for shard in chosen} in ({"a"}, {"b"})
    created = max(shard.created for shard in chosen)
    lengths = tuple(clips[pair] for pair in names)
    return Candidate(shard_name("f" * 64, names), created, names, chosen[0].kind, lengths, 1)


def steps(shards, target):
    """Every state of the folder while a plan is carried out."""
    state = {shard.name: shard for shard in shards}
    for shard in redundant(list(state.values())):
        assert shard.kind is not None
        del state[shard.name]
        yield dict(state)
    for chosen in merges(list(state.values()), target):
        one = merged(chosen)
        if one.name in state:  # a shard with the same clips, of another time
            continue
        state[one.name] = one
        yield dict(state)
        for shard in chosen:
            del state[shard.name]
            yield dict(state)


def size_of(shard):
    return sum(n + 72 + len(id) + 1 for (id, _), n in zip(shard.clips, shard.lengths, strict=True))


@pytest.mark.parametrize("first", range(0, 1200, 400))
def test_no_step_of_a_plan_changes_a_choice_and_a_second_plan_is_empty(first):
    assert sum(count_steps(seed) for seed in range(first, first + 400)) > 500


def count_steps(seed):
    draw = random.Random(seed)
    shards, target = random_shards(draw), draw.choice([400, 900, 10**6])
    shards = [replace(shard, kind=None) if size_of(shard) >= target // 2 else shard for shard in shards]
    before = choices(shards)
    states = [{shard.name: shard for shard in shards}, *steps(shards, target)]
    assert [number for number, state in enumerate(states) if choices(state.values()) != before] == []
    # Killed at any step, the rest is done by another call.
    again = list(steps(list(draw.choice(states).values()), target))
    assert [number for number, state in enumerate(again) if choices(state.values()) != before] == []
    last = [
        replace(shard, kind=None) if size_of(shard) >= target // 2 else shard for shard in states[-1].values()
    ]
    assert list(steps(last, target)) == []
    movable = [
        shard for shard in last if shard.kind == "a" and not {c for c, _ in shard.clips} & contested(last)
    ]
    assert len(movable) <= 1
    return len(states) - 1
