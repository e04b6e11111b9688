"""The stage `egemaps`: the 25 low-level descriptors of eGeMAPS v02, computed by openSMILE.

Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective Computing",
IEEE Transactions on Affective Computing 7(2), 2016. The package `opensmile` computes them; its licence allows
research and education, not commercial products.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from triptych.extractors.base import ExtractionError, Features, Reason, UnusableSettingError, package_version
from triptych.extractors.settings import Settings
from triptych.extractors.stage import Columns, Input, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.extractors.inputs import ClipInputs

LICENCE = "openSMILE, audEERING GmbH: research and education only"
HOP_SECONDS = 0.01
# openSMILE's names, which include the smoothing of a descriptor; units from its feature documentation.
COLUMNS: Columns = (
    ("Loudness_sma3", "sone"),
    ("alphaRatio_sma3", "dB"),
    ("hammarbergIndex_sma3", "dB"),
    ("slope0-500_sma3", "dB/Hz"),
    ("slope500-1500_sma3", "dB/Hz"),
    ("spectralFlux_sma3", ""),
    *((f"mfcc{i}_sma3", "") for i in range(1, 5)),
    ("F0semitoneFrom27.5Hz_sma3nz", "semitones above 27.5 Hz"),
    ("jitterLocal_sma3nz", "fraction of the period"),
    ("shimmerLocaldB_sma3nz", "dB"),
    ("HNRdBACF_sma3nz", "dB"),
    ("logRelF0-H1-H2_sma3nz", "dB"),
    ("logRelF0-H1-A3_sma3nz", "dB"),
    *(
        (f"F{i}{name}_sma3nz", unit)
        for i in range(1, 4)
        for name, unit in (("frequency", "Hz"), ("bandwidth", "Hz"), ("amplitudeLogRelF0", "dB"))
    ),
)


class EgemapsSettings(Settings):
    """eGeMAPS v02 has no settings: the set is defined as a whole."""


class Egemaps:
    """openSMILE with the configuration of eGeMAPS v02, loaded once.

    Parameters
    ----------
    sample_rate
        Sample rate of the waveforms of all clips [Hz].
    """

    software: ClassVar[Mapping[str, str]] = {"licence": LICENCE}

    def __init__(self, sample_rate: int) -> None:
        import opensmile

        self._rate = sample_rate
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )

    def extract(self, clip: ClipInputs) -> Features:
        """Compute the descriptors of one clip, as `describe`."""
        return self.describe(clip.waveform())

    def describe(self, waveform: NDArray[np.float32]) -> Features:
        """Compute the descriptors of a mono waveform, shape (n,).

        Returns
        -------
        Features
            Shape (T, 25), a row every 10 ms; `times` is the start of a row's first window. Descriptors of voiced speech
            are 0 in unvoiced rows.

        Raises
        ------
        ExtractionError
            `Reason.EMPTY_AUDIO`: the sound is shorter than openSMILE's longest window, 60 ms.
        """
        import numpy as np

        if not np.isfinite(waveform).all():
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "the waveform holds NaN or infinity")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "segment too short": its rows are NaN, see below
            table = self._smile.process_signal(waveform, self._rate) if len(waveform) else None
        if table is None or np.isnan(table.to_numpy()).all():
            raise ExtractionError(
                Reason.EMPTY_AUDIO,
                f"{len(waveform) / self._rate:.3f} s of sound; eGeMAPS needs 0.06 s or more",
            )
        starts = table.index.get_level_values("start").total_seconds()
        return Features(
            values=np.ascontiguousarray(table.to_numpy(), np.float32),
            columns=tuple(table.columns),
            units=tuple(unit for _, unit in COLUMNS),
            times=np.array(starts, np.float64),
            valid=np.ones(len(table), dtype=np.bool_),
        )


def _resolve(settings: EgemapsSettings) -> EgemapsSettings:
    if package_version("opensmile") is None:
        raise UnusableSettingError(
            "egemaps: the package opensmile is not installed. Run `pip install 'triptych[egemaps]'` (its licence "
            "allows research and education only), or leave the stage out of --only"
        )
    return settings


STAGE = Stage(
    name="egemaps",
    row="10 ms of sound",
    settings=EgemapsSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [COLUMNS],
    row_rate=lambda settings, media: media.sample_rate / int(HOP_SECONDS * media.sample_rate + 0.5),
    load=lambda settings, media, device: Egemaps(media.sample_rate),
    packages=("av", "opensmile", "soxr"),
    model_identity=lambda settings: f"opensmile {package_version('opensmile')}",  # it ships the configuration
    resolve=_resolve,
)
