"""Parts of a run: which clips are in each, what is refused, and several processes that start at once."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

import triptych
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.run.lock import FolderBusyError, lock_name, only_run, overlapping
from triptych.pipeline.run.partition import Partition, selected, within_part
from triptych.pipeline.run.plan import ClipWork, Plan
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.store import FeatureStore

IDS = [f"video{number}$_${clip:04d}" for number in range(50) for clip in range(20)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_are_disjoint_complete_and_of_similar_size(count: int) -> None:
    parts = [selected(IDS, None, Partition(number, count)) for number in range(1, count + 1)]
    assert Counter(id for part in parts for id in part or ()) == Counter(IDS)
    assert all(0.7 * len(IDS) / count < len(part or ()) < 1.3 * len(IDS) / count for part in parts)


def test_a_part_does_not_change_with_machine_process_or_order() -> None:
    """The numbers are those of SHA-256, so that other versions and machines must agree."""
    assert [
        next(n for n in range(1, 9) if Partition(n, 8).has(id)) for id in ("a", "b", "视频", "\udcff")
    ] == [
        1 + int.from_bytes(digest, "big") % 8
        for digest in (
            bytes.fromhex("ca978112ca1bbdca"),
            bytes.fromhex("3e23e8160039594a"),
            bytes.fromhex("c20f7618d330a854"),
            bytes.fromhex("8f1d0f9c88065271"),
        )
    ]
    mixed = random.Random(1).sample(IDS, len(IDS))
    assert selected(mixed, None, Partition(2, 3)) == selected(IDS, None, Partition(2, 3))


def test_the_parts_of_a_limited_source_are_the_limited_source() -> None:
    parts = [selected(IDS, 30, Partition(number, 4)) for number in range(1, 5)]
    assert sorted(id for part in parts for id in part or ()) == sorted(IDS[:30])
    assert selected(IDS, 30, None) == frozenset(IDS[:30])
    assert selected(IDS, None, None) is None


def test_groups_are_counted_within_the_part() -> None:
    clips = [Clip(id, f"{id}.mp4", None, None, *[math.nan] * 4, "/r") for id in IDS]
    part = selected(IDS, None, Partition(1, 8))
    assert part is not None
    work = [ClipWork(clip, ("audio",), {}, position=at) for at, clip in enumerate(clips) if clip.id in part]
    plan = Plan({}, tuple(work[1:]), len(clips))  # its first clip is done
    within = within_part(plan, clips, part)
    assert [one.position for one in within.work] == list(range(1, len(part)))
    assert within.count == len(part)
    assert within_part(plan, clips, None) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/8", "numbered from 1 to 8"),
        ("9/8", "numbered from 1 to 8"),
        ("1/0", "expected 1 to"),
        ("3/1", "numbered from 1 to 1"),
        ("2", "such as 2/8"),
        ("-1/8", "such as 2/8"),
        ("a/b", "such as 2/8"),
        ("1/999999", "expected 1 to"),
        ("/", "such as 2/8"),
    ],
)
def test_an_invalid_part_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Partition.parse(text)


@pytest.mark.parametrize("text", ["9/8", "a/b"])
def test_an_invalid_part_ends_the_command_with_one_line(text: str, tmp_path: Path) -> None:
    words = ["extract", ".", "-o", str(tmp_path / "f"), "--partition", text]
    done = subprocess.run([sys.executable, "-m", "triptych.pipeline", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: partition {text}" if text == "9/8" else "error: partition 'a/b'")
    assert not (tmp_path / "f").exists()


def test_locks_of_parts() -> None:
    assert [lock_name(part) for part in (None, Partition(2, 8))] == ["extract.lock", "extract-2-of-8.lock"]


def test_parts_of_one_division_run_at_once_and_others_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with only_run(tmp_path, partition=Partition(1, 2)), only_run(tmp_path, partition=Partition(2, 2)):
        assert not caplog.text
        assert overlapping(tmp_path, None) == ["part 1/2", "part 2/2"]
        with (
            pytest.raises(FolderBusyError, match=r"another extract of part 1/2 runs here \(process"),
            only_run(tmp_path, wait=False, partition=Partition(1, 2)),
        ):
            pass
        with only_run(tmp_path, wait=False) as waited:
            assert not waited
            assert "another extract of part 1/2, part 2/2 runs here" in caplog.text
            caplog.clear()
            with only_run(tmp_path, wait=False, partition=Partition(1, 3)):
                assert "another extract of part 1/2, part 2/2, all clips runs here" in caplog.text
    assert overlapping(tmp_path, Partition(1, 3)) == []


def test_repair_waits_for_the_runs_of_parts(tmp_path: Path) -> None:
    with only_run(tmp_path, partition=Partition(1, 2)):
        done = CliRunner().invoke(cli, ["verify", str(tmp_path), "--repair"])
    assert isinstance(done.exception, FolderBusyError)
    assert "an extract of part 1/2 runs here" in str(done.exception)


@pytest.mark.slow
def test_several_processes_that_start_at_once_share_a_new_folder(demo_clips: Path, tmp_path: Path) -> None:
    """Each clip is in exactly one shard, the tables are about parts, and a plain run finds nothing to do."""
    whole, features = tmp_path / "whole", tmp_path / "features"
    triptych.extract(demo_clips, whole, only="audio", jobs=0)
    code = (  # they wait for one moment, after their imports
        "import sys, time, runpy, h5py, numba, triptych.pipeline.cli.main, triptych.pipeline.run.local_engine\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "runpy.run_module('triptych.pipeline', run_name='__main__')"
    )
    words = ["extract", str(demo_clips), "-o", str(features), "--only", "audio", "-j", "1", "--json"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *words, "--partition", f"{number}/3"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert not any("another extract" in err or "Traceback" in err for _, err in ended)
    tables = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    assert [table["partition"] for table in tables] == ["1/3", "2/3", "3/3"]
    assert sum(table["stages"]["audio"]["made"] for table in tables) == 12
    rows: Counter[str] = Counter()
    for path in (features / "audio").glob("*.h5"):
        with Shard(path) as shard:
            rows.update(shard.ids)
    found, expected = FeatureStore(features), FeatureStore(whole)
    assert rows == Counter(expected.ids("audio")), "a clip is missing or was extracted twice"
    for clip in expected.ids("audio"):
        assert found.read("audio", clip).values.tobytes() == expected.read("audio", clip).values.tobytes()
    assert not triptych.extract(demo_clips, features, only="audio", jobs=0).plan.work
    assert len(list((features / "ledger").glob("*.jsonl"))) == 3
    assert {line["outcome"] for line in _ledger(features)} == {"done"}
    assert len(_ledger(features)) == 12
    assert {path.name for path in features.glob("*.lock")} == {
        "extract.lock", *(f"extract-{n}-of-3.lock" for n in (1, 2, 3))
    }  # fmt: skip
    assert not list(features.glob("*.tmp"))


def _ledger(features: Path) -> list[dict[str, str]]:
    files = (features / "ledger").glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_part_of_the_api_is_repeated_without_harm(few_clips: Path, tmp_path: Path) -> None:
    first = triptych.extract(few_clips, tmp_path / "f", only="audio", jobs=0, partition=(1, 2))
    plan = first.plan.stages["audio"]
    again = triptych.extract(few_clips, tmp_path / "f", only="audio", jobs=0, partition=(1, 2))
    assert not again.plan.work
    other = triptych.extract(few_clips, tmp_path / "f", only="audio", jobs=0, partition=(2, 2))
    assert len(plan.done) + len(other.plan.stages["audio"].done) == 4
    assert set(plan.done).isdisjoint(other.plan.stages["audio"].done)
    with pytest.raises(InputError, match="numbered from 1 to 2"):
        triptych.extract(few_clips, tmp_path / "f", partition=(0, 2))


def test_a_part_is_named_above_its_table(few_clips: Path, tmp_path: Path) -> None:
    words = ["extract", str(few_clips), "-o", str(tmp_path / "f"), "--only", "audio", "--partition", "1/2"]
    printed = CliRunner().invoke(cli, [*words, "--dry-run"]).stdout
    assert printed.startswith("part 1/2: ")
    assert " of 4 clips; the table is about these\n" in printed
