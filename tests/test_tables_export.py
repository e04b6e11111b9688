"""Tables, tar shards and data sets, each opened by the library that it is for."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from feature_folder import make_folder, make_rows

from triptych.extractors.base import Features
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange import summary_tables
from triptych.pipeline.exchange.functionals import FUNCTIONALS, functionals
from triptych.pipeline.exchange.row_tables import export_rows
from triptych.pipeline.exchange.summary_tables import export_summary, groups_by
from triptych.pipeline.exchange.table_files import Block, TableLayout, open_csv
from triptych.pipeline.exchange.tar_shards import export_tar_shards, sample_key
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.storage.store import FeatureStore

STAGES = ("text", "audio", "vision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Some clips have no vision, no text, no label, no split, and text that CSV must quote."""
    features = tmp_path_factory.mktemp("tables") / "features"
    make_folder(features, {"train": 6, "valid": 3, "test": 3}, missing={"vision": [3], "text": [4]})
    clips = list(load_manifest(features / "manifest.csv", check_files=False).clips)
    clips[1] = replace(clips[1], label=math.nan, label_T=math.nan)
    clips[5] = replace(clips[5], split=None)
    clips[3] = replace(clips[3], text='"Gut", sagt sie:\n„naïve 👍“')
    clips[2] = replace(clips[2], text=None)
    write_manifest(Manifest(tuple(clips)), features / "manifest.csv")
    return features


@pytest.fixture(scope="module")
def store(folder):
    return FeatureStore(folder)


@pytest.fixture
def clips(store):
    return {clip.id: clip for clip in store.manifest.clips}


def call(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)])


def read_csv(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def used(features: Features, column: int) -> np.ndarray:
    """The usable values of a column, by the definition."""
    rows = features.valid.copy()
    if features.columns[column] == "log_f0":
        rows &= features.extras["voiced"]
    return features.values[rows, column].astype(np.float64)


# ---- CSV, which needs no library


def test_csv_has_every_row(store, clips, tmp_path):
    counts = export_rows(store, tmp_path, "csv")
    assert list(counts) == [f"{stage}.csv" for stage in STAGES]
    for stage in STAGES:
        rows = read_csv(tmp_path / f"{stage}.csv")
        assert len(rows) == counts[f"{stage}.csv"]
        first = store.read(stage, store.ids(stage)[0])
        assert list(rows[0]) == [
            "id", "split", *LABELS, "time", "valid", *first.columns, *first.extras
        ]  # fmt: skip
        start = 0
        for clip_id in store.ids(stage):
            features, clip = store.read(stage, clip_id), clips[clip_id]
            part = rows[start : (start := start + len(features))]
            values = [[row[name] for name in features.columns] for row in part]
            np.testing.assert_array_equal(np.array(values, np.float32), features.values)
            assert {row["id"] for row in part} == {clip_id}
            assert {row["split"] for row in part} == {clip.split or ""}
            for name in LABELS:
                label = getattr(clip, name)
                assert {row[name] for row in part} == {"" if math.isnan(label) else repr(label)}
            assert [row["valid"] for row in part] == [
                "true" if valid else "false" for valid in features.valid
            ]
            times = ["" if math.isnan(time) else repr(time) for time in features.times.tolist()]
            assert [row["time"] for row in part] == times
        assert start == len(rows)


def test_csv_numbers_are_exact_and_never_look_like_whole_numbers(tmp_path):
    numbers = np.array([[1, 0, -3], [0.1, 1e-9, 3.4e38], [np.nan, 16777216, -1e-45]], np.float32)
    with open_csv(tmp_path / "x.csv", TableLayout({"id": "str"}, ("a", "b", "c"))) as table:
        table.write(Block(["clip, 1"], numbers))
    rows = read_csv(tmp_path / "x.csv")
    assert [row["id"] for row in rows] == ["clip, 1"] * 3
    assert list(rows[0].values())[1:] == ["1.0", "0.0", "-3.0"]
    assert rows[1]["a"] == "0.1"
    assert rows[2]["a"] == ""
    assert [np.float32(row["c"]) for row in rows] == numbers[:, 2].tolist()


def test_csv_numbers_have_the_fewest_digits(tmp_path):
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 4_000, dtype=np.uint32).view(np.float32)
    usual = random.normal(0, 10.0 ** random.integers(-3, 5, 4_000)).astype(np.float32)
    numbers = np.concatenate([bits[np.isfinite(bits)], usual, usual.round(2), usual.round(0)])[:, None]
    with open_csv(tmp_path / "x.csv", TableLayout({}, ("a",))) as table:
        table.write(Block([], numbers))
    written = (tmp_path / "x.csv").read_text().split()[1:]
    assert all("." in cell or "e" in cell for cell in written)
    np.testing.assert_array_equal(np.array([np.float32(cell) for cell in written]), numbers[:, 0])
    # numpy writes the fewest digits too.
    usual = slice(len(numbers) - 12_000, None)
    assert [float(cell) for cell in written[usual]] == [float(str(number)) for number in numbers[usual, 0]]


def test_failed_table_is_not_left_half_written(tmp_path):
    def fail():
        with open_csv(tmp_path / "x.csv", TableLayout({}, ("a",))) as table:
            table.write(Block([], np.ones((1, 1), np.float32)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


# ---- statistics


def test_functionals_agree_with_numpy_over_usable_cells():
    random = np.random.default_rng(0)
    values = random.normal(2, 3, (50, 6)).astype(np.float32)
    usable = random.random((50, 6)) < 0.7
    usable[:, 4] = False
    usable[:, 5] = np.arange(50) == 7
    values[~usable] = 1e9
    found = dict(zip(FUNCTIONALS, functionals(values, usable).T, strict=True))
    for column in range(6):
        cells = values[usable[:, column], column].astype(np.float64)
        assert found["usable"][column] == len(cells) / 50
        if not len(cells):
            assert all(np.isnan(found[name][column]) for name in FUNCTIONALS if name != "usable")
            continue
        expected = {
            "amean": cells.mean(),
            "stddev": cells.std(),
            "stddevNorm": cells.std() / cells.mean(),
            "min": cells.min(),
            "max": cells.max(),
            **{f"percentile{p}.0": np.percentile(cells, p) for p in (5, 20, 25, 50, 75, 80, 95)},
        }
        for name, value in expected.items():
            assert found[name][column] == pytest.approx(value, rel=1e-9), name


def test_summary_has_a_row_for_each_clip(store, clips, tmp_path):
    export_summary(store, tmp_path, "csv")
    for stage in STAGES:
        rows = {row["id"]: row for row in read_csv(tmp_path / f"{stage}-summary.csv")}
        assert list(rows) == list(store.ids(stage))
        for clip_id, row in rows.items():
            features = store.read(stage, clip_id)
            assert row["text"] == (clips[clip_id].text or "")
            assert int(row["rows"]) == len(features)
            assert len(row) == 8 + len(FUNCTIONALS) * len(features.columns)
            for column in (0, len(features.columns) - 1):
                cells, name = used(features, column), features.columns[column]
                assert float(row[f"{name}_amean"]) == pytest.approx(cells.mean(), rel=1e-5)
                assert float(row[f"{name}_percentile50.0"]) == pytest.approx(np.median(cells), rel=1e-5)
                assert float(row[f"{name}_usable"]) == pytest.approx(len(cells) / len(features))


def test_unvoiced_rows_do_not_count_where_a_column_needs_voice():
    audio = make_rows("audio", 10, 0)
    voiced = np.arange(10) % 2 == 0
    audio = replace(audio, extras={"voiced": voiced})
    smile = Features(
        np.array([[0, 0], [4, 4], [6, 6]], np.float32),
        ("F0semitoneFrom27.5Hz_sma3nz", "Loudness_sma3"),
        ("", ""),
        np.arange(3) / 100,
        np.ones(3, bool),
    )
    assert functionals(audio.values, summary_tables._usable(audio))[:2, -1].tolist() == [0.5, 1]
    assert functionals(smile.values, summary_tables._usable(smile))[:, 0].tolist() == [
        5,
        pytest.approx(10 / 3),
    ]


@pytest.mark.parametrize("at_once", [2**26, 4000])  # the second reads large groups some columns at a time
def test_groups_join_the_rows_of_their_clips(store, clips, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(summary_tables, "AT_ONCE", at_once)
    speakers = tmp_path / "speakers.csv"
    lines = [f"{clip_id},x.mp4,{'AB'[number % 2]}" for number, clip_id in enumerate(clips)]
    speakers.write_text("\n".join(["id,path,Speaker", *lines]))
    groups = groups_by(store, "speaker", speakers)
    export_summary(store, tmp_path, "csv", ("vision",), groups)
    rows = read_csv(tmp_path / "vision-groups.csv")
    assert [row["group"] for row in rows] == ["A", "B"]
    for number, row in enumerate(rows):
        members = [clip_id for clip_id in list(clips)[number::2] if clip_id in store.ids("vision")]
        read = [store.read("vision", clip_id) for clip_id in members]
        cells = np.concatenate([used(features, 700) for features in read])
        name = read[0].columns[700]
        assert (int(row["clips"]), int(row["rows"])) == (len(members), sum(map(len, read)))
        assert float(row[f"{name}_stddev"]) == pytest.approx(cells.std(), rel=1e-5)
        assert float(row[f"{name}_percentile95.0"]) == pytest.approx(np.percentile(cells, 95), rel=1e-5)
        labels = [clips[clip_id].label for clip_id in members]
        assert float(row["label"]) == pytest.approx(np.nanmean(labels))
        assert row["split"] == ""


def test_clips_that_a_table_does_not_list_are_refused(store, tmp_path):
    (tmp_path / "t.csv").write_text("id,path,speaker\nv_0000$_$0001,x.mp4,A\n")
    with pytest.raises(InputError, match=r"11 clips are not in the table.*--table"):
        export_summary(store, tmp_path, "csv", ("audio",), groups_by(store, "speaker", tmp_path / "t.csv"))
    assert not list(tmp_path.glob("audio*"))


# ---- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "hf", "--summary"), "--summary needs --to csv or --to parquet"),
        (("--to", "csv", "--by", "video"), "--by needs --summary"),
        (("--to", "csv", "--summary", "--table", "x.csv"), "--table needs --by COLUMN"),
        (("--to", "parquet", "--shard-size", "1"), "--shard-size needs --to webdataset or --to hf"),
        (("--to", "csd", "--only", "audio"), "--only: --to csd reads three stages"),
        (("--to", "csv", "--audio", "vision"), "with --to csv use --only"),
        (("--to", "csv", "--only", "faces"), "--only faces: unknown stage"),
        (("--to", "csv", "--summary", "--by", "speaker"), "no column speaker"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, tmp_path, options, message):
    done = call("export", folder, tmp_path / "out", *options)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
    assert not (tmp_path / "out").exists()


def test_missing_pyarrow_is_reported_and_csv_works_without(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for to in ("parquet", "hf"):
        done = call("export", folder, "--to", to, tmp_path / "out")
        assert isinstance(done.exception, InputError)
        assert f"--to {to}: needs the package pyarrow: `pip install 'triptych[tables]'`" in str(
            done.exception
        )
    done = call("export", folder, "--to", "csv", "--summary", "--by", "video", tmp_path / "out")
    assert "audio-groups.csv: 12 rows" in done.output


def test_csv_and_tar_shards_import_no_slow_library(folder, tmp_path):
    code = (
        "import sys; from triptych.pipeline.cli.main import cli\n"
        "for to in ('csv', 'webdataset'):\n"
        "    cli(['export', sys.argv[1], '--to', to, sys.argv[2] + to], standalone_mode=False)\n"
        "print([name for name in ('torch', 'pandas', 'pyarrow', 'webdataset', 'sklearn') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "out-")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


# ---- tar shards


def test_tar_shards_are_cut_by_size_and_keep_ids(store, tmp_path):
    counts = export_tar_shards(store, tmp_path / "tar", size=200_000)
    assert sum(counts.values()) == 12
    assert [name for name in counts if name.startswith("unassigned")] == ["unassigned-000000.tar"]
    assert sum(name.startswith("train-") for name in counts) > 1
    with pytest.raises(InputError, match="already has tar shards"):
        export_tar_shards(store, tmp_path / "tar")


def test_sample_keys_are_legal_and_distinct():
    ids = ["video_1$_$0001", "a.b", "a%2Eb", "a b", "视频", "..", "a_b"]
    keys = [sample_key(clip_id) for clip_id in ids]
    assert keys[0] == "video_1$_$0001"
    assert len(set(keys)) == len(ids)
    assert all(key.isascii() and not set(key) & set("./ ") for key in keys)
