"""The stages and clips that an export by stage writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS, Clip
from triptych.pipeline.storage.store import FeatureStore

UNASSIGNED = "unassigned"  # file name of the clips without a split


def chosen_stages(store: FeatureStore, only: Sequence[str] | None) -> tuple[str, ...]:
    """Return the named stages, or without names all that any clip of the manifest has features of.

    Raises
    ------
    InputError
        A named stage is unknown in the folder, or there are no features.
    """
    known = store.recipe["fingerprints"]
    if unknown := [stage for stage in only or () if stage not in known]:
        raise InputError(
            f"--only {','.join(unknown)}: unknown stage in {store.folder}; choose from {', '.join(known)}"
        )
    stages = tuple(dict.fromkeys(only or store.stages))
    found = tuple(stage for stage in stages if clips_with(store, (stage,)))
    missing = [stage for stage in stages if stage not in found] if only else []
    if missing or not found:
        raise InputError(f"{store.folder}: no {', '.join(missing)} features; extract them first")
    return found


def clips_with(store: FeatureStore, stages: Sequence[str]) -> list[Clip]:
    """Return the clips of the manifest with features of any of these stages, sorted by id."""
    ids = set().union(*(store.ids(stage) for stage in stages))
    return sorted((clip for clip in store.manifest.clips if clip.id in ids), key=lambda clip: clip.id)


def by_split(clips: Collection[Clip]) -> dict[str, list[Clip]]:
    """Divide clips by split, in the order train, valid, test, `UNASSIGNED`; empty splits are left out."""
    parts = {name: [clip for clip in clips if clip.split == name] for name in SPLITS}
    parts[UNASSIGNED] = [clip for clip in clips if clip.split not in SPLITS]
    return {name: found for name, found in parts.items() if found}
