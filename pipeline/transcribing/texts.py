"""Whose transcript a clip has: a person's stays, a recogniser's is replaced, one that a person corrected is marked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from triptych.extractors.base import Features
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.documents import read_json
from triptych.pipeline.manifest.clips import Clip, Manifest

CORRECTED = "corrected"
WRITTEN = "written.json"


@dataclass(frozen=True)
class Transcribed:
    """A manifest with transcripts, and what was done to it.

    Attributes
    ----------
    manifest
        All clips.
    by_machine, by_people, corrected, empty
        Ids of clips, by whose transcript they have now.
    """

    manifest: Manifest
    by_machine: tuple[str, ...]
    by_people: tuple[str, ...]
    corrected: tuple[str, ...]
    empty: tuple[str, ...]


def is_by_person(clip: Clip) -> bool:
    """Return whether a clip has a transcript that no recogniser made."""
    return bool(clip.text) and clip.text_source is None


def heard_text(rows: Features) -> str:
    """Return the transcript of rows of the stage `asr`."""
    from triptych.extractors.asr.heard import joined_text

    return joined_text([str(token) for token in rows.extras["tokens"]])


def with_corrections(manifest: Manifest, folder: Path) -> Manifest:
    """Mark transcripts by a recogniser that are not what was written: a person has corrected them."""
    written = _written(folder)
    return replace(
        manifest,
        clips=tuple(
            replace(clip, text_source=CORRECTED, text_confidence=math.nan)
            if (clip.text_source or "").startswith("asr:")
            and clip.id in written
            and written[clip.id] != _hash(clip.text or "")
            else clip
            for clip in manifest.clips
        ),
    )


def without_text(clip: Clip, again: bool) -> bool:
    """Return whether a clip is to be transcribed; `again` also where a recogniser has made its transcript.

    A transcript that a person has removed is a correction.
    """
    if clip.text_source == CORRECTED:
        return False
    return not clip.text or (again and (clip.text_source or "").startswith("asr:"))


def with_texts(clips: Manifest, before: Manifest) -> Manifest:
    """Add clips to a manifest that has transcripts; these stay, unless the new clip has one by a person."""
    old = {clip.id: clip for clip in before.clips}
    taken = tuple(
        replace(
            clip,
            text=old[clip.id].text,
            text_source=old[clip.id].text_source,
            text_confidence=old[clip.id].text_confidence,
        )
        if clip.id in old and not (is_by_person(clip) and not is_by_person(old[clip.id]))
        else clip
        for clip in clips.clips
    )
    return before.merged(replace(clips, clips=taken))


def transcribed(
    manifest: Manifest,
    heard: Mapping[str, Features],
    recogniser: str,
    folder: Path,
    silent: Collection[str] = (),
) -> Transcribed:
    """Put what a recogniser heard into a manifest.

    Parameters
    ----------
    manifest
        As `with_corrections` returns it.
    heard
        Rows of the stage `asr`, by clip. A transcript by a person, or corrected by one, stays all the same.
    recogniser
        Its name with its revision.
    folder
        Where it is remembered what was written.
    silent
        Clips in which nobody speaks.
    """
    clips: list[Clip] = []
    ids: dict[str, list[str]] = {"machine": [], "people": [], CORRECTED: [], "empty": []}
    written = _written(folder)
    for clip in manifest.clips:
        by_machine = (clip.text_source or "").startswith("asr:")
        if clip.text_source == CORRECTED or is_by_person(clip):
            ids[CORRECTED if clip.text_source == CORRECTED else "people"].append(clip.id)
        elif clip.id in heard:
            rows = heard[clip.id]
            clip = replace(
                clip,
                text=heard_text(rows),
                text_source=f"asr:{recogniser}",
                text_confidence=round(float(rows.values[:, 2].mean()), 3),
            )
            written[clip.id] = _hash(clip.text or "")
            ids["machine"].append(clip.id)
        elif by_machine and clip.id not in silent:  # also where its file could not be read this time
            ids["machine"].append(clip.id)
        else:
            clip = replace(clip, text=None, text_source=None, text_confidence=math.nan)
            ids["empty"].append(clip.id)
        clips.append(clip)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WRITTEN, json.dumps(written, indent=0, sort_keys=True).encode())
    return Transcribed(
        replace(manifest, clips=tuple(clips)),
        tuple(ids["machine"]),
        tuple(ids["people"]),
        tuple(ids[CORRECTED]),
        tuple(ids["empty"]),
    )


def corrected(manifest: Manifest, texts: Mapping[str, str]) -> tuple[Manifest, tuple[str, ...]]:
    """Take transcripts that people have written or corrected; also the ids of the clips that changed.

    Parameters
    ----------
    texts
        By clip.
    """
    clips, changed = [], []
    for clip in manifest.clips:
        text = texts.get(clip.id, "").strip()
        if text and text.split() != (clip.text or "").split():
            source = None if is_by_person(clip) or not clip.text else CORRECTED
            clip = replace(clip, text=text, text_source=source, text_confidence=math.nan)
            changed.append(clip.id)
        clips.append(clip)
    return replace(manifest, clips=tuple(clips)), tuple(changed)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _written(folder: Path) -> dict[str, str]:
    try:
        document = read_json((folder / WRITTEN).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(id): str(text) for id, text in document.items()} if isinstance(document, dict) else {}
