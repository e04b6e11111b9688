"""Any stages as text, audio and vision: training, tuning, experiments and prediction read the stages that are named."""

import json

import numpy as np
import pytest
from small_systems import narrow
from synthetic_store import SyntheticStore, make_store

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.runs.checkpoint import read_checkpoint
from triptych.pipeline.trainer.runs.folder import read_run
from triptych.pipeline.trainer.runs.jobs import Job
from triptych.pipeline.trainer.runs.prediction import _predict, load_checkpoints
from triptych.pipeline.trainer.runs.run import run_training

OWN = Streams(text="spoken", audio="speech", vision="appearance")
WIDTHS = {"spoken": 20, "speech": 32, "appearance": 24}


def other_stage(stage: str, rows: np.ndarray) -> Features:
    """Features of a stage that the trainer has never heard of, without any extra arrays."""
    count = len(rows)
    return Features(
        values=rows.astype(np.float32),
        columns=tuple(f"{stage}_{number}" for number in range(rows.shape[1])),
        units=("",) * rows.shape[1],
        times=np.arange(count) / 50,
        valid=np.ones(count, bool),
    )


@pytest.fixture
def store(tmp_path):
    """The usual stages beside three others, whose rows are projections of them."""
    usual = make_store(20, shorter=4, tokens_about=6)
    random = np.random.default_rng(0)
    features = dict(usual.features)
    for (stage, width), source in zip(WIDTHS.items(), ("text", "audio", "vision"), strict=True):
        clips = usual.features[source]
        columns = next(iter(clips.values())).values.shape[1]
        projection = random.normal(size=(columns, width)) / columns**0.5
        features[stage] = {clip: other_stage(stage, rows.values @ projection) for clip, rows in clips.items()}
    store = SyntheticStore(usual.manifest.clips, features)
    store.recipe["fingerprints"] |= {stage: f"{stage}0123456789" for stage in WIDTHS}
    store.folder = tmp_path / "features"
    return store


@pytest.mark.parametrize("name", ["mlf-dnn", "ef-lstm", "mult"])
def test_a_system_trains_and_predicts_on_other_stages(name, store, tmp_path):
    results = run_training(store, name, (1,), tmp_path / "run", narrow(name, max_epochs=1), streams=OWN)
    # Without an alignment none is stored, as in runs of earlier versions.
    stored = {name: stage for name, stage in OWN._asdict().items() if name != "align"}
    assert results["streams"] == read_run(tmp_path / "run")["streams"] == stored
    assert results["vision_backend"] is None
    checkpoint = read_checkpoint(tmp_path / "run" / "seed-1.pt")
    assert checkpoint.origin.streams == OWN
    assert checkpoint.trained.widths == (20, 32, 24)
    data = load(store, sequences=True, streams=OWN)
    sentiments = _predict(load_checkpoints(tmp_path / "run"), store, None)
    expected = checkpoint.trained.predict(data)["M"].clip(-1, 1)
    np.testing.assert_allclose([one.values["M"] for one in sentiments], expected, rtol=1e-5)


def test_one_stage_may_be_replaced_alone(store):
    data = load(store, streams=Streams(audio="speech"))
    assert data.widths == (768, 32, 709)


def test_missing_stages_are_reported_by_their_own_names(store):
    store.features["speech"] = {}
    with pytest.raises(InputError, match="no speech features in this folder"):
        load(store, streams=OWN)


def test_fingerprints_are_checked_on_the_runs_stages_alone(store, tmp_path):
    run_training(store, "lmf", (1,), tmp_path / "run", narrow("lmf", max_epochs=1), streams=OWN)
    checkpoints = load_checkpoints(tmp_path / "run")
    store.recipe["fingerprints"]["audio"] = "another"  # which the run does not read
    assert len(_predict(checkpoints, store, None)) == 20
    store.recipe["fingerprints"]["speech"] = "another"
    with pytest.raises(InputError, match="speech features have fingerprint another"):
        _predict(checkpoints, store, None)


def test_other_streams_are_another_run(store, tmp_path):
    settings = narrow("lmf", max_epochs=1)
    run_training(store, "lmf", (1,), tmp_path / "run", settings, streams=OWN)
    with pytest.raises(InputError, match="other stages as its streams"):
        run_training(store, "lmf", (1,), tmp_path / "run", settings)


def test_experiments_read_and_name_the_streams(store, tmp_path):
    settings = narrow("lmf", max_epochs=1)
    trainings = Trainings.on(store, [settings], tmp_path, 1, lambda *_: None, OWN)
    assert trainings.data.widths == (20, 32, 24)
    assert "fingerprints: spoken spoken01, speech speech01, appearance appearan" in trainings.about
    assert "vision by" not in trainings.about
    trainings.run([Job("lmf", settings, 1)])
    usual = Trainings.on(store, [settings], tmp_path, 1, lambda *_: None)
    assert "vision by facemesh" in usual.about
    usual.run([Job("lmf", settings, 1)])
    results = [json.loads(path.read_bytes()) for path in (tmp_path / "results").iterdir()]
    assert len({one["test"]["M"]["MAE"] for one in results}) == 2  # neither was taken for the other
