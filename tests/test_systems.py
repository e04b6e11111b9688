"""The registry of systems: names without torch, systems of other distributions, and objectives of their own."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from small_systems import narrow
from synthetic_store import make_store

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer import systems
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.experiments import tables
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.runs import jobs
from triptych.pipeline.trainer.runs.checkpoint import load_checkpoint
from triptych.pipeline.trainer.runs.prediction import _predict, load_checkpoints
from triptych.pipeline.trainer.runs.run import run_training
from triptych.pipeline.trainer.settings import SystemSettings
from triptych.pipeline.trainer.systems import SYSTEMS, register_model, settings_from, source_digest
from triptych.pipeline.trainer.training import train

NINE = ["ef-lstm", "mfn", "mult", "lf-dnn", "mlf-dnn", "tfn", "mtfn", "lmf", "mlmf"]


@pytest.fixture(scope="module")
def store():
    return make_store(20, shorter=4)


@pytest.fixture
def registry(monkeypatch):
    """The registry, restored at the end of a test; the toy's file counts as not imported."""
    for name in NINE:
        SYSTEMS[name]
    monkeypatch.setattr(systems, "_FAMILIES", dict(systems._FAMILIES))
    monkeypatch.delitem(sys.modules, "toy_system", raising=False)
    return systems._FAMILIES


@pytest.fixture
def installed(registry, monkeypatch):
    """The toy as an installed distribution: its entry point is found, its file is not imported yet."""
    entry = importlib.metadata.EntryPoint("toy", "toy_system", systems.GROUP)
    found = {systems.GROUP: [entry]}
    monkeypatch.setattr(systems, "entry_points", lambda group: found[group])
    return found[systems.GROUP]


def test_names_are_listed_without_torch_or_numpy():
    code = (
        "import sys; from triptych.pipeline.trainer.settings import SEEDS; "
        "from triptych.pipeline.trainer.systems import SYSTEMS; "
        "print(*SYSTEMS, {'torch', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == [*NINE, "set()"]


def test_built_in_files_register_their_listed_systems():
    for module, names in systems.BUILT_IN.items():
        importlib.import_module(f"{systems.PACKAGE}.{module}")
        families = [f for f in systems._FAMILIES.values() if f.network.__module__.endswith(f".{module}")]
        assert [name for family in families for name in family.systems] == list(names)
    folder = Path(importlib.import_module(systems.PACKAGE).__file__).parent
    registering = {path.stem for path in folder.glob("*.py") if "@register_model" in path.read_text()}
    assert registering == set(systems.BUILT_IN)


def test_every_settings_class_comes_back_from_its_values():
    for name in NINE:
        assert settings_from(SYSTEMS[name].model_dump(mode="json"), name) == SYSTEMS[name]
    with pytest.raises(InputError, match="f: family 'none' is unknown; installed families are early-fusion"):
        settings_from({"family": "none"}, "f")
    with pytest.raises(InputError, match="f: rank: "):
        settings_from(SYSTEMS["lmf"].model_dump() | {"rank": 0}, "f")


def test_settings_of_an_unregistered_class_are_refused():
    plain = SystemSettings(task_weights={"M": 1.0}, weight_decay=0, learning_rate=1e-3, batch_size=2)
    with pytest.raises(TypeError, match="SystemSettings"):
        systems.build(plain, (5, 4, 6), 7)


def test_an_entry_point_adds_a_system_without_an_import(installed):
    assert list(SYSTEMS) == [*NINE, "toy"]
    assert "toy" in SYSTEMS
    assert "toy_system" not in sys.modules
    assert SYSTEMS["toy"].family == "toy"
    assert "toy_system" in sys.modules
    assert systems.title_of("toy") == "Toy"


def test_an_entry_point_never_replaces_a_built_in_system(installed):
    installed.append(importlib.metadata.EntryPoint("lmf", "toy_system", systems.GROUP))
    assert list(SYSTEMS) == [*NINE, "toy"]
    assert SYSTEMS["lmf"].family == "low-rank"


def test_broken_entry_points_are_clear_errors(installed):
    installed[:] = [importlib.metadata.EntryPoint("toy", "no_such_module", systems.GROUP)]
    with pytest.raises(InputError, match=r"system toy: .* cannot be imported"):
        SYSTEMS["toy"]
    assert SYSTEMS["lmf"].rank == 4  # the others are usable
    installed[:] = [importlib.metadata.EntryPoint("other", "toy_system", systems.GROUP)]
    with pytest.raises(InputError, match="registers no system of this name"):
        SYSTEMS["other"]


def test_names_cannot_be_registered_twice(registry):
    class Family(SystemSettings):
        family: Literal["low-rank"] = "low-rank"

    class Other(SystemSettings):
        family: Literal["other"] = "other"

    class Nameless(SystemSettings):
        pass

    with pytest.raises(ValueError, match="family 'low-rank' is registered"):
        register_model(Family)(type("Network", (), {}))
    with pytest.raises(ValueError, match="system 'lmf' is registered"):
        register_model(Other, {"lmf": SYSTEMS["lmf"]})(type("Network", (), {}))
    with pytest.raises(ValueError, match="needs a field family"):
        register_model(Nameless)(type("Network", (), {}))


def test_a_system_with_pseudo_labels_trains_and_predicts(installed, store, tmp_path):
    """Its pseudo-labels are of the training clips, follow early stopping, and are part of the checkpoint."""
    run_training(store, "toy", (1, 12), tmp_path)
    data = load(store)
    trained = train(data, SYSTEMS["toy"], 1, data.split("train"), data.split("valid"))
    restored = load_checkpoint(tmp_path / "seed-1.pt")
    labels = dict(zip(data.ids, data.labels[:, 0], strict=True))
    assert set(restored.model.pseudo) == {data.ids[row] for row in data.split("train")}
    assert restored.model.pseudo == trained.model.pseudo
    assert all(value != labels[clip] for clip, value in restored.model.pseudo.items())
    np.testing.assert_array_equal(restored.predict(data)["M"], trained.predict(data)["M"])
    store.folder = "F"
    sentiments = _predict(load_checkpoints(tmp_path), store, None)
    expected = np.mean(
        [load_checkpoint(tmp_path / f"seed-{s}.pt").predict(data)["M"] for s in (1, 12)], axis=0
    )
    np.testing.assert_allclose([one.values["M"] for one in sentiments], expected.clip(-1, 1), rtol=1e-6)


def test_pseudo_labels_change_the_training(installed, store):
    data = load(store)
    losses = [
        train(
            data,
            SYSTEMS["toy"].model_copy(update={"momentum": momentum}),
            1,
            data.split("train"),
            data.split("valid"),
        ).history
        for momentum in (0.0, 1.0)
    ]
    assert losses[0][0] == losses[1][0]  # the first epoch's pseudo-labels are the labels
    assert losses[0][2] != losses[1][2]


def test_pseudo_labels_are_those_of_the_best_epoch(installed, store, monkeypatch):
    data = load(store)
    SYSTEMS["toy"]
    toy = sys.modules["toy_system"].Toy
    by_epoch, end_epoch = [], toy.end_epoch
    monkeypatch.setattr(
        toy, "end_epoch", lambda self, epoch: (end_epoch(self, epoch), by_epoch.append(dict(self.pseudo)))
    )
    wild = SYSTEMS["toy"].model_copy(update={"learning_rate": 0.5, "max_epochs": 12, "patience": 12})
    trained = train(data, wild, 1, data.split("train"), data.split("valid"))
    assert trained.best_epoch < len(by_epoch)
    assert trained.model.pseudo == by_epoch[trained.best_epoch - 1]
    assert trained.model.pseudo != by_epoch[-1]


def test_a_batch_comes_with_its_clips_own_labels(installed, store):
    data = load(store)
    seen = []
    SYSTEMS["toy"]
    toy = sys.modules["toy_system"].Toy

    class Recorder(toy):
        def objective(self, outputs, targets):
            seen.append(targets)
            return super().objective(outputs, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            systems._FAMILIES,
            "toy",
            systems.Family(type(SYSTEMS["toy"]), Recorder, {"toy": SYSTEMS["toy"]}),
        )
        train(data, SYSTEMS["toy"], 1, data.split("train"), data.split("valid"))
    labels = dict(zip(data.ids, data.labels, strict=True))
    assert [targets.epoch for targets in seen] == [1, 1, 1, 2, 2, 2, 3, 3, 3]  # 12 clips: 5, 5 and 2
    for targets in seen:
        np.testing.assert_array_equal(targets.labels.numpy(), [labels[clip] for clip in targets.ids])


def test_the_file_of_an_external_system_is_part_of_the_key(installed, tmp_path, monkeypatch):
    settings = SYSTEMS["toy"]
    job = jobs.Job("toy", settings, 1)
    before = jobs._key(job, "data")
    changed = tmp_path / "toy_system.py"
    changed.write_text(Path(sys.modules["toy_system"].__file__).read_text() + "# changed\n")
    monkeypatch.setattr(systems.inspect, "getsourcefile", lambda network: str(changed))
    source_digest.cache_clear()
    assert jobs._key(job, "data") != before
    monkeypatch.setattr(systems.inspect, "getsourcefile", lambda network: None)
    source_digest.cache_clear()
    with pytest.raises(InputError, match="define the system in a Python file"):
        jobs._key(job, "data")
    source_digest.cache_clear()
    assert source_digest(type(SYSTEMS["lmf"])) == ""  # covered by the trainer's own code digest


def test_table2_has_every_registered_system(installed, store, tmp_path, monkeypatch):
    small = {"mlf-dnn": narrow("mlf-dnn", max_epochs=1), "toy": SYSTEMS["toy"]}
    monkeypatch.setattr(tables, "SYSTEMS", small)
    document = tables.table2(Trainings(load(store), "made up", tmp_path, 1), (1,))
    named = [row[0] for row in document.tables[0][1].rows if row[1] == "ours"]
    assert named == ["MLF-DNN", "Toy"]


def test_expensive_systems_are_trained_first(installed, store, tmp_path):
    order = []
    todo = [
        jobs.Job("lmf", narrow("lmf", max_epochs=1), 1),
        jobs.Job("mfn", narrow("mfn", max_epochs=1), 1),
        jobs.Job("toy", SYSTEMS["toy"], 1),
    ]
    results = jobs.run_jobs(
        todo, load(store, sequences=True), tmp_path, 1, lambda job, *_: order.append(job.name)
    )
    assert order == ["toy", "mfn", "lmf"]
    assert [one["name"] for one in results] == ["lmf", "mfn", "toy"]
