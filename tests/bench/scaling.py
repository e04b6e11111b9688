"""Measure how a run's time and memory grow with the number of workers and the number of clips.

    python tests/bench/scaling.py CLIPS [--model BERT_FOLDER] [--jobs 1,2] [--counts 10,100,1000] [--set S.N=V ...]

CLIPS is any source that `triptych extract` takes. Every count is made of copies: each video has another name and some
extra bytes at its end, which players ignore, so that its content and its digest are unique; each transcript begins with
its number.

Workers: 240 clips are extracted by each number of workers. The start-up time, measured in the same session by a run of
one clip per worker, is subtracted. Arrays that differ in any bit are counted.

Clips: every count is extracted by one worker. Seconds a clip, start-up aside, should stay within 10 %, and so should
the peak resident memory of each process: of the one that leads and of the workers (VmHWM, watched from outside).
The machine must be idle, since wall time is measured.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.run.extraction import Extraction, prepare, run
from triptych.pipeline.storage.store import FeatureStore

STAGES = ("text", "audio", "faces", "vision")
LOOK_SECONDS = 0.2
WORKERS_CLIPS = 240  # so many that start-up, which varies by seconds, is the smaller part


class Peaks:
    """The peak memory, MiB, of this process and of each that it starts, as far as they were seen."""

    def __init__(self) -> None:
        self.workers: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        Path("/proc/self/clear_refs").write_text("5")  # forgets this process's peak so far
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.leader = peak(psutil.Process().pid)

    def _watch(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            for child in psutil.Process().children(recursive=True):
                self.workers[child.pid] = max(self.workers.get(child.pid, 0.0), peak(child.pid))


def peak(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def make_copies(clips: Path, folder: Path, count: int) -> Path:
    """So many different clips: copies in turn, each with bytes of its own behind the end."""
    found = load_manifest(clips).clips
    for number in range(count):
        clip = found[number % len(found)]
        copy = folder / f"{number:05d}" / clip.file.name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(clip.file, copy)
        with copy.open("ab") as file:
            # An empty box of MP4, which every reader skips: its size, its kind, and the number.
            file.write((16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
        if clip.text:
            copy.with_suffix(".txt").write_text(f"{number}，{clip.text}", encoding="utf-8")
    return folder


def prepared(clips: Path, features: Path, assignments: list[str]) -> Extraction:
    return prepare(clips, features, assignments=assignments)


def first_of_each_worker(extraction: Extraction, jobs: int) -> Extraction:
    """Keep the smallest clips, one a worker."""
    work = sorted(extraction.plan.work, key=lambda work: work.clip.file.stat().st_size)[:jobs]
    return replace(extraction, plan=replace(extraction.plan, work=tuple(work)))


def seconds(extraction: Extraction, jobs: int, group_size: int | None = None) -> float:
    start = time.perf_counter()
    run(extraction, jobs=jobs, group_size=group_size)
    return time.perf_counter() - start


def differing(one: Path, two: Path) -> int:
    """Count arrays that are not equal bit for bit."""
    left, right = FeatureStore(one), FeatureStore(two)
    count = 0
    for stage in STAGES:
        assert left.ids(stage) == right.ids(stage)
        for clip in left.ids(stage):
            a, b = left.read(stage, clip), right.read(stage, clip)
            pairs = [(a.values, b.values), (a.times, b.times), (a.valid, b.valid)]
            pairs += [(a.extras[name], b.extras[name]) for name in a.extras]
            count += sum(not np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)
    return count


def compare_workers(clips: Path, folder: Path, assignments: list[str], jobs: list[int]) -> None:
    whole, start = {}, {}
    clips = make_copies(clips, folder / "clips", WORKERS_CLIPS)
    for number in jobs:
        alone = first_of_each_worker(prepared(clips, folder / f"s{number}", assignments), number)
        start[number] = seconds(alone, number, 1)
        whole[number] = seconds(prepared(clips, folder / f"j{number}", assignments), number)
        print(f"{number} workers: {whole[number]:.1f} s, of which start-up {start[number]:.1f} s", flush=True)
    first = jobs[0]
    for number in jobs[1:]:
        ratio = (whole[first] - start[first]) / (whole[number] - start[number])
        print(
            f"start-up aside, {number} workers are {ratio:.2f} x as fast as {first}; arrays that differ in any "
            f"bit: {differing(folder / f'j{first}', folder / f'j{number}')}",
            flush=True,
        )


def compare_counts(clips: Path, folder: Path, assignments: list[str], counts: list[int]) -> None:
    """Extract each count by one worker, and print seconds a clip and peaks against those of the smallest."""
    base: tuple[float, float, float] | None = None
    for count in counts:
        copies = make_copies(clips, folder / f"clips{count}", count)
        start = seconds(first_of_each_worker(prepared(copies, folder / "start", assignments), 1), 1)
        shutil.rmtree(folder / "start")
        extraction = prepared(copies, folder / f"n{count}", assignments)
        with Peaks() as peaks:
            whole = seconds(extraction, 1)
        done = {stage: len(FeatureStore(folder / f"n{count}").ids(stage)) for stage in STAGES}
        clip, worker = (whole - start) / (count - 1), max(peaks.workers.values())
        base = base or (clip, peaks.leader, worker)
        print(
            f"{count:5d} clips: {whole:7.1f} s, of which start-up {start:.1f} s; {clip:.3f} s a clip "
            f"({clip / base[0] - 1:+.1%}); peak memory of the leader {peaks.leader:.0f} MiB "
            f"({peaks.leader / base[1] - 1:+.1%}), of a worker {worker:.0f} MiB ({worker / base[2] - 1:+.1%}); "
            f"made {done}",
            flush=True,
        )
        for used in (f"clips{count}", f"n{count}"):
            shutil.rmtree(folder / used)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",") if word]

    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", help="a BERT-like model's folder; by default a small random one is made")
    parser.add_argument("--jobs", type=numbers, default=[1, 2], help="numbers of workers; empty: leave out")
    parser.add_argument("--counts", type=numbers, default=[10, 100, 1000], help="of clips; empty: leave out")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model
        if model is None:
            from triptych.pipeline.demo.bert import make_bert

            make_bert(folder / "bert")
            model = str(folder / "bert")
        assignments = [f"text.model={model}", "vision.backend=facemesh", *arguments.set]
        if arguments.jobs:
            compare_workers(arguments.clips, folder, assignments, arguments.jobs)
        if arguments.counts:
            compare_counts(arguments.clips, folder, assignments, sorted(arguments.counts))


if __name__ == "__main__":
    main()
