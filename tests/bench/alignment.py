"""Forced alignment: the search against a plain table, and the error of the spans in milliseconds.

    python tests/bench/alignment.py [--clips CLIPS]

The plain search holds the choices of all frames and symbols in one numpy table. Sums of log probabilities of both are
compared, with the CPU time and the memory for their tables. The error is that of sounds made of tones, whose spans are
known, by a CTC model trained on such tones. CLIPS is a folder with ``label.csv`` and ``Raw/``; two of its English clips
are aligned by pocketsphinx, also after 0.73 s of silence, by which all spans should move.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from ctc_model import LETTERS, RATE, save_ctc_model, spoken

from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.words.ctc import CtcAligner
from triptych.extractors.words.stage import WordsSettings
from triptych.extractors.words.tokens import tokens_of
from triptych.extractors.words.viterbi import BLOCK, best_path

ENGLISH = (("liveportrait", "0013"), ("pyfeat", "0002"))
SILENCE = 0.73


def plain_path(scores, symbols, skips):
    """Search with one table of choices, frame by frame in numpy."""
    states = 2 * len(symbols) + 1
    column = np.zeros(states, int)
    column[1::2] = symbols
    skip = np.zeros(states, bool)
    skip[1::2] = skips
    skip[:2] = False
    sums = np.full(states, -np.inf)
    sums[0], sums[1] = scores[0, 0], scores[0, symbols[0]]
    choices = np.zeros((len(scores), states), np.int8)
    for t in range(1, len(scores)):
        one = np.append(-np.inf, sums[:-1])
        two = np.where(skip, np.append([-np.inf, -np.inf], sums[:-2]), -np.inf)
        table = np.stack([sums, one, two])
        choices[t] = table.argmax(axis=0)
        sums = table.max(axis=0) + scores[t, column]
    state = states - 1 if sums[-1] > sums[-2] else states - 2
    path = np.empty(len(scores), int)
    for t in range(len(scores) - 1, -1, -1):
        path[t] = state
        state -= int(choices[t, state])
    return np.where(path % 2 == 1, path // 2, -1), choices.nbytes


def search(seconds: int, letters_per_second: int) -> None:
    random = np.random.default_rng(0)
    frames, count, width = seconds * 50, seconds * letters_per_second, 300
    symbols = random.integers(1, width, count)
    skips = np.append(True, symbols[1:] != symbols[:-1])
    scores = np.log(random.dirichlet(np.full(width, 0.2), frames) + 1e-9).astype(np.float32)
    results = {}
    states = 2 * count + 1
    blocks = states * (8 * -(-frames // BLOCK) + BLOCK)  # saved scores, and the choices of one block
    searches = {
        "plain": lambda: plain_path(scores, symbols, skips),
        "ours": lambda: (best_path(scores, symbols, skips), blocks),
    }
    for name, run in searches.items():
        begin = time.process_time()
        path, table = run()
        spent = time.process_time() - begin
        total = scores[np.arange(frames), np.where(path >= 0, symbols[path], 0)].sum(dtype=np.float64)
        results[name] = total
        print(
            f"{seconds:4} s, {count:5} letters, {name:5}: CPU {spent:7.3f} s, tables {table / 2**20:7.1f} MiB"
        )
    print(f"          difference of the sums: {abs(results['plain'] - results['ours']):.2g}")


def errors() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = save_ctc_model(Path(folder) / "model")
        for join in (0.0, 0.2):
            aligner = CtcAligner(WordsSettings(model=str(model), revision="", join=join), RATE)
            begins, ends = [], []
            for seed in range(40):
                random = np.random.default_rng(seed)
                text = " ".join("".join(random.choice(list(LETTERS), 3)) for _ in range(4))
                sound, starts, stops = spoken(text, seed=seed)
                found = aligner.align(text, sound)
                letters = [at for at, one in enumerate(text) if one in LETTERS]
                for row, token in enumerate(tokens_of(text)):
                    own = [n for n, at in enumerate(letters) if token.begin <= at < token.stop]
                    begins.append(found.values[row, 0] - starts[own[0]])
                    ends.append(found.values[row, 1] - stops[own[-1]])
            for name, one in (("start", begins), ("end", ends)):
                size = np.abs(one) * 1000
                print(
                    f"tones, join {join}: {name:5} of {len(one)} words: mean {size.mean():.1f} ms, "
                    f"median {np.median(size):.1f} ms, 95 % {np.percentile(size, 95):.1f} ms"
                )


def sphinx(clips: Path) -> None:
    from triptych.extractors.words.sphinx import SphinxAligner

    with (clips / "label.csv").open(encoding="utf-8") as file:
        texts = {(row["video_id"], row["clip_id"]): row["text"] for row in csv.DictReader(file)}
    aligner = SphinxAligner(WordsSettings(backend="pocketsphinx", join=0), 22050)
    for video, clip in ENGLISH:
        sound = MediaSource(clips / "Raw" / video / f"{clip}.mp4", MediaSettings()).waveform()
        begin = time.process_time()
        found = aligner.align(texts[video, clip], sound)
        spent = time.process_time() - begin
        silence = np.random.default_rng(0).normal(0, 1e-4, round(SILENCE * 22050)).astype(np.float32)
        moved = aligner.align(texts[video, clip], np.concatenate([silence, sound]))
        size = np.abs(moved.times - found.times - SILENCE) * 1000
        print(
            f"pocketsphinx, {video}/{clip}: {len(found)} words in {len(sound) / 22050:.1f} s, CPU {spent:.2f} s; after "
            f"silence starts differ by mean {size.mean():.1f} ms, most {size.max():.1f} ms"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path)
    arguments = parser.parse_args()
    search(1, 4)  # compiles
    search(10, 6)
    search(600, 6)
    errors()
    if arguments.clips:
        sphinx(arguments.clips)
