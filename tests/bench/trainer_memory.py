"""Measure the trainer's memory by the number of clips: 39 x 768 text, 400 x 33 audio, 500 x 709 vision each.

    python tests/bench/trainer_memory.py [--systems mlf-dnn ef-lstm mfn] [--clips 1000 5000 20000]
        [--folder 1000] [--jobs 1] [--in-memory] [--scratch FOLDER]

Each line is one run in processes of its own: reading all clips, one epoch on 60 % of them, validation on 20 %,
evaluation on the last 20 %. Peaks are those of the whole process tree, sampled every 50 ms: resident memory (a page
that processes share counts in each) and its anonymous part, which no file backs. 20,000 clips are 31 GB, so a stand-in
makes each clip's rows from its id; --folder N measures N clips in real shards as well. --in-memory holds all rows, as
of small data sets. --jobs N trains N seeds at once, on real shards. The cache of standardised clips is written below
--scratch (by default the temporary folder) and is removed.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sims import STAGES, _features, make_clips, write_folder

from triptych.extractors.base import Features
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.data.clips import IN_MEMORY, load
from triptych.pipeline.trainer.runs.jobs import Job, run_jobs
from triptych.pipeline.trainer.systems import SYSTEMS

LENGTHS = {"text": 39, "audio": 400, "vision": 500}
SHARE = {"train": 0.6, "valid": 0.2, "test": 0.2}


class MadeStore:
    """Clips whose rows are made when they are read."""

    def __init__(self, count: int) -> None:
        self.clips = make_clips({split: round(count * share) for split, share in SHARE.items()})
        self.number = {clip.id: number for number, clip in enumerate(self.clips)}
        self.label_range = (-1.0, 1.0)
        self.recipe: dict[str, object] = {}
        random = np.random.default_rng(0)
        self.noise = {
            stage: random.standard_normal((2 * LENGTHS[stage], len(columns)), dtype=np.float32)
            for stage, (_, columns, _) in STAGES.items()
        }

    @property
    def manifest(self) -> MadeStore:
        return self

    def ids(self, stage: str) -> list[str]:
        return list(self.number)

    def read(self, stage: str, clip_id: str) -> Features:
        number, length = self.number[clip_id], LENGTHS[stage]
        start = number * 7919 % length
        values = self.noise[stage][start : start + length] * np.float32(1 + number % 11 / 50)
        _, columns, rate = STAGES[stage]
        return _features(stage, columns, rate, values)


def write_shards(folder: Path, count: int) -> None:
    made = MadeStore(count)
    rows = [{stage: made.read(stage, clip.id) for stage in STAGES} for clip in made.clips]
    clips = [Clip(**{**vars(clip), "root": str(folder)}) for clip in made.clips]
    write_folder(folder, clips, rows)


def train(system: str, source: str, jobs: int, memory: int) -> None:
    """Read and train; print the seconds of each."""
    store = MadeStore(int(source)) if source.isdecimal() else FeatureStore(Path(source))
    settings = SYSTEMS[system].model_copy(update={"max_epochs": 1})
    start = time.perf_counter()
    data = load(store, sequences=settings.needs_rows, memory=memory)  # type: ignore[arg-type]
    read = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        run_jobs([Job(system, settings, seed) for seed in range(jobs)], data, Path(out), jobs)
    print(f"{read - start:.0f} {time.perf_counter() - read:.0f}")


def tree(root: int) -> list[int]:
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def sizes(process: int) -> tuple[float, float, float]:
    """Peak of resident memory since its start, resident memory, and its anonymous part, in MB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0, 0.0
    fields = {
        name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()
    }
    peak, resident, anonymous = (
        int(fields.get(name, "0")) * 1024 / 1e6 for name in ("VmHWM", "VmRSS", "RssAnon")
    )
    return peak, resident, anonymous


def measure(
    system: str, source: str, jobs: int, memory: int, scratch: str | None
) -> tuple[float, float, str]:
    """Run in another process; return peaks of resident and anonymous memory [MB], and what it printed."""
    words = [sys.executable, __file__, "--child", system, source, str(jobs), str(memory)]
    environment = {**os.environ, **({"TMPDIR": scratch} if scratch else {})}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    resident = anonymous = 0.0
    while process.poll() is None:
        found = [sizes(one) for one in tree(process.pid)]
        highest = found[0][0] if len(found) == 1 else 0.0  # the kernel's own peak, where one process is all
        resident = max(resident, sum(one[1] for one in found), highest)
        anonymous = max(anonymous, sum(one[2] for one in found))
        time.sleep(0.05)
    printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{system}, {source}: ended with {process.returncode}")
    return resident, anonymous, printed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=["mlf-dnn", "ef-lstm", "mfn"], choices=SYSTEMS)
    parser.add_argument("--clips", nargs="*", type=int, default=[1000, 5000, 20000])
    parser.add_argument("--folder", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--scratch")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        system, source, jobs, memory = arguments.child
        train(system, source, int(jobs), int(memory))
        return
    memory = 1 << 62 if arguments.in_memory else IN_MEMORY
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        sources = (
            [(f"{count:6,} made  ", str(count)) for count in arguments.clips] if arguments.jobs == 1 else []
        )
        if arguments.folder:
            write_shards(Path(folder), arguments.folder)
            sources.append((f"{arguments.folder:6,} shards", folder))
        for system in arguments.systems:
            first = 0.0
            for name, source in sources:
                resident, anonymous, printed = measure(
                    system, source, arguments.jobs, memory, arguments.scratch
                )
                first = first or resident
                read, trained = printed.split()
                print(
                    f"{system:8} {name}  peak {resident:6.0f} MB ({resident / first:4.2f} x)  "
                    f"anonymous {anonymous:6.0f} MB  reading {read} s, training {trained} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
