"""Compare the export of tables with pandas, which joins all rows in memory first: time and memory.

    python tests/bench/tables.py [--clips 2281] [--rounds 1]

Both read the same synthetic clips (tests/bench/sims.py): 2,281 of up to 39 x 768, 400 x 33 and 55 x 709. Each method
runs in a process of its own, which measures the time after the imports until the last file is on disk, and its peak
memory (VmHWM). `plain` is what a notebook does: a frame of each clip, `pandas.concat`, then `to_csv`, `to_parquet`,
or statistics by `groupby`. Tar shards and data sets have no plain counterpart. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("text", "audio", "vision")
PERCENTILES = (0.05, 0.2, 0.25, 0.5, 0.75, 0.8, 0.95)
COMPARED = ("csv", "parquet", "summary csv", "summary parquet")
ALONE = ("webdataset", "hf")


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def ours(what: str, store: Any, folder: Path) -> None:
    from triptych.pipeline.exchange.hf import export_hf
    from triptych.pipeline.exchange.row_tables import export_rows
    from triptych.pipeline.exchange.summary_tables import export_summary
    from triptych.pipeline.exchange.tar_shards import export_tar_shards

    if what == "webdataset":
        export_tar_shards(store, folder)
    elif what == "hf":
        export_hf(store, folder)
    elif what.startswith("summary"):
        export_summary(store, folder, what.split()[1])
    else:
        export_rows(store, folder, what)


def plain(what: str, store: Any, folder: Path) -> None:
    import pandas as pd

    clips = {clip.id: clip for clip in store.manifest.clips}
    for stage in STAGES:
        frames = []
        for clip_id in store.ids(stage):
            features, clip = store.read(stage, clip_id), clips[clip_id]
            frame = pd.DataFrame(features.values, columns=list(features.columns))
            about = {"id": clip_id, "split": clip.split, "label": clip.label}
            about |= {"time": features.times, "valid": features.valid, **features.extras}
            frames.append(pd.concat([pd.DataFrame(about, index=frame.index), frame], axis=1))
        table = pd.concat(frames)
        if what.startswith("summary"):
            groups = table[["id", *features.columns]].groupby("id")
            parts = [groups.agg(["mean", "std", "min", "max"])]
            parts.append(groups.quantile(list(PERCENTILES)).unstack())
            table = pd.concat(parts, axis=1)
            table.columns = [f"{name}_{statistic}" for name, statistic in table.columns]
        if what.endswith("csv"):
            table.to_csv(folder / f"{stage}.csv", index=False)
        else:
            table.to_parquet(folder / f"{stage}.parquet", index=False)


def measure(method: str, what: str, features: Path, out: Path) -> dict[str, float]:
    from triptych.pipeline.storage.store import FeatureStore

    if method == "plain":
        import pandas  # noqa: F401 - imports are not what is measured
    out.mkdir()
    store = FeatureStore(features)
    idle = peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    (ours if method == "ours" else plain)(what, store, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "peak": peak_mib(),
        "idle": idle,
        "size": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2281)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        method, what, features, out = arguments.measure
        print(dumps(measure(method, what, Path(features), Path(out))))
        return
    from sims import make_clips, make_rows, write_folder

    with tempfile.TemporaryDirectory() as scratch:
        features = Path(scratch, "features")
        clips = make_clips()[: arguments.clips]
        write_folder(features, clips, list(make_rows(clips)))
        pairs = [(what, method) for what in COMPARED for method in ("ours", "plain")]
        medians: dict[tuple[str, str], dict[str, float]] = {}
        for what, method in [*pairs, *((what, "ours") for what in ALONE)]:
            found = []
            for _ in range(arguments.rounds):
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    command = [sys.executable, __file__, "--measure", method, what, str(features)]
                    command.append(str(Path(folder, "out")))
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found.append(loads(done.stdout))
            row = medians[what, method] = {key: float(np.median([r[key] for r in found])) for key in found[0]}
            print(
                f"{what:16}{method:6} {row['seconds']:6.1f} s (CPU {row['cpu']:.1f})  peak {row['peak']:6.0f} MiB "
                f"({row['idle']:.0f} before)  files {row['size']:.0f} MiB",
                flush=True,
            )
        for what in COMPARED:
            fast, slow = medians[what, "ours"], medians[what, "plain"]
            speed, memory = slow["cpu"] / fast["cpu"], slow["peak"] / fast["peak"]
            print(f"{what}: {speed:.1f}x faster (CPU), plain needs {memory:.1f}x the memory")


if __name__ == "__main__":
    main()
