import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import narrow
from synthetic_store import NAN, SyntheticStore, make_store, relabelled

from triptych.pipeline.cli.training_progress import TrainingProgress
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.metrics import METRICS
from triptych.pipeline.trainer.runs.checkpoint import load_checkpoint
from triptych.pipeline.trainer.runs.run import run_training
from triptych.pipeline.trainer.systems import SYSTEMS
from triptych.pipeline.trainer.training import evaluate, train

QUICK = {name: settings.model_copy(update={"max_epochs": 2}) for name, settings in SYSTEMS.items()}


@pytest.fixture(scope="module")
def store():
    return make_store(20)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "deep" / "RUN"
    told = []
    run_training(store, "mlf-dnn", (1, 12), out, QUICK["mlf-dnn"], tell=lambda job, *_: told.append(job.seed))
    assert told == [1, 12]
    return out


def test_a_run_folder_is_complete(run):
    out = run
    assert sorted(path.name for path in out.iterdir()) == [
        "run.json",
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
    recipe = json.loads((out / "run.json").read_text())
    assert recipe["features"]["fingerprints"]["audio"] == "audio0123456789abcdef"
    assert recipe["settings"]["task_weights"]["A"] == 0.8
    assert recipe["software"]["torch"]


def test_the_table_holds_every_task_and_measure(run):
    out = run
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["metric"]) for row in rows] == [(t, m) for t in "MTAV" for m in METRICS]
    results = json.loads((out / "results.json").read_text())["metrics"]
    for row in rows:
        mean = results[row["task"]][row["metric"]]["mean"]
        assert (float(row["mean"]) if row["mean"] else None) == mean


def test_a_checkpoint_predicts_as_the_model_did(run, store):
    out, data = run, load(store)
    for seed in (1, 12):
        trained = train(data, QUICK["mlf-dnn"], seed, data.split("train"), data.split("valid"))
        again = load_checkpoint(out / f"seed-{seed}.pt")
        assert (again.settings, again.seed, again.history) == (trained.settings, seed, trained.history)
        for task, values in trained.predict(data).items():
            np.testing.assert_array_equal(again.predict(data)[task], values)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_comes_back_from_its_run_folder(name, store, tmp_path):
    settings = narrow(name, max_epochs=1)
    run_training(store, name, (1,), tmp_path, settings)
    again = load_checkpoint(tmp_path / "seed-1.pt")
    assert again.settings == settings
    data = load(store, sequences=True)
    trained = train(data, settings, 1, data.split("train"), data.split("valid"))
    for task, values in trained.predict(data).items():
        np.testing.assert_array_equal(again.predict(data)[task], values)


def test_a_checkpoint_is_plain(run):
    out = run
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
    kept = torch.load(run / "seed-1.pt", weights_only=True)
    torch.save({**kept, "model": Touch(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt: no checkpoint, or one that asks for more"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)  # which it would have made
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["schema", "state_dict", "widths", "normaliser"])
def test_a_checkpoint_that_lacks_a_part_is_refused(run, tmp_path, damage):
    kept = torch.load(run / "seed-1.pt", weights_only=True)
    del kept[damage]
    torch.save(kept, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="train again"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("part", "value"),
    [("normaliser", []), ("fingerprints", "none"), ("widths", {"text": -1, "audio": 33, "vision": 709})],
)
def test_a_checkpoint_of_wrong_parts_is_refused(run, tmp_path, part, value):
    kept = torch.load(run / "seed-1.pt", weights_only=True)
    torch.save(kept | {part: value}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="train again"):
        load_checkpoint(tmp_path / "bad.pt")


def test_a_checkpoint_whose_normaliser_has_other_columns_is_refused(run, tmp_path):
    kept = torch.load(run / "seed-1.pt", weights_only=True)
    kept["normaliser"]["audio_mean"] = kept["normaliser"]["audio_mean"][:3]
    torch.save(kept, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="audio_mean is of shape"):
        load_checkpoint(tmp_path / "bad.pt")


def test_single_task_needs_label_alone(tmp_path):
    store = relabelled(make_store(20), label_T=NAN, label_A=NAN, label_V=NAN)
    done = run_training(store, "lf-dnn", (1,), tmp_path, QUICK["lf-dnn"])
    assert list(done["metrics"]) == ["M"]
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
    assert "no clip with features has a label; fill in label" in refusal(unlabelled, tmp_path)
    clips = store.manifest.clips
    lacking = [replace(clip, label=NAN, label_T=NAN, label_A=NAN, label_V=NAN) for clip in clips[1:]]
    told = refusal(SyntheticStore([clips[0], *lacking], store.features), tmp_path)
    assert (
        f"0 clips with features and a label in split {'test' if clips[0].split != 'test' else 'train'}"
        in told
    )
    single = [replace(clip, label_T=NAN, label_A=NAN, label_V=NAN) for clip in clips]
    told = refusal(SyntheticStore(single, store.features), tmp_path)
    assert told.count("\n") == 2  # three tasks
    assert "label_A" in told
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
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match="holds models of another model"):
        run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"])


def test_other_labels_are_another_run(store, tmp_path):
    run_training(store, "lmf", (1, 12), tmp_path, QUICK["lmf"])
    (tmp_path / "seed-1.pt").unlink()
    with pytest.raises(InputError, match="other clips, labels or splits"):
        run_training(relabelled(store, label=0.5), "lmf", (1, 12), tmp_path, QUICK["lmf"])


def test_a_killed_training_goes_on_at_the_seeds_that_are_missing(store, tmp_path):
    whole = run_training(store, "lmf", (1, 12, 123), tmp_path, QUICK["lmf"])
    (tmp_path / "seed-12.pt").unlink()
    (tmp_path / "seed-123.pt").write_bytes(b"damaged")
    (tmp_path / "results.json").unlink()
    before, told = models_of(tmp_path), []
    again = run_training(
        store,
        "lmf",
        (1, 12, 123),
        tmp_path,
        QUICK["lmf"],
        tell=lambda job, _, there: told.append((job.seed, there)),
    )
    assert told == [(1, True), (12, False), (123, False)]
    assert models_of(tmp_path)["seed-1.pt"] == before["seed-1.pt"]
    assert again == whole


def test_processes_change_no_number(store, tmp_path):
    alone = run_training(store, "mlf-dnn", (1, 12), tmp_path / "alone", QUICK["mlf-dnn"])
    assert run_training(store, "mlf-dnn", (1, 12), tmp_path / "two", QUICK["mlf-dnn"], processes=2) == alone
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )


def test_test_labels_decide_nothing_but_the_test_scores(store, tmp_path):
    """Of two stores that differ in the test split's labels the models are the same, and so is what they answer."""
    data = load(store)
    test = {data.ids[row] for row in data.split("test")}
    clips = [
        replace(clip, label=-clip.label / 2 - 0.1) if clip.id in test else clip
        for clip in store.manifest.clips
    ]
    other = SyntheticStore(clips, store.features)
    scores = [
        run_training(each, "lmf", (1,), tmp_path / name, QUICK["lmf"])["metrics"]["M"]["MAE"]["mean"]
        for name, each in [("one", store), ("other", other)]
    ]
    one, two = (load_checkpoint(tmp_path / name / "seed-1.pt") for name in ("one", "other"))
    assert one.history == two.history
    for name, parameter in one.model.state_dict().items():
        assert torch.equal(parameter, two.model.state_dict()[name])
    for trained, each, found in [(one, data, scores[0]), (two, load(other), scores[1])]:
        assert found == evaluate(trained, each, each.split("test"))["M"]["MAE"]
    assert scores[0] != scores[1]


def test_diverged_training_is_a_clear_error(store, tmp_path, capsys):
    settings = QUICK["lmf"].model_copy(update={"learning_rate": 1e30})
    with pytest.raises(InputError, match="lower its learning rate"):
        run_training(store, "lmf", (1,), tmp_path, settings, tell=TrainingProgress(1))
    assert "lmf, seed 1: seed 1, epoch" in capsys.readouterr().err
    assert not (tmp_path / "seed-1.pt").exists()
