"""Compare the audio stage with plain calls of librosa on the same samples: CPU time and numbers.

    python tests/bench/audio.py CLIPS [--recipe authors-code] [--rounds 3]

CLIPS is a folder (searched through) or a file. Per clip, on samples decoded once, ours and the plain calls
take turns in one process of one thread; figures are medians of CPU time. The plain calls are librosa's functions
as its documentation shows them, with our settings. Where pYIN is in the recipe, it is also timed over librosa's
own example range, C2 to C7, ours and plain.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import warnings
from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray
from turns import Turns, files

from triptych.extractors.audio.features import Audio
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.base import ExtractionError
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.stages.recipe import Recipe, load_recipe

OURS_A_ROUND = 3  # ours is short, so that one run of it says less


def plain(waveform: NDArray[np.float32], settings: AudioSettings, rate: int) -> NDArray[np.float64]:
    """The 33 columns (the first of them F0 in Hz) as librosa's documentation computes them."""
    if settings.first == "log_f0":
        first, _, _ = librosa.pyin(waveform, fmin=settings.fmin, fmax=settings.fmax, sr=rate)
    else:
        first = librosa.feature.zero_crossing_rate(waveform)[0]
    mfcc = librosa.feature.mfcc(y=waveform, sr=rate, htk=settings.mfcc_htk)
    chroma = librosa.feature.chroma_cqt(y=waveform, sr=rate)
    return np.vstack([first, mfcc, chroma]).T


def waveforms(clips: Path, settings: MediaSettings) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, path in files(clips).items():
        try:
            found[name] = MediaSource(path, settings).waveform()
        except ExtractionError as error:
            print(f"left out: {path.name} ({error.reason})")
    return {name: waveform for name, waveform in found.items() if len(waveform)}


def compare(
    found: dict[str, NDArray[np.float32]], settings: AudioSettings, rate: int, rounds: int
) -> list[tuple[float, float, float]]:
    """Print a line a clip; give seconds of sound, and of CPU, ours and plain."""
    audio, figures = Audio(settings, rate), []
    for name, waveform in found.items():
        ours = audio.extract(waveform)  # and the wavelets of its tuning are built
        theirs = plain(waveform, settings, rate)
        if settings.first == "log_f0":
            theirs[:, 0] = np.nan_to_num(np.log(theirs[:, 0]))
        difference = np.abs(ours.values - theirs)
        peak = np.abs(theirs[:, 1:21]).max()
        turns = Turns()
        for _ in range(rounds):
            turns.take(
                lambda w=waveform: audio.extract(w),
                lambda w=waveform: plain(w, settings, rate),
                OURS_A_ROUND,
            )
        cpu, plain_cpu = (cost.cpu for cost in turns.medians())
        figures.append((len(waveform) / rate, cpu, plain_cpu))
        print(
            f"{figures[-1][0]:6.2f} s of sound  plain {plain_cpu * 1e3:7.1f} ms  ours {cpu * 1e3:6.1f} ms  "
            f"{plain_cpu / cpu:5.1f} x  rows whose first column differs {int((difference[:, 0] > 1e-6).sum())}  "
            f"mfcc {difference[:, 1:21].max() / peak:.0e}  chroma {difference[:, 21:].max():.0e}  {name}",
            flush=True,
        )
    return figures


def summarise(title: str, figures: list[tuple[float, float, float]]) -> None:
    sound, ours, theirs = np.array(figures).T
    ratios = theirs / ours
    print(
        f"{title}: {np.median(ratios):.1f} x less CPU (median of {len(ratios)} clips, {ratios.min():.1f} to "
        f"{ratios.max():.1f}; in sum {theirs.sum() / ours.sum():.1f} x); ours {np.median(sound / ours):.0f} x "
        f"real time a core, plain {np.median(sound / theirs):.0f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # librosa's, of clips shorter than a window and of silence
    recipe = Recipe.model_validate(load_recipe(arguments.recipe))
    found = waveforms(arguments.clips, recipe.media)
    rate = recipe.media.sample_rate
    summarise(arguments.recipe, compare(found, recipe.audio, rate, arguments.rounds))
    if recipe.audio.first == "log_f0":
        wide = recipe.audio.model_copy(
            update={"fmin": librosa.note_to_hz("C2"), "fmax": librosa.note_to_hz("C7")}
        )
        middle = dict(sorted(found.items(), key=lambda item: len(item[1]))[len(found) // 2 :][:3])
        print("pYIN over C2 to C7, clips of middle length:")
        summarise("C2 to C7", compare(middle, wide, rate, arguments.rounds))


if __name__ == "__main__":
    main()
