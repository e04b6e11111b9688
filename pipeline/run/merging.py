"""Merge a source into the clips of a feature folder: clips that moved keep their ids, clips that vanished leave."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from triptych.pipeline.manifest.clips import Clip, Manifest, load_manifest, path_id
from triptych.pipeline.stages.graph import sources
from triptych.pipeline.storage.index import FeatureIndex


@dataclass(frozen=True)
class Merged:
    """A source merged into a folder's manifest.

    Attributes
    ----------
    given, manifest
        The source's clips, under the ids that they have in the folder; the same with the clips that the folder had.
    moved
        By the id that is kept: the path of the clip's file now.
    vanished
        Ids of clips whose files no longer exist; they are not in `manifest`.
    """

    given: Manifest
    manifest: Manifest
    moved: Mapping[str, str] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()


def merge_source(folder: Path, given: Manifest) -> Merged:
    """Merge a source into the manifest of a feature folder, by id.

    A clip whose id comes from its path, and is new, is a clip of the folder if it is the same file, or if it has the
    content of a clip whose file no longer exists. A clip has vanished if the source does not list it and its file
    does not exist, though its root does: a disk that is not mounted removes nothing.

    Raises
    ------
    InputError
        The folder's manifest is invalid, or has labels in another range.
    """
    file = folder / "manifest.csv"
    if not file.is_file():
        return Merged(given, given)
    stored = load_manifest(file, check_files=False)
    ids = {clip.id for clip in given.clips}
    unlisted = [clip for clip in stored.clips if clip.id not in ids]
    gone = {clip.id: clip for clip in unlisted if clip.path and not os.path.lexists(clip.file)}
    known = {clip.id for clip in stored.clips}
    new = [clip for clip in given.clips if clip.id not in known and clip.id == path_id(clip.path)]
    names = _known_files(new, unlisted)
    names |= _moved(folder, [clip for clip in new if clip.id not in names], gone.keys() - set(names.values()))
    given = replace(given, clips=tuple(replace(clip, id=names.get(clip.id, clip.id)) for clip in given.clips))
    moved = {clip.id: str(clip.file) for clip in given.clips if clip.id in gone}
    vanished = {id for id, clip in gone.items() if id not in moved and os.path.isdir(clip.root)}  # noqa: PTH112
    remaining = replace(stored, clips=tuple(clip for clip in stored.clips if clip.id not in vanished))
    return Merged(given, remaining.merged(given), moved, tuple(sorted(vanished)))


def _known_files(new: Collection[Clip], stored: Collection[Clip]) -> dict[str, str]:
    """Return the folder's ids of files that the folder lists under another id."""
    by_file = {clip.file: clip.id for clip in stored if clip.path}
    return {clip.id: by_file[clip.file] for clip in new if clip.file in by_file}


def _moved(folder: Path, new: Collection[Clip], gone: Collection[str]) -> dict[str, str]:
    """Return the folder's ids of clips whose content is that of one clip that is gone, by their new ids."""
    if not new or not gone:
        return {}
    with FeatureIndex(folder) as index:
        digests = {}
        for clip in new:
            try:
                digests[clip.id] = index.digest_of(clip.file)
            except OSError:  # reported for the clip by its worker
                continue
        contents: dict[str, str] = {}
        for stage in index.stages():
            if "media" in sources(stage):
                for holding in index.holdings(stage):
                    if holding.clip_id in gone:
                        contents[holding.clip_id] = holding.digest.partition(":")[0]
    several = {digest for digest, count in Counter(contents.values()).items() if count > 1}
    several |= {digest for digest, count in Counter(digests.values()).items() if count > 1}
    ids = {digest: id for id, digest in contents.items() if digest not in several}
    return {id: ids[digest] for id, digest in digests.items() if digest in ids}
