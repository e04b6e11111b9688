"""Compare the frames and the sound of generated clips with what was put in, and with the ffmpeg program.

    python tests/bench/frame_oracle.py [--ffmpeg PROGRAM] [--only WORD]

Each frame shows its number and the pitch of the sound is its time, so that one row of the table says which frames
were shown, whether in order, and by how much the sound was out of step. Without the program the last column stays
empty. The clips are those of `tests/frame_cases.py`; `tests/test_frame_times.py` runs them as tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from by_files import find_ffmpeg

sys.path.insert(0, str(Path(__file__).parents[1]))

from frame_cases import CASES, Case
from numbered_clips import CELL, CELLS, number_of, out_of_step, shown

from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

SIDE = CELL * CELLS


def by_ffmpeg(ffmpeg: str, path: Path) -> list[int]:
    """Return the number of each frame that ffmpeg's fps=30 gives."""
    words = [ffmpeg, "-loglevel", "quiet", "-i", str(path), "-map", "0:v:0", "-vf", "fps=30", "-threads", "1"]
    words += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    return [number_of(image) for image in np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE, 3)]


def summary(numbers: list[int]) -> str:
    ordered = "in order" if numbers == sorted(numbers) else "NOT in order"
    return f"{len(numbers):6} rows {len(set(numbers)):4} frames {ordered}"


def compare(case: Case, path: Path, ffmpeg: str | None) -> tuple[str, bool]:
    """Return a row of the table, and whether ours is right."""
    source = MediaSource(path, MediaSettings())
    frames = list(source.frames())
    numbers = [number for _, number in shown(frames)]
    right = numbers == sorted(numbers) or case.numbers is None
    right &= case.numbers is None or tuple(dict.fromkeys(numbers)) == case.numbers
    delay = ""
    if case.seconds != 0:
        delays = out_of_step(frames, source.waveform(), source.settings.sample_rate)
        worst = max(delays, key=abs, default=0.0)
        right &= abs(worst) <= case.step
        delay = f"{1000 * worst:+5.0f} ms"
    notes = "; ".join(dict.fromkeys((*source.notes.frames, *source.notes.sound)))
    right &= case.note in notes and bool(case.note) == bool(notes)
    row = f"{'ok   ' if right else 'WRONG'} {case.name:48} {summary(numbers)} {delay:9}"
    if ffmpeg:
        theirs = by_ffmpeg(ffmpeg, path)
        row += f" | ffmpeg {'the same' if theirs == numbers else summary(theirs)}"
    return f"{row} | {notes}" if notes else row, right


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ffmpeg", help="the program; by default PATH's, or imageio-ffmpeg's")
    parser.add_argument("--only", default="", help="cases whose name has this word")
    arguments = parser.parse_args()
    try:
        ffmpeg = find_ffmpeg(arguments.ffmpeg)
    except SystemExit:
        ffmpeg = None
    wrong, cases = 0, [case for case in CASES if arguments.only in case.name]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            row, right = compare(case, case.make(Path(folder)), ffmpeg)
        wrong += not right
        print(row, flush=True)
    print(f"{len(cases)} clips, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
