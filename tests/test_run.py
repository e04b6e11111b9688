import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import narrow
from synthetic_store import NAN, SyntheticStore, make_store, relabelled

from pipeline.errors import InputError
from pipeline.trainer.checkpoint import load_checkpoint
from pipeline.trainer.data import load
from pipeline.trainer.metrics import METRICS
from pipeline.trainer.run import run_training
from pipeline.trainer.systems import MODELS

QUICK = {name: settings.model_copy(update={"max_epochs": 2}) for name, settings in MODELS.items()}


@pytest.fixture(scope="module")
def store():
    return make_store(20)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "deep" / "RUN"
    told = []
    done = run_training(
        store, "mlf-dnn", (1, 12), out, QUICK["mlf-dnn"], progress=lambda seed, *_: told.append(seed)
    )
    assert told == [1, 12]
    return out, done


def test_a_run_folder_is_complete(run):
    out, _ = run
    assert sorted(path.name for path in out.iterdir()) == [
        "recipe.json",
        "results.csv",
        "results.json",
        "seed-1.pt",
        "seed-12.pt",
    ]
    results = json.loads((out / "results.json").read_text())
    assert results["clips"] == {"train": 12, "valid": 4, "test": 4}
    assert list(results["metrics"]) == ["M", "T", "A", "V"]
    spread = results["metrics"]["A"]["MAE"]
    assert spread["mean"] == pytest.approx(np.mean(list(spread["seeds"].values())))
    assert set(results["baseline"]["V"]) == {"Acc-2", "MAE"}
    assert results["vision_backend"] == "facemesh"
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["features"]["fingerprints"]["audio"] == "audio0123456789abcdef"
    assert recipe["settings"]["task_weights"]["A"] == 0.8
    assert recipe["software"]["torch"]


def test_the_table_holds_every_task_and_measure(run):
    out, _ = run
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["metric"]) for row in rows] == [(t, m) for t in "MTAV" for m in METRICS]
    results = json.loads((out / "results.json").read_text())["metrics"]
    for row in rows:
        mean = results[row["task"]][row["metric"]]["mean"]
        assert (float(row["mean"]) if row["mean"] else None) == mean


def test_a_checkpoint_predicts_as_the_model_did(run, store):
    out, done = run
    data = load(store)
    for seed, trained in done.models.items():
        again = load_checkpoint(out / f"seed-{seed}.pt")
        assert (again.settings, again.seed, again.history) == (trained.settings, seed, trained.history)
        for task, values in trained.predict(data).items():
            np.testing.assert_array_equal(again.predict(data)[task], values)


@pytest.mark.parametrize("name", MODELS)
def test_every_system_comes_back_from_its_run_folder(name, store, tmp_path):
    settings = narrow(name, max_epochs=1)
    done = run_training(store, name, (1,), tmp_path, settings)
    again = load_checkpoint(tmp_path / "seed-1.pt")
    assert again.settings == settings
    data = load(store, sequences=True)
    for task, values in done.models[1].predict(data).items():
        np.testing.assert_array_equal(again.predict(data)[task], values)


def test_a_checkpoint_is_plain(run):
    out, _ = run
    kept = torch.load(out / "seed-1.pt", weights_only=True)
    assert kept["fingerprints"]["text"] == "text0123456789abcdef"
    assert "text.lstm.weight_ih_l0" in kept["state_dict"]
    assert "heads.M.linear_3.bias" in kept["state_dict"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_no_checkpoint_is_a_clear_error(tmp_path, content):
    path = tmp_path / "seed-1.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"seed-1\.pt"):
        load_checkpoint(path)


class Touch:
    """Unpickled as a call that makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_checkpoint_that_would_run_something_is_refused_and_runs_nothing(run, tmp_path):
    kept = torch.load(run[0] / "seed-1.pt", weights_only=True)
    torch.save({**kept, "model": Touch(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)  # which it would have made
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["schema", "state_dict", "widths", "normaliser"])
def test_a_checkpoint_that_lacks_a_part_is_refused(run, tmp_path, damage):
    kept = torch.load(run[0] / "seed-1.pt", weights_only=True)
    del kept[damage]
    torch.save(kept, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="train again"):
        load_checkpoint(tmp_path / "bad.pt")


def test_single_task_needs_label_alone(tmp_path):
    store = relabelled(make_store(20), label_T=NAN, label_A=NAN, label_V=NAN)
    done = run_training(store, "lf-dnn", (1,), tmp_path, QUICK["lf-dnn"])
    assert list(done.results["metrics"]) == ["M"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"]["M"]["MAE"]["std"] is None  # one seed has no deviation


def refusal(store, tmp_path, model="mlf-dnn", seeds=(1,)):
    with pytest.raises(InputError) as caught:
        run_training(store, model, seeds, tmp_path / "RUN", QUICK.get(model))
    assert not (tmp_path / "RUN").exists()
    return "\n".join(caught.value.mistakes)


def test_refusals_name_the_remedy(tmp_path):
    store = make_store(20)
    assert "ef-lstm, mfn, mult, lf-dnn" in refusal(store, tmp_path, model="bert")
    assert "each once" in refusal(store, tmp_path, seeds=(1, 1))
    assert "--split 6:2:2" in refusal(make_store(20, split=None), tmp_path)
    unlabelled = relabelled(store, label=NAN, label_T=NAN, label_A=NAN, label_V=NAN)
    told = refusal(unlabelled, tmp_path)
    assert told.count("\n") == 5  # three splits, three tasks
    assert "label_A" in told
    assert "0 clips with features and a label in split test" in told
    few = SyntheticStore(
        [replace(clip, split="valid") for clip in store.manifest.clips[:1]] + list(store.manifest.clips[1:2]),
        store.features,
    )
    assert "1 clips with features and a label in split train, at least 2" in refusal(few, tmp_path)


def models_of(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("seed-*.pt")}


def test_a_run_folder_holds_one_run(store, tmp_path):
    settings = QUICK["lmf"]
    run_training(store, "lmf", (1, 12), tmp_path, settings)
    before = models_of(tmp_path)
    for change in (
        {"model": "lf-dnn", "settings": QUICK["lf-dnn"]},
        {"settings": settings.model_copy(update={"rank": 2})},
        {"seeds": (123,)},
    ):
        with pytest.raises(InputError, match=r"holds models of (another|other).*--replace"):
            run_training(
                store, **{"model": "lmf", "seeds": (1, 12), "out": tmp_path, "settings": settings, **change}
            )
        assert models_of(tmp_path) == before
        assert (tmp_path / "results.json").is_file()
    run_training(store, "lmf", (1, 12, 123), tmp_path, settings)  # the same run with one seed more
    assert len(models_of(tmp_path)) == 3
    run_training(store, "lf-dnn", (7,), tmp_path, QUICK["lf-dnn"], replace=True)
    assert list(models_of(tmp_path)) == ["seed-7.pt"]


def test_models_of_unknown_origin_are_refused(store, tmp_path):
    run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"])
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(InputError, match="holds models of another model"):
        run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"])
