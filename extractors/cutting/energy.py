"""The energy of speech over time, from the bands in which voices are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.scratch import parts

SAMPLE_RATE = 16000  # [Hz]
SAMPLES = 256  # a value
ENERGY_RATE = SAMPLE_RATE / SAMPLES  # [Hz]
BAND = (300.0, 3400.0)  # [Hz]; what telephones transmit of a voice


def speech_energy(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the root mean square of each 16 ms of a waveform, from 300 to 3,400 Hz.

    Parameters
    ----------
    sound
        Shape (n,), 16 kHz; long sound may be mapped from a file.

    Returns
    -------
    NDArray[np.float32]
        Shape (ceil(n / 256),), full scale 1: value k is of samples 256 k to 256 k + 255.
    """
    from scipy.signal import butter, sosfilt

    filters = butter(2, BAND, "bandpass", fs=SAMPLE_RATE, output="sos")
    state = np.zeros((len(filters), 2))
    found = [np.zeros(0, np.float32)]
    for part in parts(sound, SAMPLES * 4096):
        filtered, state = sosfilt(filters, part.astype(np.float64), zi=state)
        rows = np.pad(filtered, (0, -len(filtered) % SAMPLES)).reshape(-1, SAMPLES)
        found.append(np.sqrt((rows * rows).mean(axis=1)).astype(np.float32))
    return np.concatenate(found)
