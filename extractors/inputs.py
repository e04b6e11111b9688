"""The inputs of one clip for a loaded stage; each is made on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features, Frame
from triptych.extractors.stage import FACES

if TYPE_CHECKING:
    from triptych.extractors.faces.crops import Aligned, CropSettings


@dataclass(frozen=True)
class ClipInputs:
    """The inputs that stages read from one clip.

    Attributes
    ----------
    text
        The transcript; empty where the clip has none.
    waveform
        Gives the mono waveform, float32, shape (n,), at the recipe's sample rate.
    frames
        Gives the frames at the recipe's frame rate, in order; may be called again.
    rows
        Gives the rows of another stage, by its name; raises the `ExtractionError` of that stage where it failed.
    """

    text: str
    waveform: Callable[[], NDArray[np.float32]]
    frames: Callable[[], Iterable[Frame]]
    rows: Callable[[str], Features]

    def crops(self, settings: CropSettings) -> Iterator[Aligned]:
        """Cut the frames to the tracked face: one aligned crop a frame, as `crops.aligned` describes."""
        from triptych.extractors.faces.crops import aligned  # OpenCV: a run of text alone needs none

        return aligned(self.frames(), self.rows(FACES), settings)
