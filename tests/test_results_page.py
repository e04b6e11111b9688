"""`results.html` of a run, and TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from synthetic_store import make_store

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.runs.results_page import (
    confusions,
    embedding_plot,
    learning_curves,
    prediction_plots,
)
from triptych.pipeline.trainer.runs.run import run_training
from triptych.pipeline.trainer.runs.svg import Axis, scatter
from triptych.pipeline.trainer.systems import SYSTEMS

SEEDS = (1, 12)
EPOCHS = 2
SETTINGS = SYSTEMS["mlf-dnn"].model_copy(update={"max_epochs": EPOCHS})


@pytest.fixture(scope="module")
def store():
    return make_store(20)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A run folder, its TensorBoard folder, and what each job returned."""
    folder, results = tmp_path_factory.mktemp("page"), []
    run_training(
        store,
        "mlf-dnn",
        SEEDS,
        folder / "run",
        SETTINGS,
        report=lambda job, result, saved: results.append(result),
        log=folder / "logs",
    )
    return folder, results


class Page(HTMLParser):
    """Collects tags with their attributes, and checks that they are closed."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, tag, name=""):
        return sum(one == tag and name in (attributes.get("class") or "") for one, attributes in self.tags)


def test_the_page_is_one_file_with_every_part(trained):
    text = (trained[0] / "run" / "results.html").read_text(encoding="utf-8")
    page = Page(text)
    # The objective and four tasks, one line a seed; four tasks of predictions; one t-SNE.
    assert page.count("figure") == 5 + 4 + 1
    assert page.count("polyline") == 5 * len(SEEDS)
    assert page.count("table", "confusion") == 4
    assert "prefers-color-scheme: dark" in text
    assert page.count("script") == page.count("link") == page.count("img") == 0
    assert not re.search(r"https?:|url\(|@import", text)
    for title in ("Metrics on the test split", "Learning curves", "Confusion matrices", "Representations"):
        assert f"<h2>{title}</h2>" in text


def test_curves_show_every_epoch_of_every_seed(trained):
    _, results = trained
    assert [len(result["history"]) for result in results] == [EPOCHS] * len(SEEDS)
    assert all(epoch["by_task"]["M"] == epoch["valid_loss"] for one in results for epoch in one["history"])
    for chart in learning_curves(results):
        lines = re.findall(r'points="([^"]*)"', chart)
        assert [len(line.split()) for line in lines] == [EPOCHS] * len(SEEDS)


def test_confusion_counts_every_labelled_clip_of_every_seed(store, trained):
    data = load(store)
    result = {"seed": 1, "predictions": {"M": [-0.9, 0.0, 0.9, 0.9]}}
    rows = data.split("test")
    labels = data.labels.copy()
    labels[rows, 0] = [-0.9, -0.5, 0.9, np.nan]
    [matrix] = confusions([result], replace(data, labels=labels))
    assert matrix.task == "M"
    assert matrix.counts == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [0] * 5, [0, 0, 0, 0, 1]]
    for one in confusions(trained[1], data):
        assert np.sum(one.counts) == len(rows) * len(SEEDS)


def test_predictions_are_in_the_labels_own_range(store, trained):
    data = replace(load(store), label_range=(-3.0, 3.0))
    result = {"seed": 1, "predictions": {"M": [1.0, 1.0, 1.0, 1.0]}}
    [plot] = prediction_plots([result], data)
    assert ">2<" in plot
    assert len(set(re.findall(r'cy="([\d.]+)"', plot))) == 1


def test_a_system_without_representations_has_no_t_sne():
    assert embedding_plot({"seed": 1}) is None


def test_text_is_escaped_in_charts():
    plot = scatter("<b>", Axis("&", 0, 1), Axis("y", 0, 1), {"<script>": [(0.5, 0.5)]})
    assert "<script>" not in plot
    assert "<b>" not in plot
    assert "&lt;script&gt;" in plot


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0.113, 0.114), (0, 201), (-3.3, 3.3), (5, 5)])
def test_ticks_are_round_and_within(low, high):
    axis = Axis.around("x", [low, high])
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 6
    assert all(axis.low <= tick <= axis.high for tick in ticks)


def scalars(folder):
    """By seed and tag, the steps and values, as TensorBoard shows them."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for run in sorted(folder.iterdir()):
        events = reader.EventAccumulator(str(run)).Reload()
        for tag in events.Tags()["scalars"]:
            found[run.name, tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found


def test_tensorboard_has_scalars_by_task_seed_and_epoch(store, trained):
    folder, results = trained
    found = scalars(folder / "logs")
    for result in results:
        name = f"mlf-dnn-seed-{result['seed']}"
        for task in "MTAV":
            assert found[name, f"valid_MAE/{task}"] == [
                (number, pytest.approx(epoch["by_task"][task]))
                for number, epoch in enumerate(result["history"], 1)
            ]
            assert found[name, f"test_Acc-2/{task}"] == [
                (result["epochs"]["best"], pytest.approx(result["test"][task]["Acc-2"]))
            ]
        assert [step for step, _ in found[name, "train/objective"]] == [1, 2]
    # The same command again finds its checkpoints; no epoch is shown twice.
    run_training(store, "mlf-dnn", SEEDS, folder / "run", SETTINGS, log=folder / "logs")
    assert scalars(folder / "logs") == found


def test_a_missing_tensorboard_is_reported_before_training(store, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    from triptych.pipeline.trainer.runs import tensorboard

    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(InputError, match=r"pip install 'triptych\[tensorboard\]'"):
        run_training(store, "lmf", (1,), tmp_path / "run", log=tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []
