"""pocketsphinx, whose package includes an English model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.asr.heard import Heard

FRAMES = 100  # per second
_VARIANT = re.compile(r"\(\d+\)$")  # the dictionary's second pronunciation of "the" is "the(2)"


class SphinxRecogniser:
    """pocketsphinx with its English acoustic and language models, loaded once."""

    rate = 16000
    longest = 60.0

    def __init__(self) -> None:
        import pocketsphinx

        self._decoder: Any = pocketsphinx.Decoder(loglevel="FATAL")

    def recognise(self, sounds: Sequence[NDArray[np.float32]]) -> list[list[Heard]]:
        """Return the words of each sound."""
        return [self._recognised(sound) for sound in sounds]

    def _recognised(self, sound: NDArray[np.float32]) -> list[Heard]:
        decoder = self._decoder
        loudest = max(float(np.abs(sound).max(initial=0.0)), 1e-6)
        samples = (
            np.rint(sound * (0.9 * 32767 / loudest)).astype("<i2").tobytes()
        )  # its features depend on loudness
        # What it learns of the noise of one clip must not change the next one.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        return [
            Heard(
                _VARIANT.sub("", one.word),
                one.start_frame / FRAMES,
                (one.end_frame + 1) / FRAMES,
                min(max(float(one.prob), 0.0), 1.0),
            )
            for one in decoder.seg() or ()
            if not one.word.startswith(("<", "[", "(", "+"))
        ]
