"""The report of a data set of CH-SIMS' size: seconds, megabytes, and the time until a browser shows it.

    python tests/bench/report.py [--clips N] [--videos FOLDER]

The clips are noise and have no videos, unless --videos names a folder of real ones: then each clip is a link to one of
them in turn, so that every container is read, and 50 clips are decoded for their strips of frames.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import sims

sys.path.insert(0, str(Path(__file__).parents[1]))
import browser

from triptych.extractors.base import Features
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.report.html import write_report


def make_rows(clips: list[Clip]) -> Iterator[dict[str, Features]]:
    """The rows of `sims`, but with vision at 30 Hz, as the recipe `paper` makes it. Noise compresses worst."""
    random = np.random.default_rng(2)
    columns = sims.STAGES["vision"][1]
    for rows in sims.make_rows(clips):
        values = random.standard_normal((5 * len(rows["vision"]), len(columns)), dtype=np.float32)
        names, units = zip(*columns, strict=True)
        times = np.arange(len(values)) / 30
        valid = random.random(len(values)) < 0.95
        extras = {"confidence": valid * random.uniform(0.6, 1, len(values)).astype(np.float32)}
        yield {**rows, "vision": Features(values, names, units, times, valid, extras)}


def with_videos(clips: list[Clip], root: Path, videos: Path) -> list[Clip]:
    """Link each clip's file to one of the videos in turn."""
    found = sorted(videos.resolve().rglob("*.mp4"))
    for clip, video in zip(clips, itertools.cycle(found), strict=False):
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (root / clip.path).symlink_to(video)
    return [replace(clip, root=str(root)) for clip in clips]


def make_folder(folder: Path, count: int, videos: Path | None) -> None:
    """Write a folder of CH-SIMS' shape, block by block, so that the bench itself needs little memory."""
    splits = {name: round(size * count / 2281) for name, size in sims.SPLITS.items()}
    clips = sims.make_clips({**splits, "test": count - splits["train"] - splits["valid"]})
    if videos:
        clips = with_videos(clips, folder.with_name("videos"), videos)
    rows = make_rows(clips)
    for start in range(0, len(clips), 256):
        block = clips[start : start + 256]
        sims.write_folder(folder, block, list(itertools.islice(rows, len(block))))
    write_manifest(Manifest(tuple(clips)), folder / "manifest.csv")
    stored = json.loads((folder / "recipe.json").read_text())
    recipe = {"vision": {"backend": "facemesh", "input": "frame"}}
    (folder / "recipe.json").write_text(json.dumps({**stored, "recipe": recipe}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2281)
    parser.add_argument("--videos", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, output = Path(place, "features"), Path(place, "report.html")
        make_folder(folder, options.clips, options.videos)
        started, cpu = time.perf_counter(), time.process_time()
        written = write_report(folder, output)
        print(
            f"{written.clips} clips, {written.listed} listed, {written.series} with curves, "
            f"{written.strips} with frames"
        )
        print(f"written in {time.perf_counter() - started:.1f} s ({time.process_time() - cpu:.1f} s of CPU)")
        print(f"size {written.size / 1e6:.1f} MB")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        if not browser.available():
            print("no chromium, so the time to open is not measured")
            return
        with browser.opened(output) as page:
            timing = page.execute_script(
                "const [entry] = performance.getEntriesByType('navigation');"
                "return [entry.domContentLoadedEventEnd, entry.loadEventEnd, document.documentElement.dataset.ready];"
            )
            print(f"open in the browser: usable after {timing[0]:.0f} ms, loaded after {timing[1]:.0f} ms")
            page.find_element("css selector", "#clip-table .open").click()
            shown = browser.wait_for(page, "return document.querySelector('.detail .drawing')")
            print(f"first clip's curves after {shown:.2f} s, the library's start included")


if __name__ == "__main__":
    main()
