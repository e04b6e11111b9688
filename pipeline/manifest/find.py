"""Find the clip that a user means."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted, shown
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.files import absolute

JOINT = "$_$"  # of an id; shells expand it, so that `video/clip` is accepted too
NAMED = 5  # ids that a message lists


def find_clip(clips: Sequence[Clip], name: str, where: str) -> Clip:
    """Return the clip with this id, ``video/clip``, path, or part of one that no other clip has.

    Parameters
    ----------
    where
        The folder or file of the clips, for messages.

    Raises
    ------
    InputError
        No clip has the name, or several do; the nearest ids are listed.
    """
    by_id = {clip.id: clip for clip in clips}
    joined = name.strip("/").replace("/", JOINT)
    for exact in (name, joined):
        if exact in by_id:
            return by_id[exact]
    path = absolute(name)
    found = [clip for clip in clips if clip.path == name or str(clip.file) == path]
    found = found or [
        clip for clip in clips if clip.id.endswith(JOINT + joined) or f"/{clip.path}".endswith(f"/{name}")
    ]
    found = found or [clip for clip in clips if name and (joined in clip.id or name in clip.path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{where}: {len(found)} clips match {quoted(name)}: {_listed([c.id for c in found])}. Name one"
        )
    near = get_close_matches(joined, by_id, NAMED, 0.5) or get_close_matches(joined, by_id, NAMED, 0.2)
    raise InputError(
        f"{where}: no clip {quoted(name)}. The nearest are {_listed(near or list(by_id))}. Name one as video/clip: "
        f"a shell expands the {JOINT} of an id"
    )


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(shown(one.replace(JOINT, "/")) for one in ids[:NAMED]) + more
