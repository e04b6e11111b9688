"""The stages that a trainer or an export reads as its three streams. No numpy: the command line imports it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from triptych.pipeline.assignments import did_you_mean


class Streams(NamedTuple):
    """The stage that is read for each modality; by default the stage of the same name.

    A modality is an input of a system (text, audio, vision); a stage is a result of extraction. So
    ``Streams(audio="speech")`` trains on speech encoder states where others train on the 33 audio columns.
    """

    text: str = "text"
    audio: str = "audio"
    vision: str = "vision"

    @property
    def stages(self) -> Mapping[str, str]:
        """Return the stage of each modality, in the order text, audio, vision."""
        return self._asdict()

    def problems(self, folder: Path, known: Collection[str]) -> list[str]:
        """Describe each stream whose stage is not among the known stages of a feature folder."""
        return [
            f"--{modality} {stage}: unknown stage in {folder}; choose from {', '.join(known)}"
            f"{f'.{did_you_mean(stage, known)}'.rstrip('.')}"
            for modality, stage in self.stages.items()
            if stage not in known
        ]
