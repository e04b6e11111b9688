"""What a worker process spends on imports and models before it is as fast as it will be.

    python tests/bench/cold_start.py CLIPS [--model BERT_FOLDER] [--jobs 2] [--limit 10]

Worker processes are started as `triptych extract` starts them, with all four stages and facemesh, and share the
first clips of CLIPS. Each tells the CPU it took to begin, for imports, for loading its models (MediaPipe's
imports and compiled kernels read from their cache among them), and what its group took more the first time than
the second. Caches must be warm: one run before. By default the model is a BERT of bert-base's size with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from triptych.pipeline.run.extraction import prepare
from triptych.pipeline.run.worker import GroupTask

MODULES = {
    "torch": ("torch",),
    "text": ("triptych.extractors.text.encoder",),
    "audio": ("triptych.extractors.media.source", "triptych.extractors.audio.features"),
    "faces": ("triptych.extractors.faces.tracker",),
    "vision": ("triptych.extractors.vision.backends", "triptych.extractors.vision.facemesh"),
}


def spend(task: GroupTask) -> dict[str, float]:
    """CPU seconds by what they went to, in this process; what an import brings first, later ones need not."""
    from importlib import import_module
    from time import process_time

    from triptych.pipeline.run import worker

    spent = {"begin": process_time()}

    def clocked(what, work) -> None:
        began = process_time()
        work()
        spent[what] = process_time() - began

    for what, modules in MODULES.items():
        clocked(f"import {what}", lambda m=modules: [import_module(name) for name in m])
    recipe = task.recipe
    clocked("model text", lambda: worker._text_encoder(recipe.text, task.device))
    clocked("model audio", lambda: worker._audio(recipe.audio, recipe.media.sample_rate))
    clocked("model faces", lambda: worker._face_tracker(recipe.faces, task.device))
    clocked("model vision", lambda: worker._vision_backend(recipe.vision))
    for which in ("first", "again"):
        folder = task.folder / which
        for stage in ("text", "audio", "faces", "vision"):
            (folder / stage).mkdir(parents=True, exist_ok=True)
        clocked(which, lambda f=folder: worker.run_group(replace(task, folder=f), lambda event: None))
    return spent


def main() -> None:
    from joblib.externals.loky import ProcessPoolExecutor

    from triptych.pipeline.processes.threads import ONE_THREAD

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", help="a BERT-like model's folder")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model
        if model is None:
            from bert_base import make_bert_base

            make_bert_base(folder / "bert")
            model = str(folder / "bert")
        extraction = prepare(
            arguments.clips,
            folder / "features",
            assignments=[f"text.model={model}", "vision.backend=facemesh"],
            limit=arguments.limit,
        )
        each = -(-arguments.limit // arguments.jobs)
        tasks = [
            GroupTask(folder / str(place), extraction.recipe, extraction.fingerprints, clips, 512 * 2**20)
            for place, clips in enumerate(extraction.plan.groups(each))
        ]
        with ProcessPoolExecutor(arguments.jobs, env=ONE_THREAD) as pool:
            for task, spent in zip(tasks, pool.map(spend, tasks), strict=True):
                report(len(task.clips), spent)


def report(clips: int, spent: dict[str, float]) -> None:
    parts = [f"{what} {seconds:.2f}" for what, seconds in spent.items() if what not in ("first", "again")]
    imports = spent["begin"] + sum(s for what, s in spent.items() if what.startswith("import"))
    models = sum(s for what, s in spent.items() if what.startswith("model"))
    later = max(spent["first"] - spent["again"], 0)
    print(", ".join(parts))
    print(
        f"a worker: imports {imports:.1f} s, models {models:.1f} s, first use {later:.1f} s of CPU, "
        f"together {imports + models + later:.1f} s; its {clips} clips then {spent['again']:.1f} s"
    )


if __name__ == "__main__":
    main()
