"""Manifests, recipes, recipe.json and run.json: read, or refused with printable lines of bounded length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st
from timebox import ANYTHING, EDITS, changed, edited, fuzz

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import escaped, has_control
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import load_transcripts
from triptych.pipeline.stages.recipe import Recipe, build_recipe, load_recipe, parse_assignments, to_toml
from triptych.pipeline.stages.stored import foreign_stages, stored_recipe, superseded_fingerprints
from triptych.pipeline.trainer.runs.folder import read_run

pytestmark = pytest.mark.fuzz

CLIPS = [
    {"id": "a$_$1", "path": "a/1.mp4", "text": "你好", "split": "train", "label": 0.4, "label_T": None},
    {"video_id": "b", "clip_id": "0002", "path": "b/2.mp4", "text": '好 "x", y', "label": -1, "root": "."},
    {"path": "c/3.mp4", "label_range": "-1 1"},
]
CSV = '\ufeffid,path,text,split,label,label_T\na,a.mp4,你好,train,0.4,\nb,b/b.mp4,"x, ""y""\nz",,-1,1\n'
TSV = "video_id\tclip_id\ttext\tlabel\nv\t0001\t好\t0.2\n"


def refused_well(error: InputError) -> None:
    assert error.problems
    for problem in error.problems:
        shown = escaped(problem)
        assert "\n" not in shown
        assert len(shown) < 3000


def read_manifest(path: Path) -> None:
    try:
        found = load_manifest(path, check_files=False)
        load_transcripts(path)
    except InputError as error:
        refused_well(error)
    else:
        ids = [clip.id for clip in found.clips]
        assert len(set(ids)) == len(ids)
        assert not any(map(has_control, ids))


@pytest.mark.parametrize("kind", ["m.csv", "m.tsv", "m.jsonl"])
def test_manifests_of_changed_bytes(tmp_path, kind):
    original = {
        "m.csv": CSV.encode(),
        "m.tsv": TSV.encode("utf-16"),
        "m.jsonl": "\n".join(map(json.dumps, CLIPS)).encode(),
    }[kind]
    path = tmp_path / kind

    def check(data):
        path.write_bytes(data)
        read_manifest(path)

    fuzz(check, EDITS.map(lambda edits: edited(original, edits)) | st.binary(max_size=200))


def test_manifests_of_changed_rows(tmp_path):
    path = tmp_path / "m.jsonl"

    def check(rows):
        lines = rows if isinstance(rows, list) else [rows]
        path.write_text("\n".join(map(json.dumps, lines)))
        read_manifest(path)

    fuzz(check, changed(CLIPS))


def test_recipes_of_changed_text(tmp_path):
    path, original = tmp_path / "own.toml", to_toml(Recipe()).encode()

    def check(edits):
        path.write_bytes(edited(original, edits))
        try:
            build_recipe(load_recipe(str(path)), where=str(path))
        except InputError as error:
            refused_well(error)

    fuzz(check, EDITS)


def test_recipes_of_changed_settings():
    def check(document, text):
        try:
            build_recipe(
                document if isinstance(document, dict) else {}, parse_assignments([f"audio.fmin={text}"])
            )
        except InputError as error:
            refused_well(error)

    fuzz(check, changed(Recipe().model_dump(mode="json")), st.text(max_size=12))


def test_recipe_json_of_changed_parts(tmp_path):
    path = tmp_path / "recipe.json"
    recipe = Recipe().model_dump(mode="json")
    prints = {"text": "a" * 64, "audio": "b" * 64, "other": "c" * 64}
    old = {"audio": {"fingerprint": "d" * 64, "settings": recipe["audio"]}}
    document = {"recipe": recipe, "fingerprints": prints, "superseded": old}

    def check(document, edits):
        data = json.dumps(document).encode()
        path.write_bytes(edited(data, edits))
        try:
            found = stored_recipe(tmp_path)
            foreign_stages(tmp_path)
            superseded_fingerprints(tmp_path)
            build_recipe(found["recipe"], where=str(path))
        except InputError as error:
            refused_well(error)

    fuzz(check, changed(document), st.just([]) | EDITS)


def test_run_json_of_changed_parts(tmp_path):
    path = tmp_path / "run.json"
    run = {"model": "lmf", "settings": {"family": "lmf"}, "seeds": [1, 12], "streams": {"text": "text"}}
    run |= {"features": {"recipe": {}, "fingerprints": {"text": "a"}}, "label_range": [-1, 1]}

    def check(document):
        path.write_text(json.dumps(document))
        try:
            found = read_run(tmp_path)
        except InputError as error:
            refused_well(error)
        else:
            low, high = found.get("label_range", (-1, 1))
            assert float(low) < float(high)
            assert all(int(seed) == seed for seed in map(float, found["seeds"]))
            dict(found["features"]["recipe"])

    fuzz(check, changed(run) | ANYTHING)
