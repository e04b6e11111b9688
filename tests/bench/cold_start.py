"""CPU time that a worker process spends on imports and models before it reaches its full speed.

    python tests/bench/cold_start.py CLIPS [--runtime onnx] [--model BERT_FOLDER] [--jobs 2] [--limit 10]

Worker processes are started as `triptych extract` starts them, with all four stages and facemesh, and share the
first clips of CLIPS. Each reports the CPU time of its start, of imports, of loading its models (compiled
kernels read from their cache among them), and how much longer its group took the first time
than the second. ``--runtime torch`` measures the same with text and faces on torch. The text model's export is made
before; numba's cache must be warm: run it once before. By default the model is a BERT of bert-base's size with random
weights.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from triptych.extractors.faces import onnx_networks
from triptych.extractors.text import export
from triptych.pipeline.run.extraction import prepare
from triptych.pipeline.run.task import GroupTask

MODULES = {
    "text": ("triptych.extractors.text.encoder",),
    "audio": ("triptych.extractors.media.source", "triptych.extractors.audio.features"),
    "faces": ("triptych.extractors.faces.tracker",),
    "vision": ("triptych.extractors.vision.backends", "triptych.extractors.vision.facemesh.backend"),
}


def spend(task: GroupTask) -> dict[str, float]:
    """Measure CPU seconds in this process; a module that two stages import counts for the first stage."""
    from importlib import import_module
    from time import process_time

    from triptych.pipeline.run.group import load_stage, run_group

    spent = {"start": process_time()}

    def clocked(what, work) -> None:
        before = process_time()
        work()
        spent[what] = process_time() - before

    for what, modules in MODULES.items():
        clocked(f"import {what}", lambda names=modules: [import_module(name) for name in names])
    recipe = task.recipe
    for name in MODULES:
        settings = recipe.section(name)
        clocked(f"model {name}", lambda n=name, s=settings: load_stage(n, s, recipe.media, task.device))
    for which in ("first", "again"):
        folder = task.folder / which
        for stage in ("text", "audio", "faces", "vision"):
            (folder / stage).mkdir(parents=True, exist_ok=True)
        clocked(which, lambda f=folder: run_group(replace(task, folder=f), lambda event: None))
    return spent


def main() -> None:
    from joblib.externals.loky import ProcessPoolExecutor

    from triptych.pipeline.processes.threads import ONE_THREAD

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--runtime", choices=("onnx", "torch"), default="onnx")
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
            assignments=[
                f"text.model={model}",
                f"text.runtime={arguments.runtime}",
                f"faces.runtime={arguments.runtime}",
                "vision.backend=facemesh",
            ],
            limit=arguments.limit,
        )
        export.prepare(extraction.recipe.text)
        onnx_networks.prepare(extraction.recipe.faces)
        each = -(-arguments.limit // arguments.jobs)
        tasks = [
            GroupTask(folder / str(number), extraction.recipe, extraction.fingerprints, clips, 512 * 2**20)
            for number, clips in enumerate(extraction.plan.groups(each))
        ]
        with ProcessPoolExecutor(arguments.jobs, env=ONE_THREAD) as pool:
            for task, spent in zip(tasks, pool.map(spend, tasks), strict=True):
                report(len(task.clips), spent)


def report(clips: int, spent: dict[str, float]) -> None:
    parts = [f"{what} {seconds:.2f}" for what, seconds in spent.items() if what not in ("first", "again")]
    imports = spent["start"] + sum(s for what, s in spent.items() if what.startswith("import"))
    models = sum(s for what, s in spent.items() if what.startswith("model"))
    later = max(spent["first"] - spent["again"], 0)
    print(", ".join(parts))
    print(
        f"a worker: imports {imports:.1f} s, models {models:.1f} s, first use {later:.1f} s of CPU, "
        f"together {imports + models + later:.1f} s; its {clips} clips then {spent['again']:.1f} s"
    )


if __name__ == "__main__":
    main()
