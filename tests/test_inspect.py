"""`triptych inspect` on the terminal: which clip, its rows, curves, notes and failures."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from feature_folder import make_folder
from shard_cases import digest

from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.find import find_clip
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.report.clip_summary import Trace, summarise
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.terminal.sparklines import sparkline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "features"
    path.mkdir()
    make_folder(path, {"train": 4, "test": 2}, missing={"vision": [3], "text": [3]})
    prints = json.loads((path / "recipe.json").read_text())["fingerprints"]
    with LedgerWriter(path) as ledger:
        line = LedgerLine(
            "v_0003$_$0001", "vision", "failed", "no_face", "v.mp4: no face", 1.0, prints["vision"], digest(3)
        )
        ledger.write(line)
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)], catch_exceptions=True)


def clips(folder):
    return load_manifest(folder / "manifest.csv", check_files=False).clips


@pytest.mark.parametrize(
    "name", ["v_0002$_$0001", "v_0002/0001", "v_0002", "0002/", "v_0002/0001.mp4", "002/0001"]
)
def test_clip_is_found_by_id_path_or_part(folder, name):
    assert find_clip(clips(folder), name, "x").id == "v_0002$_$0001"


def test_clip_is_found_by_its_whole_path(folder):
    clip = clips(folder)[4]
    assert find_clip(clips(folder), str(clip.file), "x") == clip


def test_whole_id_comes_before_longer_ids_that_contain_it(folder):
    one = clips(folder)[0]
    several = [replace(one, id=f"v{end}", path=f"v{end}.mp4") for end in ("", "2", "3")]
    assert find_clip(several, "v", "x").id == "v"


def test_unknown_clip_names_the_nearest(folder):
    with pytest.raises(InputError, match=r"no clip 'v_0010'.*v_000./0001.*video/clip"):
        find_clip(clips(folder), "v_0010", "features")


def test_ambiguous_part_lists_the_clips(folder):
    with pytest.raises(InputError, match=r"6 clips match '0001': v_0000/0001, .* and 1 more"):
        find_clip(clips(folder), "0001", "features")


def test_summary_has_the_statistics_of_usable_rows(folder):
    store = FeatureStore(folder)
    clip = clips(folder)[1]
    rows = store.read("vision", clip.id)
    stage = {one.stage: one for one in summarise(store, clip).stages}["vision"]
    angle = np.rad2deg(rows.values[rows.valid, rows.columns.index("pose_Ry")].astype(float))
    yaw = next(column for column in stage.columns if column.name == "head yaw")
    assert (yaw.mean, yaw.sd, yaw.min, yaw.max) == pytest.approx(
        (angle.mean(), angle.std(), angle.min(), angle.max())
    )
    assert (stage.rows, stage.usable) == (len(rows), pytest.approx(rows.valid.mean()))
    assert stage.seconds == pytest.approx(len(rows) / 30)


def test_pitch_is_in_hertz_and_only_of_voiced_rows(folder):
    store = FeatureStore(folder)
    clip = clips(folder)[0]
    trace = next(trace for trace in summarise(store, clip).traces if trace.name == "F0")
    rows = store.read("audio", clip.id)
    assert trace.values == pytest.approx(np.exp(rows.values[:, 0].astype(float)))
    assert trace.unit == "Hz"


def test_command_fits_80_columns(folder):
    done = run(folder, "v_0001")
    assert done.exit_code == 0, done.output
    widths = [
        sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
        for line in done.output.splitlines()[2:]
    ]
    assert max(widths) <= 80
    for text in ("v_0001$_$0001", "第1句，好。", "head yaw", "F0", "split train", "label ", "▁"):
        assert text in done.output


def test_long_transcript_is_wrapped_by_its_width(folder):
    from triptych.pipeline.cli.inspect import _wrapped

    lines = _wrapped("今天的晚饭真好吃。" * 9 + " and some words", 80)
    assert len(lines) == 3
    assert len(lines[0]) == 40
    assert lines[-1].endswith("and some words")


def test_failure_is_shown_with_its_remedy(folder):
    done = run(folder, "v_0003/0001")
    assert "vision failed, no_face" in done.output
    assert "Check that a face is visible" in done.output
    assert "absent" in done.output or "missing" in done.output


def test_json_holds_the_stages_and_labels(folder):
    document = json.loads(run(folder, "v_0003/0001", "--json").output)
    assert document["clip"] == "v_0003$_$0001"
    assert document["stages"]["vision"]["reason"] == "no_face"
    assert document["stages"]["audio"]["columns"][0]["name"] == "F0"
    assert set(document["labels"]) == {"label", "label_T", "label_A", "label_V"}


def test_sparkline_spans_lowest_to_highest():
    assert sparkline([0, float("nan"), 7, 3.5]) == "▁ █▅"
    assert sparkline([2, 2]) == "▅▅"
    assert sparkline([float("nan")] * 2) == "  "


def test_bins_are_means_on_one_time_axis():
    values = np.array([1.0, 3.0, np.nan, np.nan, 5.0, 5.0, 9.0, 7.0])
    trace = Trace("audio", "F0", "Hz", np.arange(8) / 8, values)
    binned = trace.binned(1.0, 4)
    assert binned[0] == 2
    assert np.isnan(binned[1])
    assert binned[2:] == [5, 8]
    assert Trace("vision", "x", "", np.array([0.0, 0.5]), np.array([1.0, 2.0])).binned(1.0, 4) == [1, 1, 2, 2]
