"""Fingerprints: what changes them, what does not; and the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from triptych.extractors import registry
from triptych.extractors.vision.openface import program
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.fingerprints import fingerprints, resolve
from triptych.pipeline.stages.graph import with_upstream
from triptych.pipeline.stages.recipe import Recipe, build_recipe

ALL = {"text", "audio", "faces", "vision"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"text": {"max_tokens": 64}}, {"text"}),
        ({"text": {"model": "other/model"}}, {"text"}),
        ({"audio": {"fmin": 70}}, {"audio"}),
        ({"media": {"sample_rate": 16000}}, {"audio"}),
        ({"media": {"frame_rate": 25}}, {"faces", "vision"}),
        ({"faces": {"min_score": 0.9}}, {"faces", "vision"}),
        ({"vision": {"input": "frame"}}, {"vision"}),
        ({"vision": {"backend": "facemesh"}}, {"vision"}),
    ],
)
def test_a_setting_changes_its_stage_and_those_downstream(change: dict, changed: set[str]) -> None:
    before, after = fingerprints(Recipe()), fingerprints(build_recipe(change))
    assert {name for name in ALL if before[name] != after[name]} == changed


def test_a_local_models_path_is_not_in_the_fingerprint(tmp_path: Path) -> None:
    prints = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        prints.append(fingerprints(build_recipe({"text": {"model": str(folder)}})))
    assert prints[0] == prints[1]
    (folder / "config.json").write_text("{ }")
    assert fingerprints(build_recipe({"text": {"model": str(folder)}}))["text"] != prints[0]["text"]


def test_code_versions_are_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints(Recipe())
    stages = dict(registry.stages())
    stages["faces"] = replace(stages["faces"], version=stages["faces"].version + 1)
    monkeypatch.setattr("triptych.pipeline.stages.fingerprints.stages", lambda: stages)
    after = fingerprints(Recipe())
    assert {name for name in ALL if before[name] != after[name]} == {"faces", "vision"}


def test_upstream_stages_are_added_in_order() -> None:
    assert with_upstream(["vision", "text"]) == ("text", "faces", "vision")
    assert with_upstream(["audio"]) == ("audio",)


def test_a_missing_openface_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENFACE_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    assert program.find() is None
    recipe = build_recipe({"vision": {"backend": "openface"}})
    with pytest.raises(InputError, match=r"OPENFACE_BIN.*--set vision\.backend=facemesh"):
        resolve(recipe, ["vision"])
    assert resolve(recipe, ["audio"]) == recipe


def test_auto_is_resolved_to_the_installed_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.delenv("OPENFACE_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    assert resolve(Recipe(), ["vision"]).vision.backend == "facemesh"
