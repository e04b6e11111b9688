"""Who speaks: how often the face that fits the sound is the right one, and voices from off screen.

    python tests/bench/speakers.py CLIPS [--seconds 3] [--pairs 400]

CLIPS is a folder (searched through) of clips in which the one face that is seen is heard. Each clip is analysed once
and divided into pieces of so many seconds. As in a recording with two people side by side, the sound of a piece is
compared with its own face and with that of a piece of another clip; as in a voice-over, with the other face alone.
Clips with the same sound are no pair. Printed, by `CutSettings.min_lead` and `min_fit`: wrong speakers, undecided
pairs, voice-overs that are accepted, and own voices that are rejected.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from turns import files

from triptych.extractors.base import ExtractionError
from triptych.extractors.cutting.analysis import Analysis
from triptych.extractors.cutting.energy import ENERGY_RATE
from triptych.extractors.cutting.settings import ScenesSettings
from triptych.extractors.cutting.speaker import Fit, fit
from triptych.extractors.cutting.tracks import Track
from triptych.pipeline.run.single import compute
from triptych.pipeline.stages.recipe import Recipe

RECIPE = Recipe()


@dataclass
class Piece:
    """A span of a clip, moved to begin at 0."""

    clip: str
    track: Track
    energy: NDArray[np.float32]
    seconds: float


def pieces(name: str, path: Path, seconds: float) -> list[Piece]:
    try:
        voice, scenes = (compute(stage, RECIPE, path=path) for stage in ("voice", "scenes"))
    except ExtractionError as error:
        print(f"{name}: {error}")
        return []
    analysis = Analysis.of(voice, scenes)
    if not analysis.tracks or not len(analysis.energy):
        return []
    track = max(analysis.tracks, key=lambda one: len(one.times))
    found = []
    for start in np.arange(0, max(analysis.duration - seconds / 2, 0.1), seconds):
        end = min(start + seconds, analysis.duration)
        rows = (track.times >= start) & (track.times < end)
        if end - start < seconds / 2 or rows.sum() < 0.8 * ScenesSettings().mouth_rate * (end - start):
            continue
        moved = Track(track.times[rows] - start, track.boxes[rows], track.scores[rows], track.mouth[rows])
        energy = analysis.energy[int(start * ENERGY_RATE) : int(end * ENERGY_RATE)]
        found.append(Piece(name, moved, energy, float(end - start)))
    return found


def same_sound(one: Piece, other: Piece) -> bool:
    length = min(len(one.energy), len(other.energy))
    return bool(np.corrcoef(one.energy[:length], other.energy[:length])[0, 1] > 0.9)


def percent(values: NDArray[np.bool_]) -> str:
    return f"{100 * np.mean(values):5.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pairs", type=int, default=400)
    arguments = parser.parse_args()
    every = [
        piece
        for folder in arguments.clips
        for name, path in files(folder).items()
        for piece in pieces(name, path, arguments.seconds)
    ]
    own = [fit(piece.track, piece.energy, 0, piece.seconds) for piece in every]
    for piece, found in zip(every, own, strict=True):
        print(
            f"{piece.clip:40s} {piece.seconds:4.1f} s  own {found.correlation:5.2f}  motion {found.motion:4.2f}"
        )
    pairs: list[tuple[Fit, Fit]] = []
    for index, piece in enumerate(every):
        for other in every:
            if other.clip != piece.clip and not same_sound(piece, other):
                length = min(piece.seconds, other.seconds)
                short = fit(piece.track, piece.energy, 0, length) if length < piece.seconds else own[index]
                pairs.append((short, fit(other.track, piece.energy, 0, length)))
    chosen = np.random.default_rng(0).permutation(len(pairs))[: arguments.pairs]
    ours = np.array([pairs[k][0].correlation for k in chosen])
    others = np.array([pairs[k][1].correlation for k in chosen])
    alone = np.array([found.correlation for found in own])
    print(f"{len(every)} pieces of {len({piece.clip for piece in every})} clips, {len(chosen)} pairs")
    for lead in (0, 0.05, 0.1, 0.15, 0.2, 0.3):
        decided = abs(ours - others) > lead
        print(
            f"min_lead {lead:4.2f}: wrong speaker {percent(decided & (others > ours))} of all, "
            f"{percent((others > ours)[decided])} of decided; undecided {percent(~decided)}"
        )
    for least in (-0.1, 0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        print(
            f"min_fit {least:5.2f}: voice-over accepted {percent(others >= least)}, "
            f"own voice rejected {percent(alone < least)}"
        )


if __name__ == "__main__":
    main()
