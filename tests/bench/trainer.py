"""Compare the CPU time of each system's epoch with that of a plain implementation of the reference.

    python tests/bench/trainer.py [SYSTEM ...] [--batches N] [--rounds 3] [--memory]

An epoch is training on 1,368 clips and validation on 456, of CH-SIMS' shape (tests/bench/sims.py says how they
are made): 39 x 768, 400 x 33, 55 x 709. One process, one thread, both in turn, medians of process CPU. The plain
implementation (plain_systems.py) is a `DataLoader` over padded arrays, stock LSTMs over the padding, the default
`torch.optim.Adam`, the full fusion tensor, and each split's metrics at its end. MFN pools in both (--compat mmsa);
everything else of ours is as in `triptych train`. Work that either implementation does once, before its first epoch,
is not counted. --batches N measures N training batches and a third as many clips of validation, and scales that to an
epoch. --memory instead runs each alone, one training of one epoch, and prints its peak resident memory
without that of the data.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from plain_systems import LENGTHS, build_plain
from sims import make_clips, make_rows
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from triptych.pipeline.trainer.data.clips import SentimentData, load
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.models.subnetworks import SubnetworkSettings
from triptych.pipeline.trainer.models.system import weighted_l1
from triptych.pipeline.trainer.settings import MODALITIES, TASKS, SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS, build
from triptych.pipeline.trainer.training import _outputs, _train_epoch, adam, train

TRAIN, VALID = 1368, 456
Epoch = Callable[[], object]


def settings_of(name: str) -> SystemSettings:
    return SYSTEMS[name].as_mmsa() if name == "mfn" else SYSTEMS[name]


# -- plain ---------------------------------------------------------------------------------------


class PaddedClips(Dataset):
    """Padded arrays, one clip at a time; means over the padded length where the system takes means."""

    def __init__(self, data: SentimentData, rows: np.ndarray, mean: bool) -> None:
        arrays = {"text": [data.text[row].numpy() for row in rows]}
        arrays |= {m: [data.sequences[m][row].values for row in rows] for m in ("audio", "vision")}
        self.arrays = {}
        for modality, clips in arrays.items():
            padded = np.zeros((len(clips), LENGTHS[modality], clips[0].shape[1]), np.float32)
            for index, values in enumerate(clips):
                padded[index, : len(values)] = values
            self.arrays[modality] = (
                padded.mean(axis=1, keepdims=True) if mean and modality != "text" else padded
            )
        self.labels = data.labels[rows]
        self.ids = [data.ids[row] for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {
            "id": self.ids[index],
            "labels": {t: torch.Tensor(self.labels[index, k].reshape(-1)) for k, t in enumerate(TASKS)},
            **{modality: torch.Tensor(values[index]) for modality, values in self.arrays.items()},
        }


def plain_metrics(predicted: Tensor, true: Tensor) -> list[float]:
    p, t = (x.view(-1).detach().numpy().clip(-1, 1) for x in (predicted, true))
    found = [float(np.mean(np.abs(p - t))), float(np.corrcoef(p, t)[0, 1])]
    for edges in ([0.0], [-0.1, 0.1], [-0.7, -0.1, 0.1, 0.7]):
        predicted_classes, classes = (np.digitize(x, edges, right=True) for x in (p, t))
        found.append(accuracy_score(classes, predicted_classes))
    return [*found, f1_score(t > 0, p > 0, average="weighted")]


def plain_optimiser(model: nn.Module, settings: SystemSettings) -> torch.optim.Optimizer:
    if not isinstance(settings, SubnetworkSettings):
        return torch.optim.Adam(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    parts = {name: getattr(model, name) for name in MODALITIES}
    inside = {id(parameter) for part in parts.values() for parameter in part.parameters()}
    groups = [
        {"params": list(part.parameters()), "weight_decay": getattr(settings.subnetwork_decay, name)}
        for name, part in parts.items()
    ]
    groups.append({"params": [p for p in model.parameters() if id(p) not in inside]})
    return torch.optim.Adam(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def plain_epoch(settings: SystemSettings, data: SentimentData, rows: dict[str, np.ndarray]) -> Epoch:
    torch.manual_seed(1)
    model = build_plain(settings)
    optimiser = plain_optimiser(model, settings)
    mean = isinstance(settings, SubnetworkSettings)
    loaders = {
        part: DataLoader(PaddedClips(data, rows[part], mean), settings.batch_size, shuffle=True)
        for part in rows
    }
    criterion = nn.L1Loss()

    def one_part(part: str) -> None:
        predictions: dict[str, list[Tensor]] = {task: [] for task in settings.tasks}
        labels: dict[str, list[Tensor]] = {task: [] for task in settings.tasks}
        left = settings.accumulate
        for batch in loaders[part]:
            if part == "train" and left == settings.accumulate:
                optimiser.zero_grad()
            outputs = model(batch["text"], batch["audio"], batch["vision"])
            true = {task: batch["labels"][task].view(-1, 1) for task in settings.tasks}
            loss = sum(w * criterion(outputs[task], true[task]) for task, w in settings.task_weights.items())
            loss.item()
            if part == "train":
                loss.backward()
                if settings.gradient_clip is not None:
                    nn.utils.clip_grad_value_(model.parameters(), settings.gradient_clip)
                left -= 1
                if not left:
                    optimiser.step()
                    left = settings.accumulate
            for task in settings.tasks:
                predictions[task].append(outputs[task].detach())
                labels[task].append(true[task])
        for task in settings.tasks:
            plain_metrics(torch.cat(predictions[task]), torch.cat(labels[task]))

    def epoch() -> None:
        model.train()
        one_part("train")
        model.eval()
        with torch.no_grad():
            one_part("valid")

    return epoch


# -- ours -----------------------------------------------------------------------------------------------


def our_epoch(
    settings: SystemSettings, data: SentimentData, rows: dict[str, np.ndarray], until_end: ExitStack
) -> Epoch:
    torch.manual_seed(1)
    normaliser = normaliser_of(settings).fit(data, rows["train"])
    sets = {part: normaliser.apply(data, positions, settings.view) for part, positions in rows.items()}
    model = build(settings, data.widths, normaliser.text_length)
    optimiser = until_end.enter_context(adam(model, settings))

    def epoch() -> None:
        _train_epoch(model, optimiser, sets["train"], settings)
        weighted_l1(_outputs(model, sets["valid"]), sets["valid"].labels, {"M": 1.0})

    return epoch


# -- measuring ------------------------------------------------------------------------------------------


def make_data() -> SentimentData:
    clips = make_clips({"train": TRAIN, "valid": VALID})
    features = dict(zip((clip.id for clip in clips), make_rows(clips), strict=True))
    store = SimpleNamespace(
        manifest=SimpleNamespace(clips=clips, label_range=(-1.0, 1.0)),
        recipe={},
        ids=lambda stage: features,
        read=lambda stage, clip_id: features[clip_id][stage],
    )
    return load(store, sequences=True)


def part_of(data: SentimentData, settings: SystemSettings, batches: int | None) -> dict[str, np.ndarray]:
    clips = TRAIN if batches is None else min(TRAIN, batches * settings.batch_size)
    return {"train": data.split("train")[:clips], "valid": data.split("valid")[: max(2, clips // 3)]}


def cpu_seconds(epoch: Epoch) -> float:
    start = time.process_time()
    epoch()
    return time.process_time() - start


def compare(name: str, data: SentimentData, batches: int | None, rounds: int) -> None:
    settings = settings_of(name)
    rows = part_of(data, settings, batches)
    scale = TRAIN / len(rows["train"])
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    with ExitStack() as until_end:
        epochs = {
            "ours": our_epoch(settings, data, rows, until_end),
            "plain": plain_epoch(settings, data, rows),
        }
        for number in range(rounds + 1):
            for each, epoch in epochs.items():
                seconds = cpu_seconds(epoch) * scale
                if number:  # the first warms up
                    found[each].append(seconds)
    ours, plain = (float(np.median(found[each])) for each in ("ours", "plain"))
    part = "" if batches is None else f"  (from {len(rows['train'])} clips)"
    print(
        f"{name:8} plain {plain:7.2f} s an epoch  ours {ours:7.2f} s  {plain / ours:5.2f} x{part}", flush=True
    )


def status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def memory(name: str, implementation: str) -> None:
    """Train one epoch and print the peak, without the data's part."""
    data = make_data()
    settings = settings_of(name)
    rows = part_of(data, settings, 2)
    before = status("VmRSS")
    if implementation == "plain":
        plain_epoch(settings, data, rows)()
    else:  # with early stopping's copy of the best epoch
        short = settings.model_copy(update={"max_epochs": 1})
        train(data, short, 1, rows["train"], rows["valid"])
    print(status("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", default=list(SYSTEMS))
    parser.add_argument("--batches", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--implementation", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.implementation:
        memory(arguments.systems[0], arguments.implementation)
        return
    if arguments.memory:
        for name in arguments.systems:
            run = partial(subprocess.run, check=True, capture_output=True, text=True)
            peaks = [
                float(run([sys.executable, __file__, name, "--implementation", each]).stdout)
                for each in ("ours", "plain")
            ]
            ours, plain = peaks
            print(f"{name:8} peak memory: plain {plain:6.0f} MiB  ours {ours:6.0f} MiB  1/{plain / ours:.2f}")
        return
    data = make_data()
    for name in arguments.systems:
        compare(name, data, arguments.batches, arguments.rounds)


if __name__ == "__main__":
    main()
