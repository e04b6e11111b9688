"""Names and units of the 33 audio columns. No numpy."""

from __future__ import annotations

from triptych.extractors.stage import Columns

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def audio_columns(first: str = "log_f0") -> Columns:
    """List the 33 audio columns: pitch (or the zero-crossing rate), 20 MFCC, 12 CQT chroma.

    Parameters
    ----------
    first
        ``"log_f0"``, as the paper (section 4.1) says, or ``"zcr"``, as its authors' code does.
    """
    unit = {"log_f0": "ln(Hz)", "zcr": "crossings per sample"}[first]
    mfcc = tuple((f"mfcc_{i}", "dB") for i in range(20))
    chroma = tuple((f"chroma_{name}", "fraction of the frame's peak") for name in PITCH_CLASSES)
    return ((first, unit), *mfcc, *chroma)
