"""The clips of a run, with ids, paths, transcripts, splits and labels."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange, format_range
from triptych.pipeline.manifest.names import stem

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """One clip. Two clips are equal when all fields are; a missing label equals a missing label.

    Attributes
    ----------
    id
        ``video$_$clip``, as in CH-SIMS and its code.
    path
        The media file, relative to `root`, its folders separated by ``/``.
    text
        The transcript; None if there is none.
    split
        ``train``, ``valid``, ``test`` or None.
    label, label_T, label_A, label_V
        Sentiment of the whole clip, and of its text, audio and video alone, in the manifest's range; NaN where missing.
    root
        Absolute path of the folder that `path` is relative to.
    start, end
        The clip is this span of its file [s]; None for the file's own start and end.
    face
        Centre of the speaker's face in the clip's first second, ``X Y``, as shares of the frame's width and height;
        None for the face that the tracker chooses.
    text_source
        None for a person's transcript; ``asr:<model>@<revision>`` for a recogniser's; ``corrected`` for a recogniser's
        that a person has corrected.
    text_confidence
        How sure the recogniser is, 0 to 1; NaN where that is unknown.
    """

    id: str
    path: str
    text: str | None
    split: str | None
    label: float
    label_T: float
    label_A: float
    label_V: float
    root: str
    start: float | None = None
    end: float | None = None
    face: str | None = None
    text_source: str | None = None
    text_confidence: float = math.nan

    @property
    def file(self) -> Path:
        """The media file."""
        return Path(self.root, self.path)

    @property
    def span(self) -> tuple[float, float | None] | None:
        """The span of the file that the clip is [s]; None for all of it."""
        return None if self.start is None and self.end is None else (self.start or 0.0, self.end)

    @property
    def part(self) -> str:
        """What of its file the clip is, as part of its digest; empty for all of it."""
        if self.span is None and self.face is None:
            return ""
        start, end = self.span or (0.0, None)
        return f"{start!r} {end!r} {self.face or ''}"

    def _comparable(self) -> tuple[object, ...]:
        values = (getattr(self, column.name) for column in fields(self))
        return tuple("missing" if value != value else value for value in values)  # NaN is not equal to itself

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clip) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())


@dataclass(frozen=True)
class Manifest:
    """Clips in the order of their source; each id occurs once.

    Attributes
    ----------
    label_range
        Lowest and highest possible label.
    """

    clips: tuple[Clip, ...]
    label_range: LabelRange = DEFAULT

    @property
    def has_labels(self) -> bool:
        """Whether any clip has a label."""
        return any(not math.isnan(getattr(clip, name)) for clip in self.clips for name in LABELS)

    @property
    def text_sources(self) -> dict[str, int]:
        """How many transcripts are by a person, by which recogniser, or corrected; empty if all are by people."""
        found = Counter(clip.text_source or "by a person" for clip in self.clips if clip.text)
        return {} if set(found) <= {"by a person"} else dict(sorted(found.items()))

    def merged(self, other: Manifest) -> Manifest:
        """Add the clips of another manifest; its row replaces the row of the same id.

        A split or label that is missing in the new row stays: a plain folder of videos has none, and reading
        it again must not remove those that a manifest gave.

        Raises
        ------
        InputError
            Both have labels, in different ranges.
        """
        label_range = other.label_range if other.has_labels else self.label_range
        if self.has_labels and label_range != self.label_range:
            raise InputError(
                f"labels from {format_range(label_range)} cannot be added to labels from "
                f"{format_range(self.label_range)}; use another folder, or name the range by --label-range"
            )
        clips = {clip.id: clip for clip in self.clips}
        for clip in other.clips:
            clips[clip.id] = clip if clip.id not in clips else _completed(clip, clips[clip.id])
        return replace(self, clips=tuple(clips.values()), label_range=label_range)

    def without_splits(self) -> Manifest:
        """Remove the split of every clip."""
        return replace(self, clips=tuple(replace(clip, split=None) for clip in self.clips))


def _completed(clip: Clip, old: Clip) -> Clip:
    labels = {
        name: label
        for name in LABELS
        if math.isnan(getattr(clip, name)) and not math.isnan(label := getattr(old, name))
    }
    if not labels and (clip.split or not old.split):
        return clip
    return replace(clip, split=clip.split or old.split, **labels)


def path_id(path: str) -> str:
    """Return the id of a path in plain form: ``<folder>$_$<stem>``, or ``<stem>`` directly in the root."""
    folder, _, name = path.rpartition("/")
    parent = folder.rpartition("/")[2]
    return f"{parent}$_${stem(name)}" if parent else stem(name)
