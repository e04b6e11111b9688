"""Recipes: layers of settings, all errors reported at once, and TOML that is read back unchanged."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.recipe import (
    NAMED,
    Recipe,
    build_recipe,
    load_recipe,
    parse_assignments,
    to_toml,
)


@pytest.mark.parametrize("name", NAMED)
def test_a_printed_recipe_is_read_back_unchanged(name: str, tmp_path: Path) -> None:
    recipe = build_recipe(load_recipe(name))
    file = tmp_path / "own.toml"
    file.write_text(to_toml(recipe), encoding="utf-8")
    assert build_recipe(load_recipe(str(file))) == recipe


def test_every_setting_is_printed_with_its_description() -> None:
    for line in to_toml(Recipe()).splitlines():
        if " = " in line:
            assert len(line.partition("  # ")[2]) > 5, line


def test_later_layers_win_and_leave_the_rest() -> None:
    recipe = build_recipe(
        load_recipe("authors-code"), parse_assignments(["vision.average=1", "audio.fmin=70"])
    )
    assert recipe.vision.average == 1
    assert recipe.vision.drop_invalid is True
    assert (recipe.audio.fmin, recipe.audio.first) == (70.0, "zcr")


def test_values_are_toml_or_else_plain_text() -> None:
    parsed = parse_assignments(
        ["vision.drop_invalid=true", "audio.fmax=400", "text.model=C:/a=b", "vision.backend=facemesh"]
    )
    assert parsed == {
        "vision": {"drop_invalid": True, "backend": "facemesh"},
        "audio": {"fmax": 400},
        "text": {"model": "C:/a=b"},
    }


def test_a_revision_belongs_to_its_model() -> None:
    default = Recipe().text
    assert build_recipe({}).text.revision == default.revision
    assert build_recipe({"text": {"model": "other/model"}}).text.revision == ""
    assert build_recipe({"text": {"model": "other/model", "revision": "abc"}}).text.revision == "abc"
    unchanged = build_recipe(
        {"text": {"model": "other/model", "revision": "abc"}}, {"text": {"model": "other/model"}}
    )
    assert unchanged.text.revision == "abc"
    assert build_recipe({"text": {"max_tokens": 128}}, {"text": {"model": "x/y"}}).text.max_tokens == 128
    back = build_recipe(
        {"text": {"model": "other/model", "revision": "abc"}}, {"text": {"model": default.model}}
    )
    assert back.text == default


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        build_recipe({"vison": {}, "vision": {"backnd": 1, "average": 0}, "audio": {"fmin": 600}})
    text = str(caught.value)
    with pytest.raises(InputError, match="text = 1"):
        build_recipe({"text": 1}, {"text": {"max_tokens": 5}})
    assert len(caught.value.problems) == 4
    assert "vison: unknown setting; choose from stages, media, text, audio, faces, vision" in text
    assert "vision.backnd: unknown setting; choose from backend" in text
    assert "vision.average = 0" in text
    assert "fmin (600.0) must be below fmax (500.0)" in text


@pytest.mark.parametrize("assignment", ["vision", "vision.backend", "backend=1", ".x=1", "vision.=1"])
def test_malformed_assignments_are_refused(assignment: str) -> None:
    with pytest.raises(InputError, match=r"expected SECTION\.NAME=VALUE"):
        parse_assignments([assignment])


def test_unknown_and_broken_recipe_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a named recipe \(paper, authors-code\)"):
        load_recipe("papr")
    broken = tmp_path / "broken.toml"
    broken.write_text("[vision\nx", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.toml: not valid TOML"):
        load_recipe(str(broken))
    assert tomllib.loads(to_toml(Recipe()))["audio"]["fmax"] == 500.0
