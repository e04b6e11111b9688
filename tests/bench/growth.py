"""Measure how planning grows with the number of clips: time and memory of the commands that compute nothing.

    python tests/bench/growth.py [1000 10000 100000] [--folder WORK]

For each count a source and its complete feature folder are made: so many small files, a manifest with transcripts and
labels, shards of one row per clip in groups of 64, a ledger with a line per clip and stage. Then each command runs in
a process of its own, after one run that is not counted: `extract` with nothing to do, its dry run, `status`, and the
opening of a `FeatureStore`. Printed are the seconds of wall time, with the start of Python, and the peak resident
memory; `first` is the run that hashes every file. Above 20,000 clips shards are simulated: one byte each, known to the
index, since making the real ones takes long; planning never opens a shard that the index knows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from triptych.extractors.base import Features
from triptych.extractors.registry import stages
from triptych.pipeline.demo.bert import make_bert
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.extraction import Extraction, prepare
from triptych.pipeline.stages.graph import source_digest
from triptych.pipeline.stages.stored import store_recipe
from triptych.pipeline.storage.index import FILE, content_digest, text_digest
from triptych.pipeline.storage.index_file import Entry, save
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter
from triptych.pipeline.storage.schema import ShardHeader, ShardItem, shard_content, shard_name
from triptych.pipeline.storage.shards import write_shard

GROUP, IN_FOLDER = 64, 50
SIMULATED_ABOVE = 20_000
OPEN = (
    "from triptych.pipeline.storage.store import FeatureStore; import pathlib, sys; "
    "print(FeatureStore(pathlib.Path(sys.argv[1])))"
)


def make_source(folder: Path, count: int) -> Path:
    """Write so many small files of different content, and the manifest that lists them."""
    lines = ["id,path,text,split,label,label_T,label_A,label_V"]
    for number in range(count):
        video, clip = divmod(number, IN_FOLDER)
        path = f"video_{video:05d}/{clip:04d}.mp4"
        if clip == 0:
            (folder / f"video_{video:05d}").mkdir(parents=True)
        (folder / path).write_bytes(f"clip {number}\n".encode())
        split = ("train", "train", "train", "valid", "test")[number % 5]
        label = (number % 11 - 5) / 5
        lines.append(
            f"video_{video:05d}$_${clip:04d},{path},这是第{number}个片段的文字内容,{split},{label},{-label},,{label}"
        )
    table = folder / "clips.csv"
    table.write_text("\n".join([*lines, ""]), encoding="utf-8")
    for made in folder.rglob("*"):  # the index caches no digest of a file that changed this recently
        os.utime(made, (1e9, 1e9))
    return table


WIDTHS = {"text": 768, "audio": 33, "faces": 15, "vision": 709}


def one_row(stage: str) -> Features:
    """Return one row of zeros."""
    names, units = zip(*stages()[stage].columns(WIDTHS[stage])[0], strict=True)
    extras = {
        name: np.array([""], object) if kind == "str" else np.zeros(1, kind)
        for name, kind in stages()[stage].extras.items()
    }
    times = np.full(1, np.nan) if stages()[stage].row_rate is None else np.zeros(1)
    return Features(np.zeros((1, len(names)), np.float32), names, units, times, np.ones(1, bool), extras)


def make_features(folder: Path, found: Extraction) -> None:
    """Write the shards and the ledger of a run that has made everything."""
    for stage in found.fingerprints:
        (folder / stage).mkdir(parents=True, exist_ok=True)
    write_manifest(found.manifest, folder / "manifest.csv")
    store_recipe(folder, found.recipe, found.fingerprints)
    clips = found.manifest.clips
    simulated: dict[tuple[str, str], Entry] = {}
    with LedgerWriter(folder) as ledger:
        for start in range(0, len(clips), GROUP):
            group = clips[start : start + GROUP]
            digests = [
                {"text": text_digest(clip.text or ""), "media": content_digest(clip.file)} for clip in group
            ]
            for stage, fingerprint in found.fingerprints.items():
                pairs = tuple(
                    (clip.id, source_digest(stage, of_clip))
                    for clip, of_clip in zip(group, digests, strict=True)
                )
                if len(clips) > SIMULATED_ABOVE:
                    simulated.update([simulate(folder, stage, fingerprint, pairs)])
                else:
                    write_group(folder, stage, fingerprint, pairs)
                for number, (clip_id, digest) in enumerate(pairs, start):
                    noted = "the face is small" if stage == "vision" and number % 100 == 0 else ""
                    ledger.write(LedgerLine(clip_id, stage, "done", "", noted, 0.1, fingerprint, digest))
    if simulated:
        save(folder / FILE, simulated.items(), (), ())


Pairs = tuple[tuple[str, str], ...]  # id and digest of each clip


def write_group(folder: Path, stage: str, fingerprint: str, pairs: Pairs) -> None:
    rate = float("nan") if stages()[stage].row_rate is None else 30.0
    row = one_row(stage)
    header = ShardHeader(stage, fingerprint, "{}", {}, rate)
    write_shard(folder / stage, header, [ShardItem(*pair, row) for pair in pairs])


def simulate(folder: Path, stage: str, fingerprint: str, pairs: Pairs) -> tuple[tuple[str, str], Entry]:
    """Write a file that is no shard, and return the entry that the index would have for the shard."""
    path = folder / stage / shard_name(fingerprint, pairs)
    path.write_bytes(b"-")
    status = path.stat()
    stamp = f"{status.st_size}:{status.st_mtime_ns}"
    return (stage, path.name), Entry(stamp, "2026-01-01T00:00:00+00:00", shard_content(fingerprint, pairs))


def measure(count: int, work: Path) -> dict[str, tuple[float, float]]:
    """Make a folder of so many clips, and run every command."""
    model, source, folder = work / "bert", work / f"clips{count}", work / f"features{count}"
    if not model.exists():
        make_bert(model)
    options = ["--set", f"text.model={model}"]
    if not (folder / "recipe.json").exists():
        table = source / "clips.csv" if source.exists() else make_source(source, count)
        make_features(folder, prepare(table, folder, assignments=[options[1]]))
    table = source / "clips.csv"
    triptych = [sys.executable, "-m", "triptych.pipeline"]
    extract = [*triptych, "extract", str(table), "-o", str(folder), *options]
    commands = {
        "first": extract,
        "extract": extract,
        "dry run": [*extract, "--dry-run"],
        "status": [*triptych, "status", str(folder)],
        "store": [sys.executable, "-c", OPEN, str(folder)],
    }
    return {name: peak(command) for name, command in commands.items()}


def peak(command: list[str]) -> tuple[float, float]:
    """Run a command in a process of its own; its seconds, and the peak memory [MB] of its largest process."""
    code = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter(); "
        "done = subprocess.run(sys.argv[1:], stdout=sys.stderr); seconds = time.perf_counter() - start; "
        "print(json.dumps([done.returncode, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    code, seconds, mib = json.loads(done.stdout)
    if code:
        raise SystemExit(done.stderr)
    return seconds, mib


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("counts", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument(
        "--folder", type=Path, help="Where the folders are made and stay; a temporary one without it."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.folder or Path(temporary)
        for count in options.counts:
            for name, (seconds, mib) in measure(count, work).items():
                print(f"{count:>9} clips  {name:>8}  {seconds:7.1f} s  {mib:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
