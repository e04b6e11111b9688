"""Tables and figures: from labels alone, and from saved trainings."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_systems import narrow
from synthetic_store import make_store

from triptych.pipeline import trainer
from triptych.pipeline.errors import InputError
from triptych.pipeline.terminal.grid import Grid
from triptych.pipeline.trainer.data.clips import load, with_target
from triptych.pipeline.trainer.data.shared_memory import open_shared, write_shared
from triptych.pipeline.trainer.experiments import labels, published, representations, tables
from triptych.pipeline.trainer.experiments.document import Document, spread
from triptych.pipeline.trainer.experiments.trainings import Trainings, spread_of
from triptych.pipeline.trainer.models.unimodal import UnimodalSettings
from triptych.pipeline.trainer.runs import jobs
from triptych.pipeline.trainer.runs.identity import DECISIVE, NOT_DECISIVE, code_digest, identity
from triptych.pipeline.trainer.runs.jobs import Job, run_jobs
from triptych.pipeline.trainer.runs.parallel import in_processes
from triptych.pipeline.trainer.search.grid import tuned_settings
from triptych.pipeline.trainer.systems import SYSTEMS

PNG = b"\x89PNG"
LABELS = """video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode
v1,0001,好，很好！,0.8,1.0,0.8,,Positive,train
v1,0002,不,-1.0,0.0,-0.8,-0.6,Negative,valid
v2,0001,,0.0,0.2,,0.0,Neutral,test
v2,0002,嗯,,,,,,test
"""


# --- from labels alone ---


@pytest.fixture
def label_table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(LABELS, encoding="utf-8")
    return path


@pytest.fixture
def corpus(test_data):
    return test_data / "labels" / "ch_sims_label.csv"


def test_splits_of_ch_sims_are_the_papers(corpus):
    document = labels.table3(corpus)
    rows = {row[0]: row[1:] for row in document.records.rows}
    assert [rows[split][0] for split in ("train", "valid", "test")] == [1368, 456, 457]
    for split, counts in published.TABLE_3.items():
        assert rows[split] == rows[f"{split}, paper"] == (sum(counts), *counts)
    assert "Every count equals the paper's." in document.markdown()


def test_annotations_of_ch_sims_differ_as_the_paper_says(corpus):
    document = labels.figure2(corpus)
    found = {(row[1], row[2]): row[3] for row in document.records.rows if row[0] == "D" and row[1] != row[2]}
    assert min(found, key=found.get) in (("A", "M"), ("M", "A"))
    assert max(found, key=found.get) in (("T", "V"), ("V", "T"))


def test_labels_of_another_range_are_counted_in_its_classes(label_table, tmp_path):
    """Three times the labels, in three times the range, are the same classes."""
    rows = list(csv.DictReader(LABELS.splitlines()))
    for row in rows:
        for name in ("label", "label_T", "label_A", "label_V"):
            row[name] = row[name] and str(3 * float(row[name]))
        row["label_range"] = "-3 3"
    wide = tmp_path / "wide.csv"
    with wide.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert labels.table3(wide).records == labels.table3(label_table).records
    assert "from -3 to 3, scaled to -1 to 1" in labels.load_labels(wide)[1]


def test_a_label_table_needs_no_videos(label_table):
    written = dict(labels.table1(label_table).records.rows)
    assert (written["videos"], written["clips"], written["clips labelled V"]) == (2, 4, 2)
    assert written["characters of a transcript, mean"] == pytest.approx((3 + 1 + 1) / 3)
    assert written["seconds of a clip, mean"] is None
    counted = labels.table3(label_table).records
    assert counted.header[-1] == labels.UNLABELLED
    assert counted.rows[2] == ("test", 2, 0, 0, 1, 0, 0, 1)
    assert counted.rows[3][:2] == ("all", 4)


def test_disagreement_uses_clips_with_both_labels(label_table):
    manifest, _ = labels.load_labels(label_table)
    found = labels.disagreement(labels.label_array(manifest.clips))
    assert found[0, 1] == pytest.approx((0.04 + 1 + 0.04) / 3)
    assert found[2, 3] == pytest.approx(0.04)
    assert found[0, 0] == 0
    assert np.isnan(labels.disagreement(np.full((2, 4), np.nan))).all()
    assert labels.figure2(label_table).figure.startswith(PNG)


def test_a_corpus_without_one_of_its_videos(tmp_path):
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    (tmp_path / "Raw" / "v1" / "0001.mp4").write_bytes(b"no video")
    (tmp_path / "label.csv").write_text(LABELS, encoding="utf-8")
    assert labels.table3(tmp_path).records.rows[0][:2] == ("train", 1)
    assert dict(labels.table1(tmp_path).records.rows)["videos that could be measured"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id,b\n1,2\n", "neither a column path nor the columns video_id and clip_id"),
        (LABELS.replace("0.8,1.0,0.8,,", "8,1.0,0.8,,"), "outside"),
        ("video_id,clip_id,text,label,mode\nv,1,x,,train\n", "no clip has a label"),
    ],
)
def test_useless_labels_are_refused(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        labels.table3(path)


def test_a_document_is_two_or_three_files(tmp_path):
    grid = Grid(("name", "value"), (("a|b", 0.5), ("c", None), ("d", 1234)))
    document = Document("t", "Title", "made up", (("", grid),), grid, ("a note",))
    paths = document.write(tmp_path / "deep" / "er")
    assert [path.name for path in paths] == ["t.md", "t.csv"]
    text = paths[0].read_text(encoding="utf-8")
    assert "| a\\|b | 0.500 |\n| c | – |\n| d | 1,234 |" in text
    assert "Data: made up" in text
    assert paths[1].read_bytes() == b"name,value\na|b,0.5\nc,\nd,1234\n"
    assert spread(0.5, math.nan) == "50.00"


# --- saved trainings ---


@pytest.fixture(scope="module")
def data():
    return load(make_store(20, shorter=4), sequences=True)


def quick(name, **changes):
    return narrow(name, **{"max_epochs": 1, **changes})


@pytest.fixture
def reported():
    return []


@pytest.fixture
def trainings(data, tmp_path, reported, monkeypatch):
    small = {name: quick(name) for name in SYSTEMS}
    for module in (tables, representations):
        monkeypatch.setattr(module, "SYSTEMS", small)
    return Trainings(
        data, "made up", tmp_path, 1, lambda job, result, before: reported.append((job.name, before))
    )


def test_a_stopped_experiment_continues(data, tmp_path):
    jobs = [Job("lmf", quick("lmf"), seed) for seed in (1, 2, 3)]

    def stop(job, result, before):
        if job.seed == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, data, tmp_path, 1, stop)
    reported = []
    run_jobs(jobs, data, tmp_path, 1, lambda job, result, before: reported.append((job.seed, before)))
    assert reported == [(1, True), (2, True), (3, False)]


def test_only_results_of_the_same_key_are_reused(data, tmp_path):
    job = Job("lmf", quick("lmf"), 1)
    run_jobs([job], data, tmp_path, 1)

    def again(job, data=data):
        reported = []
        run_jobs([job], data, tmp_path, 1, lambda job, result, before: reported.append(before))
        return reported == [True]

    assert again(job)
    assert not again(replace(job, seed=2))
    assert not again(replace(job, target="T"))
    assert not again(replace(job, wanted="valid"))
    assert not again(replace(job, settings=quick("lmf", rank=2)))
    changed = data.labels.copy()
    changed[0, 0] += 0.2
    assert not again(job, replace(data, labels=changed))
    for path in (tmp_path / "results").iterdir():
        path.write_bytes(b'{"torn')
    assert not again(job)


def test_code_is_part_of_the_key(monkeypatch):
    job = Job("lmf", quick("lmf"), 1)
    before = jobs._key(job, "data")
    monkeypatch.setattr(jobs, "code_digest", lambda: "other")
    assert jobs._key(job, "data") != before


@pytest.mark.parametrize(
    ("changed", "decides"),
    [
        ("training.py", True),
        ("data/standardising.py", True),
        ("models/lstm.py", True),
        ("search/grid.py", False),
        ("experiments/tables.py", False),
    ],
)
def test_decisive_code_is_part_of_the_digest(changed, decides, tmp_path):
    own = Path(trainer.__file__).parent
    copy = shutil.copytree(own, tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / changed).open("a") as file:
        file.write("# changed\n")
    assert (code_digest(copy) != code_digest(own)) == decides


def test_every_trainer_module_is_listed_for_the_digest():
    own = Path(trainer.__file__).parent
    modules = sorted(str(path.relative_to(own)) for path in own.rglob("*.py"))
    assert sorted(DECISIVE + NOT_DECISIVE) == modules


@pytest.mark.parametrize("moved", ["training.py", "models/lstm.py"])
def test_a_decisive_module_that_moved_is_noticed(moved, tmp_path):
    own = Path(trainer.__file__).parent
    copy = shutil.copytree(own, tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "room").mkdir()
    (copy / moved).rename(copy / "room" / Path(moved).name)
    with pytest.raises(FileNotFoundError):
        code_digest(copy)


def test_a_training_that_diverges_is_named(trainings):
    job = Job("lmf", quick("lmf", learning_rate=1e9, max_epochs=20, patience=20), 1)
    with pytest.raises(InputError, match=r"lmf: seed 1, epoch \d+.*lower its learning rate"):
        trainings.run([job])


def test_clips_are_shared_as_they_are(data, tmp_path):
    write_shared(data, tmp_path)
    shared = open_shared(tmp_path)
    assert identity(shared) == identity(data)
    for one, other in zip(data.sequences["audio"], shared.sequences["audio"], strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    content = (tmp_path / "arrays").read_bytes()
    shared.labels[:] = 7  # this process's own copy
    assert (tmp_path / "arrays").read_bytes() == content


def test_labels_are_part_of_the_identity(data):
    labels = data.labels.copy()
    labels[3, 2] = -labels[3, 2] + 0.1
    assert identity(replace(data, labels=labels)) != identity(data)
    assert identity(replace(data, splits=data.splits[::-1])) != identity(data)


@pytest.mark.parametrize("modality", ["text", "audio", "vision"])
def test_features_are_part_of_the_identity(data, modality):
    if modality == "text":
        other = replace(data, text=(data.text[0] + 0.1, *data.text[1:]))
    else:
        pooled = getattr(data, modality)
        other = replace(data, **{modality: replace(pooled, mean=pooled.mean + 0.1)})
    assert identity(other) != identity(data)


def records(document):
    rows = csv.DictReader(document.records.csv().decode().splitlines())
    return list(rows)


def test_table2_compares_twins(trainings, reported):
    document = tables.table2(trainings, (1, 12), ("mlf-dnn", "lf-dnn"))
    assert sorted(reported) == [("lf-dnn", False)] * 2 + [("mlf-dnn", False)] * 2
    text = document.markdown()
    for part in (
        "Data: made up",
        "67.47",
        "64.74",
        "F1 (paper)",
        "| Δ to LF-DNN | ours |",
        "| paper | 82.28 ± 1.3 |",
        "chosen on the test split of CH-SIMS",
    ):
        assert part in text
    means = {
        (row["system"], row["measure"]): float(row["mean"])
        for row in records(document)
        if row["label"] == "M"
    }
    row = next(line for line in text.splitlines() if line.startswith("| Δ to LF-DNN | ours"))
    difference = means["mlf-dnn", "MAE"] - means["lf-dnn", "MAE"]
    assert f"{'↑' if difference >= 0 else '↓'}{abs(difference):.2f}" == row.split("|")[8].strip()
    assert document.figure.startswith(PNG)
    seeds = next(row for row in records(document) if row["system"] == "mlf-dnn" and row["measure"] == "Corr")
    assert float(seeds["mean"]) == pytest.approx(
        (float(seeds["seed 1"]) + float(seeds["seed 12"])) / 2, abs=1e-3
    )


def test_an_undefined_correlation_is_not_compared(trainings):
    results = {
        name: [{"test": {"M": {"MAE": mae, "Corr": math.nan}}}]
        for name, mae in [("mlf-dnn", 0.3), ("lf-dnn", 0.4)]
    }
    sentence = tables._comparison(results, "mlf-dnn", "lf-dnn", (1,))
    assert (
        sentence
        == "MLF-DNN against LF-DNN on M: MAE better by 10.00 (better with 1 of 1 seed), Corr undefined."
    )


def test_the_clips_of_a_killed_run_are_removed(data, tmp_path):
    (tmp_path / "clips-999999999-x").mkdir()
    list(in_processes(lambda data, task: task, [1], data, tmp_path, 1))
    assert not list(tmp_path.iterdir())


def test_a_lower_error_and_a_higher_correlation_are_better():
    def scored(*pairs):
        return [{"test": {"M": {"MAE": mae, "Corr": corr}}} for mae, corr in pairs]

    results = {"mlf-dnn": scored((0.40, 0.50), (0.44, 0.60)), "lf-dnn": scored((0.42, 0.52), (0.43, 0.70))}
    sentence = tables._comparison(results, "mlf-dnn", "lf-dnn", (1, 12))
    assert "MAE better by 0.50 (better with 1 of 2 seeds)" in sentence
    assert "Corr worse by 6.00 (better with 0 of 2 seeds)" in sentence


def test_the_repositorys_numbers_are_its_own():
    """Acc-2, Acc-3, Acc-5, F1, MAE and Corr, as its results/result-stat.md gives them."""
    assert {system: tuple(numbers.values()) for system, numbers in published.REPOSITORY.items()} == {
        "ef-lstm": (69.37, 54.27, 21.23, 56.82, 59.07, 5.45),
        "mfn": (77.90, 65.73, 39.47, 77.88, 43.49, 58.24),
        "mult": (78.56, 64.77, 37.94, 79.66, 45.32, 56.41),
        "lf-dnn": (77.02, 64.33, 39.74, 77.27, 44.63, 55.51),
        "mlf-dnn": (80.44, 69.37, 40.22, 80.28, 39.58, 66.52),
        "tfn": (78.38, 65.12, 39.30, 78.62, 43.22, 59.10),
        "mtfn": (81.09, 68.80, 40.31, 81.01, 39.54, 66.58),
        "lmf": (77.77, 64.68, 40.53, 77.88, 44.12, 57.59),
        "mlmf": (79.34, 68.36, 41.05, 79.07, 40.91, 63.90),
    }


def test_the_papers_numbers_are_those_of_its_text(test_data):
    """The three tables as they were read from the paper."""
    measures = {
        "acc2": "Acc-2",
        "acc3": "Acc-3",
        "acc5": "Acc-5",
        "f1": "F1 (paper)",
        "mae": "MAE",
        "corr": "Corr",
    }

    def rows(name):
        with (test_data / "paper" / f"{name}.csv").open(newline="") as stream:
            yield from csv.DictReader(stream)

    def numbers(row, end=""):
        return {title: float(row[f"{key}{end}"]) for key, title in measures.items() if f"{key}{end}" in row}

    table = list(rows("table2"))
    assert {row["system"]: numbers(row) for row in table} == published.TABLE_2
    assert {row["system"]: numbers(row, "_std") for row in table} == published.TABLE_2_DEVIATIONS
    modality = {"T": "text", "A": "audio", "V": "vision"}
    assert {
        (modality[row["task"]], row["label"]): numbers(row) for row in rows("table4")
    } == published.TABLE_4
    assert {tuple(row["tasks"].split("+")): numbers(row) for row in rows("table5")} == published.TABLE_5


def test_table2_takes_tuned_settings(trainings, reported, tmp_path):
    (tmp_path / "best-lmf.json").write_text(json.dumps(narrow("lmf").model_dump(mode="json")))
    chosen = tuned_settings(tmp_path, ["lmf", "lf-dnn"])
    assert set(chosen) == {"lmf"}
    text = tables.table2(trainings, (1,), ("lmf",), chosen).markdown()
    assert "Settings that were given: LMF." in text
    assert "test split of CH-SIMS" not in text
    with pytest.raises(InputError, match=r"no best-NAME\.json of tfn"):
        tuned_settings(tmp_path, ["tfn"])
    (tmp_path / "best-tfn.json").write_text((tmp_path / "best-lmf.json").read_text())
    with pytest.raises(InputError, match="settings of another system than tfn"):
        tuned_settings(tmp_path, ["tfn"])


def test_table4_trains_and_evaluates_on_one_label(trainings, data):
    document = tables.table4(trainings, (1,))
    assert len(document.tables[0][1].rows) == 6 + len(published.TABLE_4)
    saved = [json.loads(path.read_bytes()) for path in (trainings.folder / "results").iterdir()]
    by_name = {one["name"]: one["test"]["M"] for one in saved}
    assert set(by_name) == {
        f"{m}-by-{t}" for m, own in zip(("text", "audio", "vision"), "TAV", strict=True) for t in (own, "M")
    }
    assert by_name["audio-by-A"] != by_name["audio-by-M"]
    for row in records(document):
        case, label = row["modality by label"].split(" by ")
        assert row["label"] == label
        if row["measure"] == "MAE":
            assert float(row["mean"]) == pytest.approx(100 * by_name[f"{case}-by-{label}"]["MAE"], abs=1e-3)
    assert with_target(data, "A").labels[:, 0].tolist() == data.labels[:, 2].tolist()


def test_table4_refuses_a_split_without_target_labels(trainings, data, tmp_path):
    labels = data.labels.copy()
    labels[data.split("valid"), 1] = np.nan
    unlabelled = replace(trainings, data=replace(data, labels=labels), folder=tmp_path)
    with pytest.raises(InputError, match="0 clips with features and a label_T in split valid"):
        tables.table4(unlabelled, (1,))


@pytest.mark.parametrize(
    ("modality", "hidden", "out", "head", "decay"),
    [("text", 64, 32, 16, 1e-4), ("audio", 32, 32, 4, 1e-3), ("vision", 64, 64, 32, 1e-4)],
)
def test_one_modality_has_the_multi_task_systems_settings(modality, hidden, out, head, decay):
    settings = UnimodalSettings.alone(tables.multi_task(), modality)
    assert (settings.hidden, settings.out, settings.head_width) == (hidden, out, head)
    assert settings.parameter_groups == {"subnetwork.": {"weight_decay": decay}}
    assert settings.task_weights == {"M": 1}  # the one target has all the weight


def test_one_modality_has_its_own_rates():
    system = narrow(
        "mlf-dnn",
        dropout={"text": 0.1, "audio": 0.2, "vision": 0.3},
        subnetwork_decay={"text": 1e-3, "audio": 2e-3, "vision": 3e-3},
    )
    alone = [UnimodalSettings.alone(system, modality) for modality in ("text", "audio", "vision")]
    assert [settings.dropout for settings in alone] == [0.1, 0.2, 0.3]
    assert [settings.subnetwork_decay for settings in alone] == [1e-3, 2e-3, 3e-3]


def test_table5_has_every_subset(trainings):
    document = tables.table5(trainings, (1,))
    ours = [row for row in document.tables[0][1].rows if row[1] == "ours"]
    assert [row[0] for row in ours] == [", ".join(tasks) for tasks in tables.SUBSETS]
    assert "64.74" in document.markdown()
    alone = tables.with_tasks(tables.multi_task(), ("M", "A"))
    assert (alone.tasks, set(alone.head_widths)) == (("M", "A"), {"M", "A"})


def test_figure4_has_every_clip_of_the_test_split(trainings, data):
    document = representations.figure4(trainings, 1)
    assert len(document.records.rows) == 6 * 3 * len(data.split("test"))
    assert document.figure.startswith(PNG)
    assert "silhouette" in document.markdown()


def test_groups_that_are_apart_are_distinct():
    points = np.array([[0.0, 0], [0, 0.1], [9, 9], [9, 9.1]])
    groups = np.array([0, 0, 1, 1])
    assert representations.distinctness(points, groups) > 0.9
    assert np.isnan(representations.distinctness(points[:3], groups[:3]))


def test_spreads_are_the_samples(data):
    results = [
        {"test": {"M": dict.fromkeys(("Acc-2", "F1", "F1 (paper)", "Acc-3", "Acc-5", "MAE", "Corr"), value)}}
        for value in (0.2, 0.4)
    ]
    mean, deviation = spread_of(results)["MAE"]
    assert (mean, deviation) == (pytest.approx(0.3), pytest.approx(np.std([0.2, 0.4], ddof=1)))
