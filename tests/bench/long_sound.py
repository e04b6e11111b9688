"""Memory and time of the audio stage on long sound.

    python tests/bench/long_sound.py [--minutes 10 60 120 240]

Each length is a process of its own, so that its peak is its own: a WAV file of generated sound at 22,050 Hz is
written, read as a clip is, and its rows are computed ("file"). "rows" is the peak of the kernels alone, on a waveform
in memory. Peaks are of resident memory, in MB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

from triptych.extractors.audio.features import Audio
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

RATE = 22050
PART = 10  # seconds that are generated at a time


def parts(minutes: float):
    random = np.random.default_rng(0)
    time_ = np.arange(PART * RATE) / RATE
    glide = 0.2 * np.sin(2 * np.pi * (150 + 30 * np.sin(time_)) * time_)
    for _ in range(int(minutes * 60 / PART)):
        yield (glide + 0.02 * random.standard_normal(PART * RATE)).astype(np.float32)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(minutes: float, what: str) -> None:
    audio = Audio(AudioSettings(), RATE)
    audio.extract(next(parts(1)))
    start = peak()
    if what == "rows":
        waveform = np.empty(int(minutes * 60) * RATE, np.float32)
        for number, part in enumerate(parts(minutes)):
            waveform[number * len(part) :][: len(part)] = part
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.wav"
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                for part in parts(minutes):
                    file.writeframes((part * 32767).astype("<i2").tobytes())
            waveform = MediaSource(path, MediaSettings()).waveform()
    before = time.process_time()
    rows = len(audio.extract(waveform))
    print(
        f"{minutes:6.0f} min  {what:5}  {rows:7} rows  at first {start:5.0f} MB  "
        f"waveform {waveform.nbytes / 2**20:5.0f} MB  peak {peak():5.0f} MB  "
        f"rows in {time.process_time() - before:5.1f} s of CPU",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60, 120, 240])
    parser.add_argument("--what", choices=["rows", "file"])
    given = parser.parse_args()
    if given.what:
        measure(given.minutes[0], given.what)
        return
    for minutes in given.minutes:
        for what in ("rows", "file"):
            subprocess.run([sys.executable, __file__, "--minutes", str(minutes), "--what", what], check=True)


if __name__ == "__main__":
    main()
