"""How well `triptych cut` divides recordings of known content: three of ten minutes, joined from real clips.

    python tests/bench/cutting.py CLIPS [--folder FOLDER] [--minutes M]

CLIPS is a folder Raw of real clips. Recordings, and what the stages found in them, stay in FOLDER for the next run.
Printed are precision and recall of the taken time, the reasons by kind of piece, the error of ends of clips against the
loud part of the clean clip, how often a wrong speaker is named, and CPU by stage.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recordings import SPEAKING, Piece, load_clips, make_recording, read_truth

from triptych.extractors.cutting.analysis import Analysis
from triptych.extractors.cutting.proposals import Candidate, propose
from triptych.extractors.cutting.settings import CutSettings
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.storage.ledger import read_ledger
from triptych.pipeline.storage.store import FeatureStore

TOLERANCE = 0.3  # a clip may reach into what is beside its piece by this much [s]
NEAR = 0.5  # ends of speech further apart than this are of different pauses [s]


def made(folder: Path, clips: Path, minutes: float, count: int, speakers: str) -> list[Path]:
    """Make the recordings that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"recording_{number}.mp4" for number in range(1, count + 1)]
    if missing := [path for path in paths if not path.with_suffix(".json").is_file()]:
        found = load_clips(clips, speakers=speakers)
        for path in missing:
            make_recording(found, path, minutes * 60, int(path.stem.rpartition("_")[2]))
    return paths


def overlap(a: Candidate | Piece, b: Candidate | Piece) -> float:
    return max(min(a.end, b.end) - max(a.start, b.start), 0.0)


class Score:
    """Sums over recordings."""

    def __init__(self) -> None:
        self.taken = self.right = self.speech = self.covered = 0.0
        self.reasons: dict[str, Counter[str]] = {}
        self.errors: list[float] = []
        self.named = self.wrong = self.clips = 0

    def add(self, truth: Sequence[Piece], found: Sequence[Candidate]) -> None:
        """Compare the candidates of one recording with its truth."""
        good = [piece for piece in truth if piece.kind in SPEAKING]
        taken = [one for one in found if one.keep]
        self.clips += len(taken)
        for one in taken:
            self.taken += one.end - one.start
            inside = sum(overlap(one, piece) for piece in good)
            self.right += one.end - one.start if one.end - one.start - inside <= TOLERANCE else inside
        for piece in good:
            spoken = Candidate(*piece.speech, None, "")
            self.speech += spoken.end - spoken.start
            self.covered += sum(overlap(one, spoken) for one in taken)
            self._ends(spoken, [one for one in taken if overlap(one, piece) > 0.5])
        for piece in truth:
            of_piece = [one for one in found if overlap(one, piece) > (one.end - one.start) / 2]
            counts = self.reasons.setdefault(piece.kind, Counter())
            counts.update(str(one.reason or "taken") for one in of_piece)
            if piece.kind == "two faces":
                for one in of_piece:
                    if one.keep:
                        self.named += 1
                        self.wrong += one.face is None or abs(one.face[0] - piece.face[0]) > 0.25

    def _ends(self, spoken: Candidate, clips: list[Candidate]) -> None:
        """Compare begin and end of speech: a clip has a margin, which is taken off."""
        margin = CutSettings().margin
        for mine, true in (
            (min((one.start for one in clips), default=np.inf) + margin, spoken.start),
            (max((one.end for one in clips), default=-np.inf) - margin, spoken.end),
        ):
            if abs(mine - true) < NEAR:
                self.errors.append(abs(mine - true))

    def report(self) -> None:
        """Print everything."""
        errors = np.array(self.errors) * 1000
        print(f"{self.clips} clips of {self.taken:.0f} s")
        print(f"precision of taken time {self.right / max(self.taken, 1e-9):.3f}")
        print(f"recall of true speech  {self.covered / max(self.speech, 1e-9):.3f}")
        print(f"error of ends: median {np.median(errors):.0f} ms, 90 % {np.percentile(errors, 90):.0f} ms")
        print(f"wrong speaker: {self.wrong} of {self.named} clips with two faces")
        for kind, counts in self.reasons.items():
            print(f"  {kind:20} {', '.join(f'{count} {reason}' for reason, count in counts.most_common())}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument(
        "--speakers", default="video_retalking", help="in the names of clips whose face speaks"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        paths = made(folder / "recordings", options.clips, options.minutes, options.count, options.speakers)
        analysis = folder / "analysis"
        settings = ["media.sample_rate=16000"]
        run(prepare(paths, analysis, only=["voice", "scenes"], assignments=settings), jobs=0)
        store, score, seconds = FeatureStore(analysis), Score(), 0.0
        for clip in store.manifest.clips:
            known = Analysis.of(store.read("voice", clip.id), store.read("scenes", clip.id))
            seconds += known.duration
            score.add(read_truth(clip.file), propose(known, CutSettings()))
        score.report()
        spent = Counter[str]()
        for line in read_ledger(analysis).values():
            spent[line.stage] += line.seconds
        costs = ", ".join(f"{name} {each / seconds:.3f} s a second" for name, each in spent.items())
        print(f"{seconds:.0f} s of recordings; {costs}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
