"""Errors of a recogniser: words and characters that differ from the transcripts of a manifest, and its CPU.

    python tests/bench/recognition.py CLIPS [--set asr.backend=pocketsphinx] [--only PATTERN]

CLIPS is any source with transcripts. Case and punctuation do not count. Characters are what Chinese is measured by.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.transcribing.texts import heard_text


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower()).split())


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and replacements that make one sequence the other."""
    row = np.arange(len(heard) + 1)
    for number, one in enumerate(said, 1):
        cost = np.array([one != other for other in heard], int)
        best = np.minimum(row[:-1] + cost, row[1:] + 1)
        row = np.concatenate([[number], best])
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))  # insertions
    return int(row[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--only", default="*", help="pattern of clip ids")
    options = parser.parse_args()
    found = load_manifest(options.clips)
    said = {clip.id: clip.text for clip in found.clips if clip.text and fnmatch(clip.id, options.only)}
    clips = tuple(clip for clip in found.clips if clip.id in said)
    words = errors = letters = wrong = 0
    with tempfile.TemporaryDirectory() as place:
        table, folder = Path(place, "clips.csv"), Path(place, "features")
        write_manifest(replace(found, clips=clips), table)
        todo = prepare(table, folder, only=["asr"], assignments=options.set)
        started = time.process_time()
        run(todo, jobs=0)
        cpu = time.process_time() - started
        store = FeatureStore(folder)
        seconds = 0.0
        for id in store.ids("asr"):
            rows = store.read("asr", id)
            one, other = plain(said[id]), plain(heard_text(rows))
            seconds += float(rows.values[-1, 1])
            words, errors = words + len(one.split()), errors + distance(one.split(), other.split())
            characters = one.replace(" ", ""), other.replace(" ", "")
            letters, wrong = letters + len(characters[0]), wrong + distance(*characters)
            print(f"{id}\n  said  {one}\n  heard {other}")
    print(f"word error rate {errors / words:.3f} ({errors} of {words}), characters {wrong / letters:.3f}")
    print(f"{cpu / seconds:.2f} s of CPU for a second up to the last word, loading included")


if __name__ == "__main__":
    main()
