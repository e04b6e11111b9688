"""Compare reading from shards with reading from an MMSA pickle: time and memory, on clips of CH-SIMS' shape.

    python tests/bench/store.py [--rounds 3]

Both hold the same synthetic clips (tests/bench/sims.py): 2,281 of up to 39 x 768, 400 x 33 and 55 x 709. Each method
runs in a process of its own, which measures the time after the imports until the first batch of 32 random clips has
been read; then the time to read every clip in random order, and every clip by batch; and its peak memory (VmHWM).
`pickle, three splits` does what the reference does: every split's data set unpickles the whole file and stores its
part as float32. `pickle, once` unpickles the file once for all splits. Files are in the page cache. None uses torch.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from json import dumps, loads
from pathlib import Path

import numpy as np

BATCH = 32
METHODS = ("ours", "pickle, three splits", "pickle, once")
Sample = dict[str, np.ndarray]


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def open_ours(folder: Path) -> tuple[list[str], Callable[[str], Sample]]:
    from triptych.pipeline.storage.store import FeatureStore

    store = FeatureStore(folder)
    stages = ("text", "audio", "vision")
    return list(store.complete_ids()), lambda clip: {s: store.read(s, clip).values for s in stages}


def open_pickle(file: Path, once: bool) -> tuple[list[str], Callable[[str], Sample]]:
    positions: dict[str, tuple[Sample, int]] = {}
    whole = pickle.loads(file.read_bytes()) if once else None
    for split in ("train", "valid", "test"):
        if whole is None:
            with file.open("rb") as opened:
                data = pickle.load(opened)
        else:
            data = whole
        part = {key: data[split][key].astype(np.float32) for key in ("text", "audio", "vision")}
        positions.update({clip: (part, row) for row, clip in enumerate(data[split]["id"])})
        del data

    def read(clip: str) -> Sample:
        part, row = positions[clip]
        return {key: values[row].copy() for key, values in part.items()}

    return list(positions), read


def measure(method: str, path: Path) -> dict[str, float]:
    if method == "ours":
        import triptych.pipeline.manifest.clips
        import triptych.pipeline.storage.store  # noqa: F401 - imports are not what is measured
    idle = peak_mib()
    random = np.random.default_rng(0)
    started, cpu = time.perf_counter(), time.process_time()
    ids, read = open_ours(path) if method == "ours" else open_pickle(path, once=method == "pickle, once")
    order = [ids[index] for index in random.permutation(len(ids))]
    for clip in order[:BATCH]:
        read(clip)
    first, first_cpu = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    for clip in order:
        read(clip)
    alone = time.perf_counter() - started
    started = time.perf_counter()
    for start in range(0, len(ids), BATCH):
        [read(clip) for clip in ids[start : start + BATCH]]
    batches = time.perf_counter() - started
    return {
        "first": first,
        "cpu": first_cpu,
        "random": alone,
        "batches": batches,
        "peak": peak_mib(),
        "idle": idle,
    }


def make(folder: Path) -> dict[str, Path]:
    from sims import make_clips, make_rows, write_folder

    from triptych.pipeline.exchange.mmsa import export_mmsa
    from triptych.pipeline.storage.store import FeatureStore

    clips = make_clips()
    write_folder(folder / "features", clips, list(make_rows(clips)))
    done = export_mmsa(FeatureStore(folder / "features"), folder / "mmsa.pkl")
    shape = ", ".join(f"{length} {name}" for name, length in done.lengths.items())
    print(
        f"{len(clips)} clips; the pickle is padded to {shape} rows, {(folder / 'mmsa.pkl').stat().st_size >> 20} MiB"
    )
    return {method: folder / ("features" if method == "ours" else "mmsa.pkl") for method in METHODS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        paths = make(Path(scratch))
        found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
        for _ in range(arguments.rounds):
            for method, path in paths.items():
                command = [sys.executable, __file__, "--measure", method, str(path)]
                found[method].append(
                    loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                )
    medians = {
        method: {key: float(np.median([r[key] for r in rows])) for key in rows[0]}
        for method, rows in found.items()
    }
    for method, row in medians.items():
        print(
            f"{method:21} first batch {row['first'] * 1e3:7.0f} ms (CPU {row['cpu'] * 1e3:.0f})  "
            f"all, random {row['random']:5.2f} s  by batch {row['batches']:5.2f} s  "
            f"peak {row['peak']:6.0f} MiB ({row['idle']:.0f} of it the imports)"
        )
    ours = medians["ours"]
    for method in METHODS[1:]:
        plain = medians[method]
        print(
            f"against {method}: first batch {plain['first'] / ours['first']:.1f} x sooner (CPU "
            f"{plain['cpu'] / ours['cpu']:.1f} x), peak memory 1/"
            f"{plain['peak'] / ours['peak']:.1f}; above the imports 1/"
            f"{(plain['peak'] - plain['idle']) / max(ours['peak'] - ours['idle'], 1):.0f}"
        )


if __name__ == "__main__":
    main()
