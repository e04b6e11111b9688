"""A package of one's own adds stages: built, installed, extracted, verified, read and exported."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.pipeline.demo.clips import make_clips

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_stage"
STAGES = ["loudness", "speech_rate"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that pip has installed the example distribution into."""
    base = tmp_path_factory.mktemp("custom")
    source = shutil.copytree(EXAMPLE, base / "source")
    target = base / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(target), str(source)],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def environment(installed):
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def triptych(environment, *words, code=0):
    command = [sys.executable, "-m", "triptych.pipeline", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def python(environment, code, *words):
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "clips"
    make_clips(folder, count=3)
    return folder


@pytest.fixture(scope="module")
def features(environment, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "features"
    # In worker processes, as a user's run: they find the package too.
    printed = triptych(
        environment, "extract", clips, "-o", folder, "--only", "speech_rate", "-j", 2, "--json"
    )
    counts = json.loads(printed.splitlines()[-1])["stages"]
    assert list(counts) == STAGES  # the stage that speech_rate reads from was added
    assert all(count["made"] == 3 for count in counts.values())
    return folder


def test_status_and_verify_know_the_stage(environment, features):
    status = json.loads(triptych(environment, "status", features, "--json"))
    assert {name: status["stages"][name]["done"] for name in STAGES} == dict.fromkeys(STAGES, 3)
    assert json.loads(triptych(environment, "verify", features, "--json"))["problems"] == {}


def test_verify_finds_damage_in_its_shards(environment, features, tmp_path):
    copy = shutil.copytree(features, tmp_path / "features")
    shard = next((copy / "loudness").glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    problems = json.loads(triptych(environment, "verify", copy, "--json", code=4))["problems"]
    assert list(problems) == [f"loudness/{shard.name}"]


def test_its_rows_are_read_by_the_store(environment, features):
    code = """
import json, sys, triptych
store = triptych.open(sys.argv[1])
clip = store.ids("loudness")[0]
rows, rate = store.read("loudness", clip), store.read("speech_rate", clip)
print(json.dumps([len(store.ids("loudness")), rows.columns, rows.units, sorted(rows.extras), float(rows.times[1]),
                  store.frame_rate("loudness", clip), rate.values.shape, float(rate.values[0, 0])]))
"""
    count, columns, units, extras, step, rate, shape, value = python(environment, code, features)
    assert (count, columns, extras) == (3, ["rms", "peak"], ["clipped"])
    assert units == ["dB re full scale", "full scale"]
    assert step == pytest.approx(0.1)
    assert (rate, shape) == (10, [1, 1])
    assert value > 0


def test_a_second_run_has_nothing_to_do(environment, clips, features):
    printed = triptych(environment, "extract", clips, "-o", features, "--only", "speech_rate", "--json")
    again = json.loads(printed.splitlines()[-1])
    assert [count["made"] for count in again["stages"].values()] == [0, 0]


def test_a_changed_setting_redoes_it_and_what_reads_from_it(environment, clips, features):
    plan = json.loads(
        triptych(
            environment, "extract", clips, "-o", features, "--only", "speech_rate",
            "--set", "loudness.rows_per_second=20", "--dry-run", "--json",
        )
    )  # fmt: skip
    assert [plan[name]["to do"]["settings changed"] for name in STAGES] == [3, 3]


def test_a_bad_setting_of_it_is_named(environment, clips, tmp_path):
    command = ["extract", clips, "-o", tmp_path / "f", "--only", "loudness", "--set", "loudness.floor=5"]
    words = [sys.executable, "-m", "triptych.pipeline", *map(str, command)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "loudness.floor = 5" in done.stderr


def test_it_is_exported_as_a_stream(environment, features, tmp_path):
    target = tmp_path / "own.pkl"
    streams = ["--text", "speech_rate", "--audio", "loudness", "--vision", "loudness"]
    triptych(environment, "export", features, "--to", "mmsa", target, *streams)
    data = pickle.loads(target.read_bytes())
    parts = [data[split] for split in ("train", "valid", "test") if len(data[split]["id"])]
    assert sum(len(part["id"]) for part in parts) == 3
    assert parts[0]["audio"].shape[2] == 2
    assert parts[0]["text"].shape[2] == 1


def test_without_the_package_the_folder_stays_readable(environment, features, tmp_path):
    copy = shutil.copytree(features, tmp_path / "features")
    without = {**environment, "PYTHONPATH": ""}
    shown = json.loads(triptych(without, "status", copy, "--json"))["stages"]
    assert not {"loudness", "speech_rate"} & shown.keys()
    assert "stage loudness is not installed; its features stay" in triptych(without, "status", copy)
    shown = triptych(environment, "status", copy, "--json")  # installed again: nothing was lost
    assert json.loads(shown)["stages"]["loudness"]["done"] == 3
