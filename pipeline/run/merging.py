"""Merge a source into the clips of a feature folder: clips that moved keep their ids, clips that vanished leave."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from triptych.pipeline.manifest.clips import Clip, Manifest, path_id
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import is_written
from triptych.pipeline.stages.graph import sources
from triptych.pipeline.storage.index import FeatureIndex, part_digest


@dataclass(frozen=True)
class Merged:
    """A source merged into a folder's manifest.

    Attributes
    ----------
    given, manifest
        The source's clips, under the ids that they have in the folder; the same with the clips that the folder had.
    moved
        By the id that stays: the path of the clip's file now.
    vanished
        Ids of clips whose files no longer exist; they are not in `manifest`.
    listed
        Stamp of the folder's manifest file if it lists exactly these clips.
    """

    given: Manifest
    manifest: Manifest
    moved: Mapping[str, str] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()
    listed: tuple[int, ...] = ()


def manifest_stamp(folder: Path) -> tuple[int, ...]:
    """Return size, time and inode of a folder's manifest; empty if it does not exist."""
    try:
        status = (folder / "manifest.csv").stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino


def merge_source(folder: Path, given: Manifest) -> Merged:
    """Merge a source into the manifest of a feature folder, by id.

    An id that comes from a path says little about a clip. So a clip with such an id is a clip of the folder if it is
    the same file, or if it has the content of a clip whose file no longer exists; and it is another clip, and gets
    another id, if the folder has that id for another file with another content. A clip has vanished if the source does
    not list it and its file does not exist, though its root does: a disk that is not mounted removes nothing.

    Raises
    ------
    InputError
        The folder's manifest is invalid, or has labels in another range.
    """
    file = folder / "manifest.csv"
    stamp = manifest_stamp(folder)
    if not file.is_file():
        return Merged(given, given)
    if is_written(given, file):  # nothing to merge, which saves half of the memory
        return Merged(given, given, listed=stamp)
    stored = load_manifest(file, check_files=False)
    known = {clip.id: clip for clip in stored.clips}
    named = {clip.id for clip in given.clips if clip.id != path_id(clip.path)}
    by_path = [clip for clip in given.clips if clip.id not in named]
    names = _same_files(by_path, stored.clips, named)
    open_ids = [clip for clip in by_path if clip.id not in names]
    taken = {names.get(clip.id, clip.id) for clip in given.clips}
    gone = {
        id for id, clip in known.items() if id not in taken and clip.path and not os.path.lexists(_file(clip))
    }
    new = [clip for clip in open_ids if clip.id not in known]
    elsewhere = [clip for clip in open_ids if clip.id in known and os.path.lexists(_file(known[clip.id]))]
    if (new and gone) or elsewhere:
        names |= _by_content(folder, new, gone, elsewhere, known)
    if names:
        given = replace(
            given, clips=tuple(replace(clip, id=names.get(clip.id, clip.id)) for clip in given.clips)
        )
    moved = {clip.id: str(clip.file) for clip in given.clips if clip.id in gone}
    vanished = {id for id in gone if id not in moved and os.path.isdir(known[id].root)}  # noqa: PTH112
    remaining = replace(stored, clips=tuple(clip for clip in stored.clips if clip.id not in vanished))
    return Merged(given, remaining.merged(given), moved, tuple(sorted(vanished)))


def _same_files(given: Iterable[Clip], stored: Iterable[Clip], named: Collection[str]) -> dict[str, str]:
    """Return the folder's id of each given file that the folder lists, by the id that its path gives."""
    by_file = {(_file(clip), clip.part): clip.id for clip in stored if clip.path and clip.id not in named}
    return {clip.id: by_file[key] for clip in given if (key := (_file(clip), clip.part)) in by_file}


def _file(clip: Clip) -> str:
    """Return the path of a clip's file, without a Path object, which is far slower."""
    return f"{clip.root}/{clip.path}"


def _by_content(
    folder: Path,
    new: Collection[Clip],
    gone: Collection[str],
    elsewhere: Collection[Clip],
    known: Mapping[str, Clip],
) -> dict[str, str]:
    """Compare contents: which new clips are ones that are gone, and which are others in spite of their ids.

    Returns
    -------
    dict of str to str
        The id in the folder, by the id that the path gives.
    """
    with FeatureIndex(folder) as index:
        contents = _contents(index, gone)
        digests = {clip.id: digest for clip in new if (digest := _digest(index, clip))}
        others = [clip for clip in elsewhere if _digest(index, clip) != _digest(index, known[clip.id])]
    counts = Counter(contents.values()) + Counter(digests.values())
    ids = {digest: id for id, digest in contents.items() if counts[digest] == 2}  # one gone, one new
    names = {id: ids[digest] for id, digest in digests.items() if digest in ids}
    return names | {clip.id: _another_id(clip, known) for clip in others}


def _contents(index: FeatureIndex, ids: Collection[str]) -> dict[str, str]:
    """Return the digest of the media file that each clip's features were computed from."""
    return {
        holding.clip_id: holding.digest.partition(":")[0]
        for stage in index.stages()
        if "media" in sources(stage)
        for holding in index.holdings(stage)
        if holding.clip_id in ids
    }


def _digest(index: FeatureIndex, clip: Clip) -> str:
    try:
        return part_digest(index.digest_of(clip.file), clip.part)
    except OSError:  # reported for the clip by its worker
        return ""


def _another_id(clip: Clip, known: Collection[str]) -> str:
    """Put the name of the source's folder, and a number if need be, before an id that another clip has."""
    folder = Path(clip.root).name or "root"
    joint = "_" if "$_$" in clip.id else "$_$"
    id, number = f"{folder}{joint}{clip.id}", 2
    while id in known:
        id, number = f"{folder}-{number}{joint}{clip.id}", number + 1
    return id
