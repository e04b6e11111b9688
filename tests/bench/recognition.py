"""Speech recognition over clips that have transcripts: error rates of words and characters, and CPU time.

    python tests/bench/recognition.py SOURCE [--set asr.backend=pocketsphinx] [--id ID ...]

SOURCE is a manifest or a data set whose transcripts are by people; clips without one are left out. An error rate is the
least number of words (or characters) that were changed, added or left out, by the number in the transcripts. Capital
letters and punctuation do not count; a Chinese character is a word. Each clip is printed, since a mean hides one in
which nothing was recognised.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from triptych.extractors.asr.recognition import Recognition
from triptych.extractors.asr.stage import STAGE
from triptych.extractors.base import ExtractionError
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.words.tokens import tokens_of
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.stages.recipe import build_recipe, parse_assignments
from triptych.pipeline.transcribing.texts import heard_text, is_by_person

RATE = 16000


class Sound:
    """A clip as the stage reads it."""

    def __init__(self, waveform):
        self._waveform = waveform

    def waveform(self):
        return self._waveform


def distance(truth, found):
    """Return the least number of changes that make one sequence the other."""
    row = np.arange(len(found) + 1)
    for count, one in enumerate(truth, 1):
        changed = row[:-1] + np.array([one != other for other in found], int)
        best = np.minimum(changed, row[1:] + 1)
        row = np.concatenate([[count], best])
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def words_of(text):
    return [token.text.lower() for token in tokens_of(text)]


def recognised(recognition, clip):
    """Return the text, the seconds of sound and the CPU seconds."""
    source = MediaSource(clip.file, MediaSettings(sample_rate=RATE), span=clip.span)
    waveform = source.waveform()
    started = time.process_time()
    try:
        recognition.add(clip.id, Sound(waveform))
        rows = recognition.finish()[clip.id]
    except ExtractionError as error:
        rows = error
    spent = time.process_time() - started
    return ("" if isinstance(rows, Exception) else heard_text(rows)), len(waveform) / RATE, spent


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="asr.NAME=VALUE")
    parser.add_argument("--id", action="append", default=[], help="only this clip; repeatable")
    options = parser.parse_args()
    settings = build_recipe(parse_assignments(options.set), where="--set").section("asr")
    recognition = Recognition(STAGE.resolve(settings), RATE)
    clips = [clip for clip in load_manifest(options.source).clips if is_by_person(clip)]
    clips = [clip for clip in clips if not options.id or clip.id in options.id]
    if not clips:
        raise SystemExit(f"{options.source}: no clip has a transcript by a person")
    errors, counts, seconds, spent = np.zeros(2, int), np.zeros(2, int), 0.0, 0.0
    for clip in clips:
        text, length, cpu = recognised(recognition, clip)
        truth, found = words_of(clip.text), words_of(text)
        pairs = ((truth, found), ("".join(truth), "".join(found)))
        own = np.array([distance(*pair) for pair in pairs])
        of = np.array([len(one) for one, _ in pairs])
        errors, counts, seconds, spent = errors + own, counts + of, seconds + length, spent + cpu
        rates = " ".join(f"{rate:6.1%}" for rate in own / np.maximum(of, 1))
        print(f"{clip.id:32} words, characters: {rates}  {text}")
    rates = errors / np.maximum(counts, 1)
    print(
        f"{len(clips)} clips, {seconds:.1f} s: word error rate {rates[0]:.1%} of {counts[0]} words, ", end=""
    )
    print(f"character error rate {rates[1]:.1%}, {spent / seconds:.3f} s of CPU a second of sound")


if __name__ == "__main__":
    main()
