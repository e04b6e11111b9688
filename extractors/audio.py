"""The 33 audio columns, as librosa computes them: pitch or zero-crossing rate, 20 MFCC, 12 CQT chroma."""

from __future__ import annotations

import math
import warnings

import librosa
import numpy as np
from librosa.filters import wavelet_lengths
from numpy.typing import NDArray

from extractors import columns
from extractors.base import ExtractionError, Features, Reason
from extractors.settings import AudioSettings

# librosa's own defaults, written out where two of its functions must agree or a check needs them.
N_FFT = 2048
N_MFCC = 20
CHROMA_BINS_PER_OCTAVE = 36
CHROMA_OCTAVES = 7
PYIN_BINS_PER_SEMITONE = 10
PYIN_MAX_OCTAVES_PER_SECOND = 35.92


class Audio:
    """The audio stage: CH-SIMS section 4.1's features, one row every `hop_length` samples.

    Parameters
    ----------
    settings
        Which first column, and how its rows are cut.
    sample_rate
        Of the waveforms to come, Hz.

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
            pYIN's decision; where the first column is ``zcr`` no row is judged, and all are True.

        Raises
        ------
        ExtractionError
            ``empty_audio``, or ``non_finite_audio`` (samples so large that their power overflows included).
        """
        if not len(waveform):
            raise ExtractionError(Reason.EMPTY_AUDIO, "the waveform has no sample")
        if not np.isfinite(waveform).all():
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "the waveform holds NaN or infinity")
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            # librosa warns of clips shorter than a window and of silence; both are in order here. What
            # overflows is met below.
            warnings.simplefilter("ignore", UserWarning)
            first, voiced = self._first(waveform)
            values = np.vstack([first, *self._timbre_and_chroma(waveform)]).T.astype(np.float32)
        if not np.isfinite(values).all():
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "samples so large that their power overflows")
        named = columns.audio_columns(self.settings.first)
        return Features(
            values=np.ascontiguousarray(values),
            columns=tuple(name for name, _ in named),
            units=tuple(unit for _, unit in named),
            times=np.arange(len(values)) * (self.settings.hop_length / self.sample_rate),
            valid=np.ones(len(values), dtype=np.bool_),
            extras={"voiced": voiced},
        )

    def _first(self, waveform: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Compute the first column, and which rows are voiced; both of shape (T,)."""
        hop = self.settings.hop_length
        if self.settings.first == "zcr":
            rate = librosa.feature.zero_crossing_rate(waveform, hop_length=hop)[0]
            return rate, np.ones(len(rate), dtype=np.bool_)
        f0, voiced, _ = librosa.pyin(
            waveform,
            sr=self.sample_rate,
            fmin=self.settings.fmin,
            fmax=self.settings.fmax,
            frame_length=self.settings.frame_length,
            hop_length=hop,
            fill_na=1.0,  # of which the logarithm is 0
        )
        return np.log(f0), voiced

    def _timbre_and_chroma(
        self, waveform: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the MFCC, shape (20, T), and the chroma, shape (12, T)."""
        hop, rate = self.settings.hop_length, self.sample_rate
        spectrum = np.abs(librosa.stft(waveform, n_fft=N_FFT, hop_length=hop))
        mel = librosa.feature.melspectrogram(S=spectrum**2, sr=rate, n_fft=N_FFT, htk=self.settings.mfcc_htk)
        mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=N_MFCC)
        # librosa estimates the tuning at a quarter-window hop whatever the hop of the rows is.
        at_quarter = spectrum if hop == N_FFT // 4 else None
        tuning = librosa.estimate_tuning(
            y=waveform, sr=rate, S=at_quarter, n_fft=N_FFT, bins_per_octave=CHROMA_BINS_PER_OCTAVE
        )
        chroma = librosa.feature.chroma_cqt(
            y=waveform,
            sr=rate,
            hop_length=hop,
            tuning=tuning,
            n_octaves=CHROMA_OCTAVES,
            bins_per_octave=CHROMA_BINS_PER_OCTAVE,
        )
        return mfcc, chroma


def _check_chroma(sample_rate: int) -> None:
    """Refuse a rate whose Nyquist frequency cuts the chromagram's seventh octave."""
    sharpest = librosa.cqt_frequencies(
        CHROMA_OCTAVES * CHROMA_BINS_PER_OCTAVE,
        fmin=librosa.note_to_hz("C1"),
        bins_per_octave=CHROMA_BINS_PER_OCTAVE,
        tuning=0.5,
    )
    _, cutoff = wavelet_lengths(freqs=sharpest, sr=sample_rate)
    if sample_rate < 2 * cutoff:
        raise ValueError(
            f"sample_rate {sample_rate} is too low for a chromagram of {CHROMA_OCTAVES} octaves: "
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
    bins = math.floor(12 * PYIN_BINS_PER_SEMITONE * math.log2(fmax / fmin)) + 1
    leap = round(PYIN_MAX_OCTAVES_PER_SECOND * 12 * settings.hop_length / sample_rate)
    if leap * PYIN_BINS_PER_SEMITONE + 1 > bins:
        raise ValueError(
            f"hop_length {settings.hop_length} lets the pitch leap {leap} semitones from row to row, but "
            f"fmin {fmin} to fmax {fmax} spans fewer: lower hop_length or widen the range"
        )
