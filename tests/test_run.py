import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import narrow
from synthetic_store import NAN, SyntheticStore, make_store, relabelled

from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.training import TrainingProgress
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.metrics import METRICS
from triptych.pipeline.trainer.runs import jobs
from triptych.pipeline.trainer.runs.checkpoint import Origin, load_checkpoint
from triptych.pipeline.trainer.runs.folder import find_checkpoints, read_run
from triptych.pipeline.trainer.runs.jobs import Job, ResultFile, perform
from triptych.pipeline.trainer.runs.run import CheckpointFile, run_training
from triptych.pipeline.trainer.runs.sealed import sealed
from triptych.pipeline.trainer.systems import SYSTEMS
from triptych.pipeline.trainer.training import evaluate, train

QUICK = {name: settings.model_copy(update={"max_epochs": 2}) for name, settings in SYSTEMS.items()}


@pytest.fixture(scope="module")
def store():
    return make_store(20)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "deep" / "RUN"
    seeds = []
    run_training(
        store, "mlf-dnn", (1, 12), out, QUICK["mlf-dnn"], report=lambda job, *_: seeds.append(job.seed)
    )
    assert seeds == [1, 12]
    return out


def test_a_run_folder_is_complete(run):
    out = run
    assert sorted(path.name for path in out.iterdir()) == [
        "results.csv",
        "results.html",
        "results.json",
        "run.json",
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
    record = json.loads((out / "run.json").read_text())
    assert record["features"]["fingerprints"]["audio"] == "audio0123456789abcdef"
    assert record["settings"]["task_weights"]["A"] == 0.8
    assert record["software"]["torch"]
    assert record["streams"] == results["streams"] == {"text": "text", "audio": "audio", "vision": "vision"}


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
    content = torch.load(out / "seed-1.pt", weights_only=True)
    assert content["fingerprints"]["text"] == "text0123456789abcdef"
    assert "text.lstm.weight_ih_l0" in content["state_dict"]
    assert "heads.M.linear_3.bias" in content["state_dict"]


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


def test_a_checkpoint_with_code_is_refused_and_not_run(run, tmp_path):
    content = torch.load(run / "seed-1.pt", weights_only=True)
    torch.save({**content, "model": Touch(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt: not a checkpoint, or it contains more"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)  # which it would have made
    assert (tmp_path / "ran").exists()


def save(content, path):
    """Save changed content with a checksum that fits."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(sealed(buffer.getvalue()))


@pytest.mark.parametrize("damage", ["schema", "state_dict", "streams", "widths", "normaliser"])
def test_an_incomplete_checkpoint_is_refused(run, tmp_path, damage):
    content = torch.load(run / "seed-1.pt", weights_only=True)
    del content[damage]
    save(content, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="train again"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("part", "value"),
    [("normaliser", []), ("fingerprints", "none"), ("widths", {"text": -1, "audio": 33, "vision": 709})],
)
def test_an_invalid_checkpoint_is_refused(run, tmp_path, part, value):
    content = torch.load(run / "seed-1.pt", weights_only=True)
    save(content | {part: value}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="train again"):
        load_checkpoint(tmp_path / "bad.pt")


def test_a_normaliser_of_other_widths_is_refused(run, tmp_path):
    content = torch.load(run / "seed-1.pt", weights_only=True)
    content["normaliser"]["audio_mean"] = content["normaliser"]["audio_mean"][:3]
    save(content, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="audio_mean is of shape"):
        load_checkpoint(tmp_path / "bad.pt")


def test_single_task_needs_label_alone(tmp_path):
    store = relabelled(make_store(20), label_T=NAN, label_A=NAN, label_V=NAN)
    done = run_training(store, "lf-dnn", (1,), tmp_path, QUICK["lf-dnn"])
    assert list(done["metrics"]) == ["M"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"]["M"]["MAE"]["std"] is None  # one seed has no deviation


def refusal(store, tmp_path, system="mlf-dnn", seeds=(1,)):
    with pytest.raises(InputError) as caught:
        run_training(store, system, seeds, tmp_path / "RUN", QUICK.get(system))
    assert not (tmp_path / "RUN").exists()
    return "\n".join(caught.value.problems)


def test_refusals_name_the_remedy(tmp_path):
    store = make_store(20)
    assert "ef-lstm, mfn, mult, lf-dnn" in refusal(store, tmp_path, system="bert")
    assert "each once" in refusal(store, tmp_path, seeds=(1, 1))
    assert "--split 6:2:2" in refusal(make_store(20, split=None), tmp_path)
    unlabelled = relabelled(store, label=NAN, label_T=NAN, label_A=NAN, label_V=NAN)
    assert "no clip with features has a label; fill in label" in refusal(unlabelled, tmp_path)
    clips = store.manifest.clips
    without_labels = [replace(clip, label=NAN, label_T=NAN, label_A=NAN, label_V=NAN) for clip in clips[1:]]
    message = refusal(SyntheticStore([clips[0], *without_labels], store.features), tmp_path)
    assert (
        f"0 clips with features and a label in split {'test' if clips[0].split != 'test' else 'train'}"
        in message
    )
    single = [replace(clip, label_T=NAN, label_A=NAN, label_V=NAN) for clip in clips]
    message = refusal(SyntheticStore(single, store.features), tmp_path)
    assert message.count("\n") == 2  # three tasks
    assert "label_A" in message
    few = SyntheticStore(
        [replace(clip, split="valid") for clip in store.manifest.clips[:1]] + list(store.manifest.clips[1:2]),
        store.features,
    )
    assert "1 clips with features and a label in split train, at least 2" in refusal(few, tmp_path)


def checkpoints_in(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("seed-*.pt")}


def test_a_run_folder_holds_one_run(store, tmp_path):
    settings = QUICK["lmf"]
    run_training(store, "lmf", (1, 12), tmp_path, settings)
    before = checkpoints_in(tmp_path)
    for change in (
        {"system": "lf-dnn", "settings": QUICK["lf-dnn"]},
        {"settings": settings.model_copy(update={"rank": 2})},
        {"seeds": (123,)},
    ):
        with pytest.raises(InputError, match=r"has checkpoints of (another|other).*--replace"):
            run_training(
                store, **{"system": "lmf", "seeds": (1, 12), "out": tmp_path, "settings": settings, **change}
            )
        assert checkpoints_in(tmp_path) == before
        assert (tmp_path / "results.json").is_file()
    run_training(store, "lmf", (1, 12, 123), tmp_path, settings)  # the same run with one seed more
    assert len(checkpoints_in(tmp_path)) == 3
    run_training(store, "lf-dnn", (7,), tmp_path, QUICK["lf-dnn"], replace=True)
    assert list(checkpoints_in(tmp_path)) == ["seed-7.pt"]


def test_checkpoints_of_unknown_origin_are_refused(store, tmp_path):
    run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"])
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match="has checkpoints of another system"):
        run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"])


def test_other_labels_are_another_run(store, tmp_path):
    run_training(store, "lmf", (1, 12), tmp_path, QUICK["lmf"])
    (tmp_path / "seed-1.pt").unlink()
    with pytest.raises(InputError, match="other clips, labels or splits"):
        run_training(relabelled(store, label=0.5), "lmf", (1, 12), tmp_path, QUICK["lmf"])


def test_a_killed_training_continues_with_missing_seeds(store, tmp_path):
    complete = run_training(store, "lmf", (1, 12, 123), tmp_path, QUICK["lmf"])
    (tmp_path / "seed-12.pt").unlink()
    (tmp_path / "seed-123.pt").write_bytes(b"damaged")
    (tmp_path / "results.json").unlink()
    before, reported = checkpoints_in(tmp_path), []
    again = run_training(
        store,
        "lmf",
        (1, 12, 123),
        tmp_path,
        QUICK["lmf"],
        report=lambda job, _, saved_before: reported.append((job.seed, saved_before)),
    )
    assert reported == [(1, True), (12, False), (123, False)]
    assert checkpoints_in(tmp_path)["seed-1.pt"] == before["seed-1.pt"]
    assert again == complete


def work_in(folder, origin):
    """Two results and a checkpoint, of three systems."""
    return [
        (Job("lmf", QUICK["lmf"], 1), ResultFile(folder / "lmf.json")),
        (Job("ef-lstm", QUICK["ef-lstm"], 2), ResultFile(folder / "ef-lstm.json")),
        (Job("mlf-dnn", QUICK["mlf-dnn"], 1), CheckpointFile(folder / "seed-1.pt", origin, False)),
    ]


def test_processes_change_no_number_and_clean_up(store, tmp_path):
    data, origin = load(store, sequences=True), Origin("mlf-dnn", {})
    results = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        done = perform(work_in(folder, origin), data, folder, processes)
        results[processes] = [{**one, "seconds": 0} for one in done]
        assert sorted(path.name for path in folder.iterdir()) == ["ef-lstm.json", "lmf.json", "seed-1.pt"]
    assert results[1] == results[2]
    one, two = (load_checkpoint(tmp_path / str(number) / "seed-1.pt") for number in (1, 2))
    for task, values in one.predict(data).items():
        np.testing.assert_array_equal(two.predict(data)[task], values)


def test_training_uses_as_many_processes_as_given(store, tmp_path, monkeypatch):
    used = []

    def in_processes(function, tasks, data, folder, processes):
        used.append(processes)
        return ((index, function(data, task)) for index, task in enumerate(tasks))

    monkeypatch.setattr(jobs, "in_processes", in_processes)
    run_training(store, "lmf", (1,), tmp_path / "run", QUICK["lmf"], processes=3)
    jobs.run_jobs([Job("lmf", QUICK["lmf"], 1)], load(store), tmp_path / "jobs", 4)
    assert used == [3, 4]


def test_a_run_of_an_earlier_version_is_refused(store, run, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "seed-1.pt").write_bytes((run / "seed-1.pt").read_bytes())
    (old / "recipe.json").write_text('{"model": "lmf", "settings": {}, "features": {}, "seeds": [1]}')
    for read in (read_run, find_checkpoints):
        with pytest.raises(InputError, match=r"an earlier version trained it.*train again"):
            read(old)
    with pytest.raises(InputError, match="--replace"):
        run_training(store, "lmf", (1,), old, QUICK["lmf"])
    run_training(store, "lmf", (1,), old, QUICK["lmf"], replace=True)
    assert not (old / "recipe.json").exists()
    assert read_run(old)["model"] == "lmf"


def test_replacing_a_run_never_removes_a_feature_recipe(store, tmp_path):
    (tmp_path / "recipe.json").write_text('{"recipe": {}, "fingerprints": {}}')
    run_training(store, "lmf", (1,), tmp_path, QUICK["lmf"], replace=True)
    assert (tmp_path / "recipe.json").exists()


def test_test_labels_decide_only_the_test_scores(store, tmp_path):
    """Two stores that differ in the test split's labels give equal models and predictions."""
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
        run_training(store, "lmf", (1,), tmp_path, settings, report=TrainingProgress(1))
    assert "lmf, seed 1: seed 1, epoch" in capsys.readouterr().err
    assert not (tmp_path / "seed-1.pt").exists()
