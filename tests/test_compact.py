"""Shards and ledger files are merged without a change of what the store and the ledger give."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tracemalloc
from collections import namedtuple
from dataclasses import replace

import h5py
import pytest
from click.testing import CliRunner
from shard_cases import digest, make_features, make_header, make_items
from test_compact_ledger import write_ledgers

from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.run.lock import FolderBusyError, only_run
from triptych.pipeline.storage import compact as compact_module
from triptych.pipeline.storage import merged_shard
from triptych.pipeline.storage.compact import compact
from triptych.pipeline.storage.index import FeatureIndex, remember_damage
from triptych.pipeline.storage.merged_shard import rows_digest
from triptych.pipeline.storage.schema import RemovedShardError, ShardItem
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import shard_files, verify_shard, write_shard
from triptych.pipeline.storage.store import FeatureStore

STAGES = ("text", "audio")
MIB = 2**20
FORK = multiprocessing.get_context("fork")


def write_recipe(folder):
    prints = {stage: make_header(stage).fingerprint for stage in STAGES}
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"text": {}}, "fingerprints": prints}))


def write_clip(folder, stage, number, content=None, seed=None, **header):
    """Write a shard of one clip; `content` is what its rows were computed from."""
    content = number if content is None else content
    features = make_features(stage, 3 + number % 4, seed=content if seed is None else seed)
    item = ShardItem(f"clip_{number:02d}", digest(content), features)
    return write_shard(folder / stage, replace(make_header(stage), **header), [item])


@pytest.fixture
def folder(tmp_path):
    """Seven clips in one-clip shards; clip 3 with three contents, clip 5 in two shards; old settings too."""
    features = tmp_path / "features"
    for stage in STAGES:
        for number in range(7):
            write_clip(features, stage, number)
        write_shard(features / stage, make_header(stage), make_items(stage, (4, 6), first=70))
        write_clip(features, stage, 3, 900)
        write_clip(features, stage, 3, 901)
        pair = [
            ShardItem(f"clip_{n:02d}", digest(n), make_features(stage, 3 + n % 4, seed=n)) for n in (5, 60)
        ]
        write_shard(features / stage, make_header(stage), pair)
    for number in range(2):
        write_clip(features, "audio", number, fingerprint=digest("old"), recipe='{"old": 1}')
        write_clip(features, "audio", 20 + number, software={"triptych": "0.2.0"})
    write_recipe(features)
    return features


def answers(folder):
    """All that a store gives: rows bit by bit, and rates."""
    store = FeatureStore(folder)
    return {
        (stage, clip): (
            store.read(stage, clip).columns,
            rows_digest([store.read(stage, clip)]),
            repr(store.frame_rate(stage, clip)),
        )
        for stage in store.stages
        for clip in store.ids(stage)
    }


def content(folder):
    """Names and bytes of all files but the index and the lock."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name not in ("index.sqlite", "extract.lock")
    }


def pairs(folder):
    """Every clip, digest and fingerprint in the index."""
    index = FeatureIndex(folder)
    return {(stage, h.clip_id, h.digest, h.fingerprint) for stage in STAGES for h in index.holdings(stage)}


def call(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


# -- shards ---------------------------------------------------------------------------------------------


def test_the_store_gives_the_same_before_and_after(folder):
    before, rows = answers(folder), pairs(folder)
    newest = {stage: max(h.created for h in FeatureIndex(folder).holdings(stage)) for stage in STAGES}
    done, damaged = compact(folder)
    assert (answers(folder), pairs(folder), damaged) == (before, rows, ())
    # Two shards for the three contents of clip 3 and their neighbours in time, at most three.
    assert {stage: one.shards_before for stage, one in done.items()} == {
        "text": 11,
        "audio": 15,
    }
    for stage, one in done.items():
        shards = shard_files(folder / stage)
        assert one.shards_after == len(shards) <= (6 if stage == "audio" else 4)
        assert one.bytes_after == sum(path.stat().st_size for path in shards)
        assert [verify_shard(path, stage) for path in shards] == [[]] * len(shards)
        for path in shards:
            with Shard(path) as shard:
                assert list(shard.ids) == sorted(shard.ids)
                other = {id for id in shard.ids if "clip_20" <= id <= "clip_21"}
                assert shard.header.software["triptych"] == ("0.2.0" if other else "0.1.0")
                assert len(other) in (0, len(shard))
        assert max(h.created for h in FeatureIndex(folder).holdings(stage)) == newest[stage]


def test_a_second_call_changes_nothing(folder):
    compact(folder)
    before = content(folder)
    done, _ = compact(folder)
    assert content(folder) == before
    assert all(one.shards_after == one.shards_before for one in done.values())


def test_the_result_does_not_depend_on_the_order_of_files(tmp_path):
    results = []
    for order in (range(6), reversed(range(6))):
        folder = tmp_path / f"features-{len(results)}"
        for number in order:
            write_clip(folder, "text", number)
        compact(folder)
        (path,) = shard_files(folder / "text")
        with h5py.File(path) as file:
            results.append((path.name, {name: file[name][...].tolist() for name in file if name != "times"}))
    assert results[0] == results[1]


def test_a_merged_shard_is_that_of_its_clips_and_attributes(tmp_path):
    header = make_header("vision")
    for number in range(3):
        write_clip(tmp_path / "merged", "vision", number)
    (direct,) = {
        write_shard(
            tmp_path / "direct",
            header,
            [ShardItem(f"clip_{n:02d}", digest(n), make_features("vision", 3 + n, seed=n)) for n in range(3)],
        )
    }
    compact(tmp_path / "merged")
    (merged,) = shard_files(tmp_path / "merged" / "vision")
    assert merged.name == direct.name
    assert merged.stat().st_size == direct.stat().st_size
    with h5py.File(merged) as left, h5py.File(direct) as right:
        attributes = [
            {k: (type(v), str(v)) for k, v in f.attrs.items() if k != "created"} for f in (left, right)
        ]
        assert attributes[0] == attributes[1]
        assert {k: (d.dtype, d.chunks, d.fletcher32) for k, d in left.items()} == {
            k: (d.dtype, d.chunks, d.fletcher32) for k, d in right.items()
        }


def test_shards_of_half_the_size_stay(tmp_path):
    for first in (0, 20):
        write_shard(tmp_path / "audio", make_header("audio"), make_items("audio", [250] * 16, first=first))
    large = shard_files(tmp_path / "audio")
    assert min(path.stat().st_size for path in large) > MIB // 2
    for number in range(5):
        write_clip(tmp_path, "audio", number)
    compact(tmp_path, MIB)
    assert len(shard_files(tmp_path / "audio")) == 3
    assert set(large) < set(shard_files(tmp_path / "audio"))


def test_rows_with_other_bits_for_the_same_clip_stay(tmp_path):
    """As of a GPU and a CPU: the settings are equal, the numbers almost."""
    for number in range(4):
        write_clip(tmp_path, "audio", number)
    two = [ShardItem(f"clip_{n:02d}", digest(n), make_features("audio", 3 + n, seed=n + 50)) for n in (1, 9)]
    write_shard(tmp_path / "audio", make_header("audio"), two)
    write_recipe(tmp_path)
    before = answers(tmp_path)
    done, _ = compact(tmp_path)
    assert answers(tmp_path) == before
    assert (done["audio"].shards_before, done["audio"].shards_after) == (5, 3)


def test_clips_that_the_manifest_does_not_list_are_carried_along(folder):
    (folder / "manifest.csv").write_text(
        "id,path,text,split,label,label_T,label_A,label_V,root\nclip_01,a.mp4,a,train,0.2,,,,media\n"
    )
    before = pairs(folder)
    compact(folder)
    assert pairs(folder) == before


def test_memory_does_not_grow_with_the_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(merged_shard, "BATCH_BYTES", 2**18)
    for first in range(8):
        write_shard(
            tmp_path / "vision", make_header("vision"), make_items("vision", [90] * 4, first=4 * first)
        )
    tracemalloc.start()
    compact(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (path,) = shard_files(tmp_path / "vision")
    assert path.stat().st_size > 8e6
    assert peak < 4e6


# -- what is left alone ---------------------------------------------------------------------------------


def test_damaged_doubted_and_foreign_files_are_left_alone(folder):
    first, second, third = shard_files(folder / "audio")[:3]
    first.write_bytes(first.read_bytes()[:-100])
    block = bytearray(second.read_bytes())
    block[-50] ^= 1
    second.write_bytes(block)
    remember_damage(folder, [second])
    elsewhere = folder.parent / "elsewhere.h5"
    third.rename(elsewhere)
    third.symlink_to(elsewhere)
    (folder / "audio" / "notes.h5.bak").write_text("mine")
    untouched = {
        path: path.read_bytes() for path in (first, second, third, folder / "audio" / "notes.h5.bak")
    }
    done = call("compact", folder)
    assert done.exit_code == 4, done.output
    assert f"damaged, left alone: audio/{first.name}" in done.output
    assert {path: path.read_bytes() for path in untouched} == untouched
    assert third.is_symlink()
    assert len(shard_files(folder / "audio")) < 10


def test_bit_rot_is_not_copied_into_a_new_shard(folder):
    FeatureIndex(folder)
    victim = shard_files(folder / "audio")[2]
    status, rotten = victim.stat(), bytearray(victim.read_bytes())
    rotten[-40] ^= 4
    victim.write_bytes(rotten)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, damaged = compact(folder)
    assert damaged == (victim,)
    assert victim.read_bytes() == rotten
    assert victim in FeatureIndex(folder).damaged


def test_a_folder_with_a_newer_shard_is_refused(folder):
    path = shard_files(folder / "text")[0]
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "triptych/2"
    raw = path.read_bytes()[512:]
    block = f"triptych/2 sha256:{hashlib.sha256(raw).hexdigest()}\n".encode().ljust(512, b"\0")
    path.write_bytes(block + raw)
    before = content(folder)
    with pytest.raises(InputError, match="Update triptych"):
        compact(folder)
    assert content(folder) == before


# -- faults ---------------------------------------------------------------------------------------------


def compact_on_a_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    try:
        compact(folder)
    except OSError as error:
        sys.exit(error.errno)


def test_a_full_disk_is_an_error_and_leaves_all_as_before(tmp_path):
    for number in range(6):
        write_clip(tmp_path, "vision", number)
    before = content(tmp_path)
    merger = FORK.Process(target=compact_on_a_full_disk, args=(tmp_path,))
    merger.start()
    merger.join()
    assert merger.exitcode == errno.EFBIG
    assert content(tmp_path) == before


def test_too_little_space_is_reported_before_anything_is_written(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5, 5))
    before, files = answers(folder), len(shard_files(folder / "text"))
    with pytest.raises(OSError, match=r"merging \d+ shards needs \d+ MiB .*, and 0 MiB are free") as found:
        compact(folder)
    assert found.value.errno == errno.ENOSPC
    assert answers(folder) == before
    assert len(shard_files(folder / "text")) == files - 1  # that of clip 5 was redundant


def test_other_rows_than_those_that_were_read_are_not_saved(tmp_path, monkeypatch):
    for number in range(3):
        write_clip(tmp_path, "audio", number)
    before = content(tmp_path)
    copied = merged_shard._copy
    monkeypatch.setattr(merged_shard, "_copy", lambda *given: copied(*given)[::-1])
    with pytest.raises(merged_shard.ShardError, match="not those that were read"):
        compact(tmp_path)
    assert content(tmp_path) == before


def test_an_open_store_asks_to_open_the_folder_again(folder):
    for check in (True, False):
        store = FeatureStore(folder, check=check)
        path = store._places["text"].find("clip_01")[0]
        path.rename(folder / "moved")
        with pytest.raises(RemovedShardError, match=r"cannot be opened.*: open the folder again"):
            store.read("text", "clip_01")
        (folder / "moved").rename(path)
    store = FeatureStore(folder)
    compact(folder)
    with pytest.raises(RemovedShardError, match="triptych compact"):
        store.read("text", "clip_01")
    assert "clip_01" in FeatureStore(folder).ids("text")


# -- the command ----------------------------------------------------------------------------------------


def test_the_command_prints_what_it_did(folder):
    write_ledgers(folder)
    before = content(folder)
    planned = json.loads(call("compact", folder, "--dry-run", "--json").output)
    assert content(folder) == before
    done = call("compact", folder)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split("  ")[0] == "stage"
    text = planned["stages"]["text"]
    assert lines[1].split()[:3] == ["text", str(text["shards_before"]), str(text["shards_after"])]
    assert lines[-1] == "ledger: 3 -> 1 files, 10 -> 7 lines"
    again = json.loads(call("compact", folder, "--json").output)
    assert again["stages"]["text"]["shards_before"] == text["shards_after"]
    assert again["ledger"]["files_before"] == 1
    assert (again["damaged"], again["dry_run"], planned["dry_run"]) == ([], False, True)


def test_it_does_not_run_beside_an_extraction(folder):
    before = content(folder)
    with only_run(folder):
        done = call("compact", folder)
    assert isinstance(done.exception, FolderBusyError)
    assert content(folder) == before


def test_other_folders_and_sizes_are_refused(tmp_path):
    done = call("compact", tmp_path)
    assert isinstance(done.exception, InputError)
    assert "not a feature folder" in str(done.exception)
    assert call("compact", tmp_path, "--size", "0").exit_code == 2
    assert compact_module.TARGET == 256 * MIB
