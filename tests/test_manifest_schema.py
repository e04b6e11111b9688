"""The JSON schema of a manifest row agrees with the reader; the example manifest is read."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from manifest_cases import (
    ID,
    MANIFESTS,
    NAME,
    TEXT,
    any_pace,
    clip,
    problems_of,
    touch,
    write,
)

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.loading import load_manifest

SCHEMA = json.loads((MANIFESTS / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

ANY_CASE = st.sampled_from(["train", "valid", "test"]).flatmap(
    lambda word: st.tuples(*(st.sampled_from([letter, letter.upper()]) for letter in word)).map("".join)
)
PATH = st.lists(NAME | st.sampled_from(["", ".", "...", "a.mp4"]), min_size=1, max_size=4).map(
    lambda parts: "/".join(parts).lstrip("/")
)
VALID = {
    "id": ID | st.sampled_from([".", ".."]),
    "path": PATH.filter(lambda path: set(path.split("/")) - {"", "."}),
    "text": TEXT | st.none(),
    "split": ANY_CASE | st.none(),
    **dict.fromkeys(
        ["label", "label_T", "label_A", "label_V"], st.floats(-1, 1) | st.integers(-1, 1) | st.none()
    ),
    "root": TEXT.filter(bool) | st.none(),
    "start": st.floats(0, 5) | st.none(),
    "end": st.floats(6, 1e5) | st.integers(6, 100) | st.none(),
    "face": st.sampled_from(["0.3 0.4", "0 1", "1.0 .5"]) | st.none(),
    "text_source": ID.filter(bool) | st.none(),
    "text_confidence": st.floats(0, 1) | st.none(),
    "other": st.none() | st.integers(),
}
OTHERS = {name: values for name, values in VALID.items() if name not in ("path", "id")}
NAMED = (
    st.lists(ID, min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda path: not {*path.split("/")} & {".", ".."})
)
VALID_ROW = st.fixed_dictionaries({"path": VALID["path"], "id": VALID["id"]}, optional=OTHERS) | (
    st.fixed_dictionaries({"path": NAMED}, optional=OTHERS)
)
# Close to valid values, so that valid and invalid rows both occur.
NEAR = st.one_of(
    st.text(st.sampled_from("./\0\n a\ud800"), max_size=4),
    st.sampled_from(
        [
            "val",
            "Train",
            "train\n",
            " train",
            "teſt",
            "0.5",
            "",
            "..\n",
            "a/..",
            "../a",
            "a/../b",
            "...",
            ".",
            "a/.",
        ]
    ),
    st.floats(allow_nan=False),
    st.integers(-2, 2),
    st.booleans(),
    st.none(),
    st.lists(st.none(), max_size=1),
    st.dictionaries(TEXT, st.none(), max_size=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("manifests")


def is_read(folder: Path, line: str) -> bool:
    try:
        return len(load_manifest(write(folder / "row.jsonl", line), check_files=False).clips) == 1
    except InputError:
        return False


def test_schema_is_valid_and_complete():
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == {name for name in VALID if name != "other"} | {
        "video_id",
        "clip_id",
        "label_range",
    }


@any_pace
@given(VALID_ROW)
def test_reader_reads_every_row_valid_under_the_schema(folder, row):
    VALIDATOR.validate(row)
    assert is_read(folder, json.dumps(row))


@any_pace
@given(VALID_ROW, st.sampled_from([*VALID, "video_id", "clip_id"]), NEAR)
@example({"path": "a"}, "path", "..\n")
@example({"path": "a"}, "path", ".")
@example({"path": "a"}, "path", "a/..")
@example({"path": "a"}, "split", "train\n")
@example({"path": "a"}, "label", float("inf"))
@example({"path": "a"}, "label", -1.0000000000000002)
def test_reader_and_schema_agree_on_changed_values(folder, row, name, value):
    line = json.dumps({**row, name: value}, allow_nan=True).replace("Infinity", "1e999")
    changed = json.loads(line)
    path = changed.get("path")
    if isinstance(path, str) and path.startswith("/"):
        return  # a schema cannot check whether it is under the root
    assert is_read(folder, line) == VALIDATOR.is_valid(changed)


@pytest.mark.parametrize(
    ("row", "valid"),
    [
        ({"path": "v/1.mp4"}, True),
        ({"path": "v/1.mp4", "id": "a"}, True),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": "0001"}, True),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": "0001", "id": "v$_$0001"}, True),
        ({"path": "v/1.mp4", "text": "", "split": "VALID", "label": 1, "label_T": -1.0, "extra": []}, True),
        ({"path": "v/1.mp4", "text": None, "split": None, "label": None, "root": None}, True),
        ({"path": "1.mp4", "root": "v"}, True),
        ({"path": "./v//1.mp4"}, True),
        ({}, False),
        ({"path": ""}, False),
        ({"path": "."}, False),
        ({"path": "/"}, False),
        ({"path": "v/.."}, False),
        ({"path": "v/../v/1.mp4"}, False),
        ({"path": "v/1.mp4\0"}, False),
        ({"path": None}, False),
        ({"path": "v/1.mp4", "video_id": "v"}, False),
        ({"path": "v/1.mp4", "clip_id": "1"}, False),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": 1}, False),
        ({"path": "v/1.mp4", "id": None}, False),
        ({"path": "v/1.mp4", "id": ""}, False),
        ({"path": "v/1.mp4", "id": "a/b"}, False),
        ({"path": "v/1.mp4", "root": ""}, False),
        ({"path": "v/1.mp4", "split": "dev"}, False),
        ({"path": "v/1.mp4", "split": ""}, False),
        ({"path": "v/1.mp4", "label": 1.5}, False),
        ({"path": "v/1.mp4", "label": "1"}, False),
        ({"path": "v/1.mp4", "label": False}, False),
        ([], False),
        ("path", False),
        (None, False),
    ],
)
def test_reader_and_schema_agree_on_chosen_rows(tmp_path, row, valid):
    touch(tmp_path, "v/1.mp4")
    assert VALIDATOR.is_valid(row) == valid
    file = write(tmp_path / "m.jsonl", json.dumps(row))
    if valid:
        assert len(load_manifest(file).clips) == 1
    else:
        problems_of(file)


def test_example_manifest_is_read(tmp_path):
    shutil.copy(MANIFESTS / "demo.csv", tmp_path)
    with (tmp_path / "demo.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    touch(tmp_path, *(row["path"] for row in rows))
    clips = load_manifest(tmp_path / "demo.csv").clips
    assert [clip.id for clip in clips] == [row["id"] for row in rows]
    assert clips[1].text == '他说："明天再来吧"，然后就走了。'
    assert clips[-1] == clip("demo_001$_$0002", "Raw/demo_001/0002.mp4", root=str(tmp_path))


def test_manifest_readme_describes_every_column():
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Columns")[2].partition("\n\nIds")[0]
    assert all(f"`{name}`" in table for name in SCHEMA["properties"])
