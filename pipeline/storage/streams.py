"""The stages that a trainer or an export reads as its three streams. No numpy: the command line imports it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from triptych.pipeline.assignments import did_you_mean

WORDS = "words"  # the stage whose rows have the spans of words
ALIGNMENTS = ("none", WORDS)
MODALITIES = ("text", "audio", "vision")


class Streams(NamedTuple):
    """The stage that is read for each modality; by default the stage of the same name.

    A modality is an input of a system (text, audio, vision); a stage is a result of extraction. So
    ``Streams(audio="speech")`` trains on speech encoder states where others train on the 33 audio columns. With
    ``align="words"``, each stream has one row for each word of the transcript.
    """

    text: str = "text"
    audio: str = "audio"
    vision: str = "vision"
    align: str = "none"

    @property
    def stages(self) -> Mapping[str, str]:
        """Return the stage of each modality, in the order text, audio, vision."""
        return dict(zip(MODALITIES, self, strict=False))

    @property
    def reads(self) -> tuple[str, ...]:
        """Return every stage that is read, once."""
        return tuple(dict.fromkeys((*self.stages.values(), *((WORDS,) if self.align == WORDS else ()))))

    @property
    def described(self) -> dict[str, str]:
        """Return the streams for a document; the alignment only where there is one."""
        return {**self.stages, **({} if self.align == "none" else {"align": self.align})}

    def problems(self, folder: Path, known: Collection[str]) -> list[str]:
        """Describe each stream whose stage is not among the known stages of a feature folder."""
        return [
            f"--{modality} {stage}: unknown stage in {folder}; choose from {', '.join(known)}"
            f"{f'.{did_you_mean(stage, known)}'.rstrip('.')}"
            for modality, stage in self.stages.items()
            if stage not in known
        ]
