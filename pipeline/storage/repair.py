"""What `verify` finds in a feature folder, and how damaged shards are set aside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import is_temporary
from triptych.pipeline.storage.index import remember_damage
from triptych.pipeline.storage.schema import NewerSchemaError, ShardError
from triptych.pipeline.storage.shards import shard_files, shard_problems

ASIDE = "damaged"  # folder within a feature folder


@dataclass(frozen=True)
class Verified:
    """The state of all shards of a feature folder.

    Attributes
    ----------
    count
        How many shards there are.
    damaged
        Every problem of each damaged shard.
    newer
        Intact shards that a newer version has written.
    foreign
        Files and folders in the stages' folders that triptych did not write.
    """

    count: int
    damaged: Mapping[Path, list[ShardError]]
    newer: Mapping[Path, NewerSchemaError]
    foreign: tuple[Path, ...]


def verify_folder(folder: Path) -> Verified:
    """Check every shard of a feature folder completely, and remember in its index which are damaged."""
    damaged: dict[Path, list[ShardError]] = {}
    newer: dict[Path, NewerSchemaError] = {}
    foreign: list[Path] = []
    count = 0
    for stage in stages():
        shards = shard_files(folder / stage)
        count += len(shards)
        for path in shards:
            problems = shard_problems(path, stage)
            if problems and isinstance(problems[0], NewerSchemaError):
                newer[path] = problems[0]
            elif problems:
                damaged[path] = problems
        if (folder / stage).is_dir():
            others = set((folder / stage).iterdir()) - set(shards)
            foreign += sorted(path for path in others if not is_temporary(path))
    remember_damage(folder, damaged)
    return Verified(count, damaged, newer, tuple(foreign))


def set_aside(folder: Path, shards: Iterable[Path]) -> dict[Path, Path]:
    """Move damaged shards into the folder ``damaged``; nothing is removed or replaced.

    Parameters
    ----------
    folder
        The feature folder.
    shards
        Shards in it.

    Returns
    -------
    dict of Path to Path
        Where each shard is now.

    Raises
    ------
    OSError
        The folder cannot be written; what was not moved can be moved later.
    """
    moved = {}
    for path in shards:
        target = folder / ASIDE / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while os.path.lexists(target):  # from an earlier repair
            number += 1
            target = target.with_name(f"{path.stem}-{number}{path.suffix}")
        path.rename(target)
        moved[path] = target
    return moved
