"""The 33 audio columns, as librosa computes them: pitch or zero-crossing rate, 20 MFCC, 12 CQT chroma."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.audio.fast import constant_q
from triptych.extractors.audio.fast import streams as audio_fast
from triptych.extractors.audio.fast.pyin import BINS_PER_SEMITONE, MAX_OCTAVES_PER_SECOND
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.scratch import all_finite, parts

# A frame whose sound (its standard deviation) is less than this share of its offset has no pitch. pYIN goes wrong at
# about half of it.
SOUND_ON_OFFSET = 0.01


class Audio:
    """The audio stage: CH-SIMS section 4.1's features, one row every `hop_length` samples.

    Parameters
    ----------
    settings
        The first column, the hop and frame lengths, and the implementation.
    sample_rate
        Sample rate of the waveforms of all clips [Hz].

    Raises
    ------
    ValueError
        These settings cannot be computed at this rate; the text says which to change.
    """

    def __init__(self, settings: AudioSettings, sample_rate: int) -> None:
        self.settings = settings
        self.sample_rate = sample_rate
        _check_chroma(sample_rate)
        if settings.first == "log_f0":
            _check_pitch(settings, sample_rate)
        self._streams = _kernels(settings, sample_rate)

    def extract(self, waveform: NDArray[np.float32]) -> Features:
        """Compute the 33 columns of one waveform.

        Parameters
        ----------
        waveform
            Mono, shape (n,), n >= 1.

        Returns
        -------
        Features
            ``1 + n // hop_length`` rows; row k is centred on sample ``k * hop_length``, and all are valid.
            ``log_f0`` is the natural logarithm of F0 in Hz and 0 where unvoiced. The extra ``voiced`` is
            pYIN's decision, but False where the sound is little more than a constant offset; where the first column is
            ``zcr`` all are True.

        Raises
        ------
        ExtractionError
            ``empty_audio``, or ``non_finite_audio`` (samples so large that their power overflows included).
        """
        if not len(waveform):
            raise ExtractionError(Reason.EMPTY_AUDIO, "the waveform has no sample")
        if not all_finite(waveform):
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "the waveform holds NaN or infinity")
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            # librosa warns of clips shorter than a window and of silence; both are valid here. What
            # overflows is met below.
            warnings.simplefilter("ignore", UserWarning)
            found = self._streams(waveform, self.settings, self.sample_rate)
            if self.settings.first == "log_f0":
                found = _without_pitch(found, _constant_rows(waveform, self.settings))
            values = np.empty((len(found.first), 1 + found.mfcc.shape[1] + found.chroma.shape[1]), np.float32)
            np.concatenate(
                [found.first[:, np.newaxis], found.mfcc, found.chroma],
                axis=1,
                out=values,
                casting="same_kind",
            )
        if not all_finite(values):
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "samples so large that their power overflows")
        named = audio_columns(self.settings.first)
        return Features(
            values=values,
            columns=tuple(name for name, _ in named),
            units=tuple(unit for _, unit in named),
            times=np.arange(len(values), dtype=np.float64) * (self.settings.hop_length / self.sample_rate),
            valid=np.ones(len(values), dtype=np.bool_),
            extras={"voiced": found.voiced},
        )


def _without_pitch(found: audio_fast.Streams, rows: NDArray[np.bool_]) -> audio_fast.Streams:
    if not rows.any():
        return found
    return found._replace(first=np.where(rows, 0.0, found.first), voiced=found.voiced & ~rows)


def _constant_rows(waveform: NDArray[np.float32], settings: AudioSettings) -> NDArray[np.bool_]:
    """Find rows whose frame is an offset with next to no sound on it, shape (T,).

    The energy of the offset makes pYIN take the rest, rounding errors or noise, for a period. The frame is taken as the
    whole hops that it reaches into.
    """
    hop = settings.hop_length
    rows = 1 + len(waveform) // hop
    counts = np.full(rows, hop, dtype=np.float64)
    counts[-1] = len(waveform) - (rows - 1) * hop
    hops, rest = (
        waveform[: (rows - 1) * hop].reshape(-1, hop),
        waveform[(rows - 1) * hop :].astype(np.float64),
    )
    totals, energies = [], []
    for part in parts(hops):
        totals.append(part.sum(axis=1, dtype=np.float64))
        energies.append(np.einsum("ij,ij->i", part, part, dtype=np.float64))
    sums = (
        counts,
        np.concatenate([*totals, [rest.sum()]]),
        np.concatenate([*energies, [rest @ rest]]),
    )
    reach = -(-settings.frame_length // (2 * hop))
    start = np.maximum(np.arange(rows) - reach, 0)
    stop = np.minimum(np.arange(rows) + reach, rows)
    until = (np.concatenate([[0.0], np.cumsum(one)]) for one in sums)
    count, total, energy = (one[stop] - one[start] for one in until)
    mean = total / count
    variance = energy / count - mean**2
    constant: NDArray[np.bool_] = variance < (SOUND_ON_OFFSET * mean) ** 2
    return constant


def _kernels(
    settings: AudioSettings, sample_rate: int
) -> Callable[[NDArray[np.float32], AudioSettings, int], audio_fast.Streams]:
    if settings.kernels == "fast":
        audio_fast.check(settings, sample_rate)
        return audio_fast.streams
    from triptych.extractors.audio import reference as audio_librosa  # librosa's imports take two seconds

    return audio_librosa.streams


def _check_chroma(sample_rate: int) -> None:
    """Refuse a rate whose Nyquist frequency cuts the chromagram's seventh octave."""
    cutoff = constant_q.highest(constant_q.frequencies(tuning=0.5))
    if sample_rate < 2 * cutoff:
        raise ValueError(
            f"sample_rate {sample_rate} is too low for a chromagram of {constant_q.OCTAVES} octaves: "
            f"it needs {math.ceil(2 * cutoff)} at least"
        )


def _check_pitch(settings: AudioSettings, sample_rate: int) -> None:
    """Refuse what pYIN cannot compute, in the settings' own names."""
    fmin, fmax, length = settings.fmin, settings.fmax, settings.frame_length
    if length % 2:
        raise ValueError(f"frame_length {length} is odd: pYIN's rows would not be those of the other columns")
    if fmax > sample_rate / 2:
        raise ValueError(f"fmax {fmax} lies above half the sample_rate {sample_rate}: lower fmax")
    if sample_rate / fmin >= length - 1:
        raise ValueError(
            f"frame_length {length} holds no whole period of fmin {fmin} at sample_rate {sample_rate}: "
            f"raise frame_length, or fmin above {sample_rate / (length - 1):.1f}"
        )
    bins = math.floor(12 * BINS_PER_SEMITONE * math.log2(fmax / fmin)) + 1
    leap = round(MAX_OCTAVES_PER_SECOND * 12 * settings.hop_length / sample_rate)
    if leap * BINS_PER_SEMITONE + 1 > bins:
        raise ValueError(
            f"hop_length {settings.hop_length} lets the pitch leap {leap} semitones from row to row, but "
            f"fmin {fmin} to fmax {fmax} spans fewer: lower hop_length or widen the range"
        )
