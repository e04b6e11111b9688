"""What a feature folder holds and no longer needs: rows of other settings, of clips that are gone, damaged shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych.extractors.registry import stages
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.stored import STORED, stored_recipe, superseded_fingerprints
from triptych.pipeline.storage.schema import ShardItem
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import shard_files, verify_shard, write_shard


@dataclass(frozen=True)
class Prunable:
    """Shards that may go.

    Attributes
    ----------
    damaged
        Shards that cannot be read; the next run makes their features again.
    superseded
        Shards of settings that the folder no longer has, nor reads until new features are complete.
    vanished
        Shards with rows of clips that the folder's manifest no longer lists, and those clips' ids.
    """

    damaged: tuple[Path, ...]
    superseded: tuple[Path, ...]
    vanished: Mapping[Path, frozenset[str]]

    def __bool__(self) -> bool:
        return bool(self.damaged or self.superseded or self.vanished)


def find_prunable(folder: Path, clips: Collection[str]) -> Prunable:
    """Read every shard, and find what can be removed.

    Parameters
    ----------
    folder
        The feature folder.
    clips
        Ids of the clips that its manifest lists.

    Raises
    ------
    InputError
        The folder's recipe.json names no fingerprint, so that every shard would seem to be of other settings.
    """
    stored = stored_recipe(folder)
    prints = stored["fingerprints"] if stored else {}
    if not any(prints.values()):
        raise InputError(
            f"{folder / STORED}: no fingerprints, so the shards that the folder needs are unknown and nothing is "
            "removed. `triptych extract` writes them again"
        )
    old = superseded_fingerprints(folder)
    damaged, superseded, vanished = [], [], {}
    for stage in stages():
        readable = {prints.get(stage), old.get(stage)}
        for path in shard_files(folder / stage):
            if verify_shard(path, stage):
                damaged.append(path)
                continue
            with Shard(path) as shard:
                if shard.header.fingerprint not in readable:
                    superseded.append(path)
                elif gone := frozenset(shard.ids) - frozenset(clips):
                    vanished[path] = gone
    return Prunable(tuple(damaged), tuple(superseded), vanished)


def prune(found: Prunable) -> None:
    """Remove what `find_prunable` found; a shard that holds other clips too is written again without the vanished ones.

    Raises
    ------
    OSError
        A file cannot be removed or written; what is left can be pruned later.
    """
    for path in (*found.damaged, *found.superseded):
        path.unlink(missing_ok=True)
    for path, gone in found.vanished.items():
        with Shard(path) as shard:
            items = [
                ShardItem(id, digest, shard.read(id))
                for id, digest in zip(shard.ids, shard.digests, strict=True)
                if id not in gone
            ]
            header = shard.header
        if items:
            write_shard(path.parent, header, items)  # complete before the old one goes
        path.unlink(missing_ok=True)
