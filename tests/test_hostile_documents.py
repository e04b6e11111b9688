"""Recipes, recipe.json and run.json with wrong types, wrong values or deep nesting: one line each, exit code 2."""

from __future__ import annotations

import json
import re
import signal
import sys

import pytest

from triptych.pipeline.assignments import nearest
from triptych.pipeline.cli.main import main
from triptych.pipeline.documents import DEEPEST, read_json, read_toml
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.recipe import Recipe, build_recipe, load_recipe, parse_assignments
from triptych.pipeline.stages.stored import stored_recipe
from triptych.pipeline.trainer.runs.folder import read_run

DEEP = 100_000
FINE = {"recipe": {}, "fingerprints": {}}


@pytest.fixture
def triptych(monkeypatch, capsys):
    """Run the command line in this process; the lines of stderr after exit code 2."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["triptych", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return capsys.readouterr().err.splitlines()

    return run


# -- documents ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [DEEPEST + 1, 500, 5000, DEEP])
def test_deep_documents_are_value_errors(depth):
    for read, text in [
        (read_json, "[" * depth + "]" * depth),
        (read_json, '{"a":' * depth + "1" + "}" * depth),
        (read_json, "[" * depth),
        (read_toml, "a = " + "[" * depth + "]" * depth),
        (read_toml, "a = " + "{a=" * min(depth, 5000) + "1" + "}" * min(depth, 5000)),
        (read_toml, ".".join(["a"] * min(depth + 1, 5000)) + " = 1"),
    ]:
        with pytest.raises(ValueError, match=r"nested deeper than 32 levels|Expecting"):
            read(text)


def test_documents_of_bounded_depth_are_read():
    depth = DEEPEST - 1
    assert read_json("[" * depth + "]" * depth)
    assert read_toml("a = " + "[" * (depth - 1) + "]" * (depth - 1))


# -- recipes --------------------------------------------------------------------------------------------


TOML = {
    "nested": "a = " + "[" * DEEP + "]" * DEEP,
    "dotted": ".".join(["a"] * 3000) + " = 1",
    "a section is a number": "text = 3",
    "a section is a list": "[[text]]\nmax_tokens = 3",
    "a section is a date": "audio = 1979-05-27",
    "a value is a table": "[audio.fmin]\nx = 1",
    "a value is a list": "[audio]\nfmin = [[1]]",
    "stages is a number": "stages = 3",
    "stages has numbers": "stages = [1]",
    "stages is unknown": 'stages = ["vison"]',
    "NaN": "[audio]\nfmax = nan",
    "infinity": "[media]\nmax_seconds = inf",
    "a long number": f"[media]\nmax_pixels = {'9' * 4000}",
    "an unknown name with codes": '["\\u001b[2J"]\n"\\u202e" = 1',
    "not UTF-8": b"\xff\xfe",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", TOML.values(), ids=TOML)
def test_a_wrong_recipe_is_one_line(tmp_path, triptych, content):
    file = tmp_path / "own.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (line,) = triptych("recipes", file)
    assert line.startswith(f"error: {file}: ")
    assert line.isprintable()
    assert len(line) < 1000


def test_a_deep_setting_of_the_command_line_is_one_line(tmp_path, triptych):
    (line,) = triptych("models", "pull", "--set", f"audio.fmin={'[' * 2000}{']' * 2000}")
    assert "audio.fmin = '[[[" in line
    assert len(line) < 400


# -- bounds ---------------------------------------------------------------------------------------------


def bounded_settings():
    """Every setting that is a number."""
    for section, field in Recipe.model_fields.items():
        for name, setting in getattr(field.annotation, "model_fields", {}).items():
            if setting.annotation in (int, float):
                yield f"{section}.{name}"


@pytest.mark.parametrize("setting", list(bounded_settings()))
@pytest.mark.parametrize("value", ["-1e9", "1e12", "nan", "inf", "-inf", "true", '"x"', "[]", "{}"])
def test_every_number_has_a_lower_and_an_upper_bound(setting, value):
    if (value, setting) == ("-1e9", "speech.layer"):
        value = "-65"
    with pytest.raises(InputError, match=re.escape(setting)):
        build_recipe(parse_assignments([f"{setting}={value}"]))


@pytest.mark.parametrize(
    ("setting", "inside", "outside"),
    [
        ("media.frame_rate", (0.1, 240), (1e-9, 241)),
        ("media.max_pixels", (1, 2**28), (0, 2**28 + 1)),
        ("audio.hop_length", (32, 8192), (1, 8193)),
        ("audio.fmin", (10, 499), (1e-3, 2001)),
        ("audio.fmax", (61, 8000), (19, 8001)),
        ("audio.frame_length", (256, 16384), (255, 10**9)),
        ("faces.min_face", (12, 640), (11, 641)),
        ("faces.keyframe_every", (1, 1000), (0, 10**9)),
        ("vision.average", (1, 1000), (0, 10**9)),
        ("appearance.rate", (0.1, 240), (1e-9, 241)),
    ],
)
def test_bounds(setting, inside, outside):
    for value in inside:
        build_recipe(parse_assignments([f"{setting}={value}"]))
    for value in outside:
        with pytest.raises(InputError, match=setting):
            build_recipe(parse_assignments([f"{setting}={value}"]))


# -- the nearest name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unknown", "valid"),
    [
        ("audio.sample_rat", "media.sample_rate"),
        ("audio.sample_rate", "media.sample_rate"),
        ("vision.backnd", "vision.backend"),
        ("text.max_token", "text.max_tokens"),
        ("faces.runtim", "faces.runtime"),
        ("media.min_faces", "faces.min_face"),
        ("vison", "vision"),
        ("vison.backend", "vision"),
        ("stage", "stages"),
    ],
)
def test_an_unknown_setting_names_the_nearest_one(unknown, valid):
    section, _, name = unknown.partition(".")
    with pytest.raises(InputError) as caught:
        build_recipe({section: {name: 1} if name else 1})
    assert f"{section}" in str(caught.value)
    assert str(caught.value).endswith(f"Did you mean {valid}?")


def test_a_name_like_no_setting_gets_no_suggestion():
    with pytest.raises(InputError) as caught:
        build_recipe({"audio": {"zzzzzz": 1}})
    assert "Did you mean" not in str(caught.value)
    assert nearest("zzzzzz", ["audio.fmin"]) == ""


def test_the_command_line_names_the_nearest_setting(triptych):
    (line,) = triptych("models", "pull", "--set", "audio.sample_rat=16000")
    assert line.endswith("Did you mean media.sample_rate?")


# -- recipe.json ----------------------------------------------------------------------------------------

STORED = {
    "a number": 3,
    "a list": [],
    "null": None,
    "recipe is a list": {**FINE, "recipe": [["text", {}]]},
    "recipe is null": {**FINE, "recipe": None},
    "a section is a number": {**FINE, "recipe": {"text": 3}},
    "media is a list": {**FINE, "recipe": {"media": []}},
    "imported is text": {**FINE, "recipe": {"imported": "x"}},
    "imported has no file": {**FINE, "recipe": {"imported": {}}},
    "imported from a number": {**FINE, "recipe": {"imported": {"file": 3}}},
    "fingerprints is a list": {**FINE, "fingerprints": []},
    "a fingerprint is a list": {**FINE, "fingerprints": {"text": ["x"]}},
    "a fingerprint is null": {**FINE, "fingerprints": {"audio": None}},
    "superseded is a list": {**FINE, "superseded": []},
    "superseded has a number": {**FINE, "superseded": {"text": 3}},
    "superseded without settings": {**FINE, "superseded": {"text": {"fingerprint": "x"}}},
    "superseded by a number": {**FINE, "superseded": {"text": {"fingerprint": 3, "settings": {}}}},
}


@pytest.mark.parametrize("content", STORED.values(), ids=STORED)
def test_a_recipe_json_of_wrong_types_is_one_line(tmp_path, content, triptych):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(content))
    (tmp_path / "manifest.csv").write_text("id,path\na,a.mp4\n")
    with pytest.raises(InputError, match=re.escape(str(file))):
        stored_recipe(tmp_path)
    for command in ("status", "verify"):
        (line,) = triptych(command, tmp_path)
        assert line.startswith(f"error: {file}: ")


@pytest.mark.parametrize(
    "content", ["[" * DEEP, '{"a":' * DEEP, "[" * 500 + "]" * 500, "9" * 10**5, '"\\ud800', "NaN"]
)
def test_a_recipe_json_that_cannot_be_parsed_is_one_line(tmp_path, content, triptych):
    (tmp_path / "recipe.json").write_text(content)
    (line,) = triptych("verify", tmp_path)
    assert line.startswith(f"error: {tmp_path / 'recipe.json'}: ")


@pytest.mark.parametrize(
    "setting", [{"max_tokens": "x"}, {"max_tokens": 10**9}, {"model": None}, {"more": 1}]
)
def test_a_wrong_setting_in_recipe_json_is_one_line(tmp_path, triptych, setting):
    (tmp_path / "recipe.json").write_text(json.dumps({**FINE, "recipe": {"text": setting}}))
    (tmp_path / "manifest.csv").write_text("id,path\na,a.mp4\n")
    (line,) = triptych("status", tmp_path)
    assert line.startswith(f"error: {tmp_path / 'recipe.json'}: text.{next(iter(setting))}")


# -- run.json -------------------------------------------------------------------------------------------

RUN = {"model": "lmf", "settings": {}, "seeds": [1], "features": FINE, "streams": {}, "label_range": [-1, 1]}
WRONG = {
    "model": [3, None, []],
    "settings": [3, [], None],
    "seeds": [3, [], ["x"], {}, None],
    "features": [{}, [], {"recipe": 3, "fingerprints": {}}, {"recipe": {}, "fingerprints": {"text": 3}}],
    "streams": [[], {"text": 3}],
    "label_range": [3, [], [1], [1, 1], [3, -3], ["a", "b"], [1, 2, 3], [float("nan"), 1]],
}


def test_a_run_json_is_read(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    assert read_run(tmp_path) == RUN


@pytest.mark.parametrize(
    ("part", "value"), [(part, value) for part, values in WRONG.items() for value in values]
)
def test_a_run_json_of_wrong_types_is_one_line(tmp_path, triptych, part, value):
    (tmp_path / "run.json").write_text(json.dumps({**RUN, part: value}))
    (tmp_path / "seed-1.pt").touch()
    (line,) = triptych("predict", tmp_path, tmp_path)
    assert f"{tmp_path}/run.json: missing or damaged" in line


@pytest.mark.parametrize("content", ["[" * DEEP, "3", "[]", "{}", ""])
def test_a_run_json_that_cannot_be_parsed_is_one_line(tmp_path, triptych, content):
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "seed-1.pt").touch()
    (line,) = triptych("predict", tmp_path, tmp_path)
    assert "run.json: missing or damaged" in line


@pytest.mark.parametrize(
    "content", ["[" * DEEP, "3", "[]", "{}", '{"family": []}', '{"family": "\\u001b[2J"}']
)
def test_settings_of_a_system_that_are_wrong_are_one_line(tmp_path, content):
    from triptych.pipeline.trainer.systems import read_settings

    file = tmp_path / "lmf.json"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_settings(file)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: ")
    assert problem.isprintable()


def test_load_recipe_without_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a named recipe"):
        load_recipe(str(tmp_path))
