"""How much faster two workers are than one, start-up aside, and whether they give the same bits.

    python tests/bench/jobs.py CLIPS [--model BERT_FOLDER]

Start-up is what a run of one clip a worker costs: imports, models, the first clip. It is measured in the same
session and taken off both sides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.extraction import Extraction, prepare, run
from pipeline.stages import STAGES
from pipeline.store import FeatureStore


def prepared(clips: Path, features: Path, model: str) -> Extraction:
    return prepare(clips, features, assignments=[f"text.model={model}", "vision.backend=facemesh"])


def first_of_each_worker(extraction: Extraction, jobs: int) -> Extraction:
    """Keep the smallest clips, one a worker."""
    work = sorted(extraction.plan.work, key=lambda work: work.clip.file.stat().st_size)[:jobs]
    return replace(extraction, plan=replace(extraction.plan, work=tuple(work)))


def seconds(extraction: Extraction, jobs: int, group_size: int | None = None) -> float:
    began = time.perf_counter()
    run(extraction, jobs=jobs, group_size=group_size)
    return time.perf_counter() - began


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", help="a BERT-like model's folder; by default a small random one is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model
        if model is None:
            from pipeline.demo.bert import make_bert

            make_bert(folder / "bert")
            model = str(folder / "bert")
        whole, start = {}, {}
        for jobs in (1, 2):
            start[jobs] = seconds(
                first_of_each_worker(prepared(arguments.clips, folder / f"s{jobs}", model), jobs), jobs, 1
            )
            whole[jobs] = seconds(prepared(arguments.clips, folder / f"j{jobs}", model), jobs)
            print(f"-j {jobs}: {whole[jobs]:.1f} s, of which start-up {start[jobs]:.1f} s")
        ratio = (whole[1] - start[1]) / (whole[2] - start[2])
        print(f"start-up aside, two workers are {ratio:.2f} x as fast as one")
        print(f"arrays that differ in any bit: {differing(folder / 'j1', folder / 'j2')}")


if __name__ == "__main__":
    main()
