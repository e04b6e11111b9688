"""The vision stage as OpenFace's CSV: what OpenFace wrote, read into features and exported again."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from feature_folder import make_folder

from triptych.extractors.base import Features
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.openface.table import read_table
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.openface_csv import export_openface_csv, write_openface_csv
from triptych.pipeline.storage.store import FeatureStore


def call(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)])


def features_of(file: Path, times: np.ndarray) -> Features:
    """The features that the vision stage makes of OpenFace's table."""
    table = read_table(file)
    names, units = zip(*VISION_COLUMNS, strict=True)
    values = np.where(table.success[:, None], table.values, 0).astype(np.float32)
    return Features(values, names, units, times, table.success, {"confidence": table.confidence})


REAL = [("default.csv", 15.0), ("changeLighting.csv", 15.0), ("clips/liveportrait_0024.csv.gz", 30.0)]


@pytest.mark.parametrize(("name", "rate"), REAL, ids=[name for name, _ in REAL])
def test_openface_output_is_written_again_as_it_was(test_data, tmp_path, name, rate):
    source = test_data / "openface" / name
    file = tmp_path / "real.csv"
    if name.endswith(".gz"):
        file.write_bytes(gzip.decompress(source.read_bytes()))
    else:
        shutil.copy(source, file)
    times = np.array([float(line.split(",")[2]) for line in file.read_text().splitlines()[1:]])
    write_openface_csv(tmp_path / "again.csv", features_of(file, times), rate)
    assert len(times) > 80
    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "F", {"train": 3, "valid": 2, "test": 2}, missing={"vision": [1]})
    return tmp_path / "F"


def test_command_writes_a_file_for_each_clip(folder, tmp_path):
    done = call("openface-csv", folder, "-o", tmp_path / "all")
    assert done.exit_code == 0, done.output
    assert "6 CSV files" in done.output
    assert "the values are of the backend facemesh" in done.output
    store = FeatureStore(folder)
    assert sorted(path.stem for path in (tmp_path / "all").iterdir()) == list(store.ids("vision"))
    for clip_id in store.ids("vision"):
        features = store.read("vision", clip_id)
        table = read_table(tmp_path / "all" / f"{clip_id}.csv")
        np.testing.assert_array_equal(table.success, features.valid)
        np.testing.assert_allclose(table.confidence, features.extras["confidence"], atol=0.005)
        np.testing.assert_allclose(table.values[:, :6], features.values[:, :6], atol=6e-7)
        np.testing.assert_allclose(table.values, features.values, atol=0.0501)
        lines = (tmp_path / "all" / f"{clip_id}.csv").read_text().splitlines()[1:]
        about = np.array([line.split(",")[:3] for line in lines], float)
        np.testing.assert_array_equal(about[:, 0], np.arange(len(features)) + 1)
        assert not about[:, 1].any()
        np.testing.assert_allclose(about[:, 2], features.times, atol=0.0005)


def test_named_clips_without_spaces(folder, tmp_path):
    done = call("openface-csv", folder, "v_0004$_$0001", "-o", tmp_path / "one", "--no-spaces")
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "one").iterdir()
    header = file.read_text().partition("\n")[0]
    assert header.split(",")[:6] == ["frame", "face_id", "timestamp", "confidence", "success", "gaze_0_x"]


def test_rows_that_a_recipe_left_out_are_missing_frames(tmp_path):
    names, units = zip(*VISION_COLUMNS, strict=True)
    rows = Features(
        np.ones((3, 709), np.float32),
        names,
        units,
        np.array([0, 4, 5]) / 30,
        np.array([True, False, True]),
        {"confidence": np.ones(3, np.float32)},
    )
    write_openface_csv(tmp_path / "x.csv", rows, 30.0)
    lines = [line.split(", ") for line in (tmp_path / "x.csv").read_text().splitlines()[1:]]
    assert [line[:5] for line in lines] == [
        ["1", "0", "0.000", "1.00", "1"],
        ["5", "0", "0.133", "1.00", "0"],
        ["6", "0", "0.167", "1.00", "1"],
    ]
    assert {float(cell) for cell in lines[1][5:]} == {0.0}


def test_unknown_clip_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"clip 'v_0001\$_\$0001': no vision features"):
        export_openface_csv(FeatureStore(folder), tmp_path / "x", ["v_0001$_$0001"])
    assert not (tmp_path / "x").exists()
