"""Exported tables and data sets, opened by the libraries that they are for."""

# ruff: noqa: F811 - fixtures are imported from the other tests of tables

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from test_tables_export import STAGES, clips, folder, read_csv, store  # noqa: F401 - fixtures

from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange import summary_tables, table_files
from triptych.pipeline.exchange.functionals import FUNCTIONALS, functionals
from triptych.pipeline.exchange.hf import export_hf
from triptych.pipeline.exchange.row_tables import export_rows
from triptych.pipeline.exchange.summary_tables import export_summary, groups_by
from triptych.pipeline.exchange.tar_shards import export_tar_shards, sample_key


def check_frame(frame, features_by_id):
    """Compare a table of rows, as a dict of arrays, with the store."""
    start = 0
    for features in features_by_id.values():
        rows = slice(start, start := start + len(features))
        for column in (0, len(features.columns) - 1):
            np.testing.assert_array_equal(frame[features.columns[column]][rows], features.values[:, column])
        np.testing.assert_array_equal(frame["valid"][rows], features.valid)
    assert start == len(frame["id"])
    assert list(dict.fromkeys(frame["id"])) == list(features_by_id)


@pytest.mark.slow
def test_pandas_reads_tables(store, clips, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(table_files, "ROW_GROUP", 40_000)
    for to in ("csv", "parquet"):
        export_rows(store, tmp_path, to)
        export_summary(store, tmp_path, to)
    for stage in STAGES:
        expected = {clip_id: store.read(stage, clip_id) for clip_id in store.ids(stage)}
        exact = pandas.read_parquet(tmp_path / f"{stage}.parquet")
        text = pandas.read_csv(tmp_path / f"{stage}.csv")
        for frame in (exact, text.astype(exact.dtypes.to_dict())):
            check_frame({name: frame[name].to_numpy() for name in frame}, expected)
        names = next(iter(expected.values())).columns
        assert {str(exact[name].dtype) for name in names} == {"float32"}
        assert {str(text[name].dtype) for name in names} == {"float64"}
        assert str(text["valid"].dtype) == str(exact["valid"].dtype) == "bool"
        assert isinstance(exact.index, pandas.RangeIndex)
        assert list(text) == list(exact)
        assert exact["label"].isna().any()
        assert exact["time"].isna().all() == (stage == "text")
        summary = pandas.read_parquet(tmp_path / f"{stage}-summary.parquet")
        again = pandas.read_csv(tmp_path / f"{stage}-summary.csv")
        numbers = [name for name in summary if "_" in name and not name.startswith("label")]
        np.testing.assert_array_equal(again[numbers].astype("float32"), summary[numbers])
        for clip_id, words in zip(summary["id"], summary["text"], strict=True):
            assert words == clips[clip_id].text or (pandas.isna(words) and clips[clip_id].text is None)
    file = pq.ParquetFile(tmp_path / "vision.parquet")
    assert file.num_row_groups > 2
    assert file.schema_arrow.field("pose_Rx").metadata == {b"unit": b"rad"}
    assert file.schema_arrow.metadata[b"stage"] == b"vision"


@pytest.mark.slow
def test_polars_reads_tables(store, tmp_path):
    polars = pytest.importorskip("polars")
    for to in ("csv", "parquet"):
        export_rows(store, tmp_path, to)
        export_summary(store, tmp_path, to, groups=groups_by(store, "video"))
    for stage in STAGES:
        expected = {clip_id: store.read(stage, clip_id) for clip_id in store.ids(stage)}
        exact = polars.read_parquet(tmp_path / f"{stage}.parquet")
        text = polars.read_csv(tmp_path / f"{stage}.csv")
        names = next(iter(expected.values())).columns
        for frame in (exact, text.with_columns(polars.col(names).cast(polars.Float32))):
            check_frame({name: frame[name].to_numpy() for name in frame.columns}, expected)
        assert {text.schema[name] for name in names} == {polars.Float64}
        assert text.schema["valid"] == exact.schema["valid"] == polars.Boolean
        assert exact["label"].null_count() == text["label"].null_count() > 0
        groups = polars.read_parquet(tmp_path / f"{stage}-groups.parquet")
        assert len(groups) == len(expected)
        assert groups.schema["clips"] == polars.Int64


@pytest.mark.slow
def test_webdataset_reads_tar_shards(store, clips, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    counts = export_tar_shards(store, tmp_path, size=200_000)
    columns = json.loads((tmp_path / "columns.json").read_text())
    urls = [str(tmp_path / name) for name in counts]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert {sample["json"]["id"] for sample in samples} == set(clips)
    for sample in samples:
        about = sample["json"]
        clip = clips[about["id"]]
        assert Path(sample["__url__"]).name.startswith(f"{clip.split or 'unassigned'}-")
        assert (about["split"], about["text"]) == (clip.split, clip.text)
        assert about["label"] == (None if math.isnan(clip.label) else clip.label)
        assert sample["__key__"] == sample_key(clip.id)
        for stage in STAGES:
            if clip.id not in store.ids(stage):
                assert f"{stage}.npy" not in sample
                continue
            features = store.read(stage, clip.id)
            np.testing.assert_array_equal(sample[f"{stage}.npy"], features.values)
            np.testing.assert_array_equal(sample[f"{stage}.valid.npy"], features.valid)
            assert (f"{stage}.times.npy" in sample) == (stage != "text")
            assert columns[stage] == list(features.columns)
            for name, array in features.extras.items():
                assert sample[f"{stage}.{name}.npy"].tolist() == array.tolist()


@pytest.mark.slow
def test_datasets_loads_the_folder(store, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", minversion="4.0")
    counts = export_hf(store, tmp_path / "hf", size=60_000)
    assert counts == {"train": 5, "validation": 3, "test": 3, "unassigned": 1}
    assert len(list((tmp_path / "hf" / "data").glob("train-*.parquet"))) > 1
    loaded = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == counts
    for name, part in loaded.items():
        assert part.info.splits[name].num_examples == counts[name]
        assert part.features["vision"].feature.length == 709
        assert part.features["audio_voiced"].feature == datasets.Value("bool")
        for row in part.with_format("numpy"):
            clip = clips[str(row["id"])]
            np.testing.assert_equal(float(row["label"]), clip.label)
            for stage in STAGES:
                if clip.id not in store.ids(stage):
                    assert row[stage] is None
                    continue
                features = store.read(stage, clip.id)
                np.testing.assert_array_equal(row[stage], features.values)
                assert row[stage].dtype == np.float32
                np.testing.assert_array_equal(row[f"{stage}_valid"], features.valid)
                for extra, array in features.extras.items():
                    assert row[f"{stage}_{extra}"].tolist() == array.tolist()
        assert [row["transcript"] for row in part] == [clips[row["id"]].text for row in part]
    with pytest.raises(InputError, match="already has a data set"):
        export_hf(store, tmp_path / "hf")


@pytest.mark.slow
def test_functionals_have_the_names_and_nearly_the_values_of_opensmile():
    opensmile = pytest.importorskip("opensmile")
    from triptych.extractors.egemaps import Egemaps

    rate = 16000
    time = np.arange(4 * rate) / rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(np.pi * time)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * (np.sin(6.9 * time) > -0.3)
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time))
    sound = (0.2 * voice + noise).astype(np.float32)
    features = Egemaps(rate).describe(sound)
    table = functionals(features.values, summary_tables._usable(features))
    ours = {
        f"{column}_{name}".lower(): value
        for column, row in zip(features.columns, table, strict=True)
        for name, value in zip(FUNCTIONALS, row, strict=True)
    }
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )
    theirs = {name.lower(): value for name, value in smile.process_signal(sound, rate).iloc[0].items()}
    common = [name for name in theirs if name in ours]
    assert len(common) == 48
    # openSMILE's own functionals do not read exactly the rows that it gives out; formants differ most.
    for name in common:
        if name.startswith(("f0", "loudness", "mfcc", "jitter", "shimmer", "hnr", "logrelf0", "spectral")):
            assert ours[name] == pytest.approx(theirs[name], rel=0.015), name
