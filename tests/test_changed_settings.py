"""Changed settings: what a folder keeps, and how long its old features can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triptych.pipeline.run import extraction as extraction_module
from triptych.pipeline.run.extraction import Extraction, prepare, run, survey
from triptych.pipeline.stages.stored import stored_recipe, superseded_fingerprints
from triptych.pipeline.storage.store import FeatureStore

OTHER = "audio.mfcc_htk=true"


def extract(source: Path, folder: Path, **options: object) -> Extraction:
    return run(prepare(source, folder, only=["audio"], **options), jobs=0)


@pytest.fixture
def features(few_clips: Path, tmp_path: Path) -> Path:
    extract(few_clips, tmp_path / "features")
    return tmp_path / "features"


def fingerprint(folder: Path) -> str:
    return FeatureStore(folder).recipe["fingerprints"]["audio"]


def interrupt_after(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all = extraction_module._results

    def some(*arguments: object):
        for count, lines in enumerate(run_all(*arguments)):
            if count == groups:
                raise KeyboardInterrupt
            yield lines

    monkeypatch.setattr(extraction_module, "_results", some)


def test_old_features_are_read_until_the_new_ones_are_complete(
    features: Path, few_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = FeatureStore(features)
    with monkeypatch.context() as patched:
        interrupt_after(2, patched)
        with pytest.raises(KeyboardInterrupt):
            extract(few_clips, features, assignments=[OTHER])
    halfway = FeatureStore(features)
    assert halfway.ids("audio") == before.ids("audio")
    assert halfway.recipe == before.recipe
    assert survey(features).recipe.audio.mfcc_htk, "the folder's settings are the new ones"
    assert len(survey(features).plan.stages["audio"].done) == 3

    extract(few_clips, features)
    after = FeatureStore(features)
    assert after.ids("audio") == before.ids("audio")
    assert after.recipe["recipe"]["audio"]["mfcc_htk"]
    assert fingerprint(features) != before.recipe["fingerprints"]["audio"]
    assert not superseded_fingerprints(features)


def test_a_second_change_keeps_the_complete_features(features: Path, few_clips: Path, monkeypatch) -> None:
    first = fingerprint(features)
    interrupt_after(1, monkeypatch)
    for change in (OTHER, "audio.first=zcr"):
        with pytest.raises(KeyboardInterrupt):
            extract(few_clips, features, assignments=[change])
        assert fingerprint(features) == first


def test_settings_changed_back_need_no_run(features: Path, few_clips: Path) -> None:
    first = fingerprint(features)
    extract(few_clips, features, assignments=[OTHER])
    back = extract(few_clips, features, assignments=["audio.mfcc_htk=false"])
    assert back.plan.work == ()
    assert fingerprint(features) == first
    assert "superseded" not in json.loads((features / "recipe.json").read_text())


def test_a_limited_run_does_not_replace_what_it_left_out(features: Path, few_clips: Path) -> None:
    first = fingerprint(features)
    extract(few_clips, features, assignments=[OTHER], limit=1)
    assert fingerprint(features) == first
    extract(few_clips, features)
    assert fingerprint(features) != first


def test_new_settings_under_which_every_clip_fails_replace_nothing(features: Path, few_clips: Path) -> None:
    first = fingerprint(features)
    planned = prepare(few_clips, features, only=["audio"], assignments=[OTHER])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "triptych.extractors.audio.features.Audio.extract", lambda self, samples: 1 / 0, raising=True
        )
        result = run(planned, jobs=0)
    assert len(result.plan.stages["audio"].failed) == 4
    assert fingerprint(features) == first


def test_a_named_recipe_keeps_the_folders_model_and_backend(
    few_clips: Path, small_bert: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path / "features"
    assignments = [f"text.model={small_bert}", "vision.backend=facemesh"]
    run(prepare(few_clips, folder, assignments=assignments, only=["text"], limit=1), jobs=0)
    again = prepare(few_clips, folder, recipe="authors-code")
    assert again.recipe.text.model == str(small_bert)
    assert again.recipe.vision.backend == "facemesh"
    assert again.recipe.audio.first == "zcr"
    stored = stored_recipe(folder)
    assert stored is not None
    assert again.fingerprints["text"] == stored["fingerprints"]["text"]


def test_a_dry_run_needs_no_model(few_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    planned = prepare(few_clips, tmp_path / "features", dry_run=True)
    assert len(planned.plan.stages["text"].todo) == 4
    assert len(planned.missing) == 1
    assert "bert-base-chinese" in planned.missing[0]
    assert not (tmp_path / "features").exists()
