from __future__ import annotations

import dataclasses
import errno
import hashlib
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_cases import COLUMNS, STAGES, assert_same, digest, make_features, make_header, make_items

from triptych.pipeline import atomic
from triptych.pipeline.atomic import remove_stale_temporaries
from triptych.pipeline.storage import shards
from triptych.pipeline.storage.schema import ShardError, ShardItem, shard_name
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import shard_files, verify_shard, write_shard


def write(folder, stage="audio", lengths=(5, 1, 9), **header):
    return write_shard(folder, dataclasses.replace(make_header(stage), **header), make_items(stage, lengths))


def rewrite(path, change):
    """Change a shard's content by plain h5py, give it a right checksum again, and the name that fits."""
    with h5py.File(path, "r+") as file:
        change(file)
        clips = zip(file["clip_id"].asstr()[...], file["source_digest"].asstr()[...], strict=True)
        fitting = path.with_name(shard_name(file.attrs["fingerprint"], clips))
    seal(path)
    return path.rename(fitting)


def seal(path):
    content = path.read_bytes()[512:]
    line = f"triptych/1 sha256:{hashlib.sha256(content).hexdigest()}\n".encode()
    path.write_bytes(line.ljust(512, b"\0") + content)


# -- round trip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_features_are_read_as_they_were_written(tmp_path, stage):
    items = make_items(stage, (7, 1, 300))
    path = write_shard(tmp_path / "new" / stage, make_header(stage), items)
    assert verify_shard(path) == []
    with Shard(path) as shard:
        assert shard.ids == tuple(item.clip_id for item in items)
        assert shard.digests == tuple(item.digest for item in items)
        assert tuple(zip(shard.columns, shard.units, strict=True)) == COLUMNS[stage]
        for index, item in enumerate(items):
            assert_same(shard.read(item.clip_id), item.features)
            assert_same(shard.read(index), item.features)
        written, read = make_header(stage), shard.header
        assert dataclasses.replace(read, frame_rate=0) == dataclasses.replace(written, frame_rate=0)
        np.testing.assert_equal(read.frame_rate, written.frame_rate)


# Any text that UTF-8 can hold, but NUL, which ends a string in HDF5.
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    clips=st.dictionaries(names, st.integers(1, 70), min_size=1, max_size=8), stage=st.sampled_from(STAGES)
)
def test_any_ids_and_any_lengths(tmp_path_factory, clips, stage):
    items = [
        ShardItem(clip_id, digest(clip_id), make_features(stage, rows, seed=rows))
        for clip_id, rows in clips.items()
    ]
    path = write_shard(tmp_path_factory.mktemp("shards"), make_header(stage), items)
    assert verify_shard(path) == []
    with Shard(path) as shard:
        assert sorted(shard.ids) == sorted(clips)
        for item in items:
            assert_same(shard.read(item.clip_id), item.features)


def test_fixed_width_tokens_are_accepted(tmp_path):
    features = make_features("text", 4)
    tokens = features.extras["tokens"].astype("U5")
    fixed = dataclasses.replace(features, extras={**features.extras, "tokens": tokens})
    path = write_shard(tmp_path, make_header("text"), [ShardItem("a", digest("a"), fixed)])
    with Shard(path) as shard:
        assert_same(shard.read("a"), features)


def test_plain_h5py_opens_it(tmp_path):
    with h5py.File(write(tmp_path, "vision", (40, 60)), "r") as file:
        assert file.attrs["schema"] == "triptych/1"
        assert file.attrs["backend"] == "facemesh"
        assert file["values"].dims[1]["columns"] == file["columns"]
        assert file["columns"].asstr()[0] == "gaze_0_x"
        assert file["values"].chunks[1] == 709
        assert file["values"].chunks[0] * 709 * 4 <= 128 * 1024
        assert all(file[name].fletcher32 for name in ("values", "offsets", "times", "valid", "confidence"))
        assert file["offsets"][...].tolist() == [0, 40, 100]


def test_reading_a_clip_reads_its_rows_alone(tmp_path):
    path = write(tmp_path, "vision", (200, 200, 200))
    with h5py.File(path, "r") as file:
        last = file["values"].id.get_chunk_info(file["values"].id.get_num_chunks() - 1)
    with path.open("r+b") as file:
        file.seek(last.byte_offset)
        file.write(b"\xff" * 64)
    with Shard(path) as shard:
        shard.read(0)
        with pytest.raises(
            ShardError, match=r"\.h5: clip .*2, rows 400 to 600: .*The next `triptych extract` makes"
        ):
            shard.read(2)


def test_reading_an_unknown_clip_is_an_error(tmp_path):
    with Shard(write(tmp_path)) as shard:
        for absent in ("nobody", 3, -4):
            with pytest.raises(KeyError, match="has no clip"):
                shard.read(absent)


# -- names, order, repetition ---------------------------------------------------------------------------


def test_a_shards_name_follows_from_its_content():
    pairs = [("a", digest(1)), ("b", digest(2))]
    name = shard_name(digest("x"), pairs)
    assert name.startswith(digest("x")[:8] + "-")
    assert shard_name(digest("x"), reversed(pairs)) == name
    others = [pairs[:1], [("a", digest(2)), ("b", digest(1))], [("a", digest(1)), ("c", digest(2))]]
    same_start = digest("x")[:8] + digest("y")[8:]
    assert name not in {shard_name(digest("x"), other) for other in others} | {shard_name(same_start, pairs)}


def test_the_same_group_makes_the_same_bytes(tmp_path, monkeypatch):
    class Noon(shards.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2025, 1, 1, 12, tzinfo=tz)

    monkeypatch.setattr(shards, "datetime", Noon)
    items = make_items("text", (5, 17, 80))
    one = write_shard(tmp_path / "one", make_header("text"), items)
    two = write_shard(tmp_path / "two", make_header("text"), items[::-1])
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_only_a_damaged_shard_is_written_again(tmp_path):
    path = write(tmp_path)
    first = path.stat()
    write(tmp_path)
    assert path.stat() == first
    os.truncate(path, first.st_size - 100)
    assert write(tmp_path) == path
    assert verify_shard(path) == []
    assert list(tmp_path.iterdir()) == [path]


# -- refusals -------------------------------------------------------------------------------------------


def with_values(features, **arrays):
    return dataclasses.replace(features, **arrays)


audio = make_features("audio", 4)
late = np.array([0.0, 1.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (make_features("audio", 0), "values: no rows"),
        (with_values(audio, values=audio.values.astype("f8")), "values: float64 instead of float32"),
        (with_values(audio, values=audio.values * np.float32(np.nan)), "values: not finite at row 0"),
        (with_values(audio, times=late), "times: not later at row 2"),
        (with_values(audio, times=late * np.nan), "times: not finite at row 0"),
        (with_values(audio, valid=audio.valid.astype("u1")), "valid: uint8 instead of bool"),
        (with_values(audio, valid=audio.valid[:, None]), "valid: 2 dimensions"),
        (with_values(audio, extras={}), "extras"),
        (with_values(audio, extras={"voiced": audio.valid, "loud": audio.valid}), "extras"),
        (with_values(audio, columns=audio.columns[::-1]), "columns"),
        (make_features("faces", 4), "columns"),
    ],
)
def test_invalid_features_are_refused(tmp_path, features, words):
    for others in (
        "before",
        "later",
    ):  # the shard's clips are sorted by id: the invalid one is last, or first
        items = [ShardItem(others, digest(0), audio), ShardItem("invalid", digest(1), features)]
        with pytest.raises(ValueError, match=f"clip invalid: {words}"):
            write_shard(tmp_path / "audio", make_header("audio"), items)
    assert not (tmp_path / "audio").exists()


def test_tokens_have_no_times(tmp_path):
    features = dataclasses.replace(make_features("text", 3), times=np.arange(3.0))
    with pytest.raises(ValueError, match="times"):
        write_shard(tmp_path, make_header("text"), [ShardItem("a", digest(0), features)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stage": "smell"}, "stage 'smell'"),
        ({"fingerprint": "abc"}, "fingerprint"),
        ({"frame_rate": np.nan}, "frame_rate"),
        ({"recipe": "{"}, "recipe: not JSON"),
        ({"attributes": {"created": "now"}}, "attributes created"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, change, words):
    header = dataclasses.replace(make_header("audio"), **change)
    with pytest.raises(ValueError, match=words):
        write_shard(tmp_path, header, make_items("audio", (3,)))


def test_empty_groups_and_duplicate_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one clip"):
        write(tmp_path, lengths=())
    with pytest.raises(ValueError, match="occurs twice"):
        write_shard(tmp_path, make_header("audio"), make_items("audio", (3,)) * 2)


# -- damage ---------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    path = write(tmp_path, "text", (5, 9))
    whole = path.read_bytes()
    rng = random.Random(1)
    offsets = [*range(0, 512, 7), *(rng.randrange(len(whole)) for _ in range(600)), len(whole) - 1]
    for offset in offsets:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        (problem,) = verify_shard(path)
        assert problem.startswith(f"{path}: user block:"), offset
        assert "The next `triptych extract` makes" in problem


@pytest.mark.parametrize("length", [0, 1, 100, 511, 512, 513, 2000, -1])
def test_a_truncated_file_is_found(tmp_path, length):
    path = write(tmp_path)
    os.truncate(path, length if length >= 0 else path.stat().st_size + length)
    assert len(verify_shard(path)) == 1
    with pytest.raises(ShardError):
        Shard(path)


def test_other_files_are_not_taken_for_shards(tmp_path):
    strange = [tmp_path / name for name in ("text.h5", "folder.h5", "absent.h5", "plain.h5", "sealed.h5")]
    strange[0].write_text("not HDF5" * 200)
    strange[1].mkdir()
    h5py.File(strange[3], "w").close()
    strange[4].write_bytes(bytes(512) + b"not HDF5" * 200)
    seal(strange[4])
    for path in strange:
        assert len(verify_shard(path)) == 1
        with pytest.raises(ShardError, match=path.name):
            Shard(path)


def replace_dataset(name, change):
    def apply(file):
        data = change(file[name][...])
        del file[name]
        file[name] = data

    return apply


def assign(name, index, value):
    def apply(file):
        file[name][index] = value

    return apply


def drop(name):
    return lambda file: file.__delitem__(name)


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("times"), "times: missing"),
        (lambda file: file.create_dataset("more", data=[1]), "more: not in the schema"),
        (replace_dataset("times", lambda data: data.astype("f4")), "times: float32 instead of float64"),
        (replace_dataset("times", lambda data: data[:-1]), "times: 14 entries instead of 15"),
        (replace_dataset("valid", lambda data: data[None]), "valid: 2 dimensions"),
        (replace_dataset("source_digest", lambda data: data.astype("S64")), "source_digest: "),
        (replace_dataset("values", lambda data: data), "values: not chunked"),
        (assign("offsets", 1, 4), "times: not later at row 1"),
        (assign("offsets", 1, 20), "offsets: not rising"),
        (assign("offsets", 0, 1), "offsets: not rising"),
        (assign("offsets", 3, 14), "offsets: not rising"),
        (assign("offsets", 2, 5), "offsets: not rising"),
        (assign("values", (7, 3), np.nan), "clip video_0002.*values: not finite at row 1"),
        (assign("times", 8, 0.0), "clip video_0002.*times: not later at row 2"),
        (assign("times", 8, np.inf), "clip video_0002.*times: not finite at row 2"),
        (assign("clip_id", 1, "video_0000$_$000"), "clip_id: video_0000.* twice"),
        (assign("columns", 4, "mfcc_99"), "columns: 33 names and units"),
        (assign("units", 0, "Hz"), "columns: 33 names and units"),
        (attribute("schema", "triptych/2"), "root attributes: schema is 'triptych/2'"),
        (attribute("recipe", "{"), "root attributes: recipe: not JSON"),
        (attribute("software", "{"), "root attributes"),
        (attribute("frame_rate", -1.0), "root attributes: frame_rate"),
        (attribute("stage", "faces"), "datasets: "),
        (lambda file: file.attrs.__delitem__("created"), "no attribute created"),
        (lambda file: file["values"].dims[1].detach_scale(file["columns"]), "dimension scale"),
    ],
)
def test_wrong_content_with_a_right_checksum_is_found(tmp_path, change, words):
    path = rewrite(write(tmp_path), change)
    problems = "\n".join(verify_shard(path))
    assert re.search(words, problems), problems
    assert str(path) in problems


def test_a_foreign_name_is_found(tmp_path):
    path = write(tmp_path)
    (problem,) = verify_shard(path.rename(path.with_name("other.h5")))
    assert f"file name: {path.name}" in problem


def test_all_problems_are_listed(tmp_path):
    def change(file):
        file["values"][0, 0] = np.inf
        file["values"][6, 0] = np.inf
        file["times"][7] = np.nan

    assert len(verify_shard(rewrite(write(tmp_path), change))) == 3


def test_a_shard_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(ShardError(Path("a.h5"), "cut")))
    assert str(error) == "a.h5: cut. The next `triptych extract` makes its features again"


# -- crashes --------------------------------------------------------------------------------------------

FORK = multiprocessing.get_context("fork")


def write_many(folder):
    items = [make_items("vision", (60, 60, 60), first=3 * k) for k in range(4)]
    for k in range(10**6):
        write_shard(Path(folder, str(k)), make_header("vision"), items[k % 4])


def shards_below(folder):
    return [path for stage in sorted(folder.glob("*")) for path in shard_files(stage)]


def test_a_writer_killed_at_any_moment_leaves_whole_shards(tmp_path):
    rng = random.Random(7)
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        writer = FORK.Process(target=write_many, args=(folder,))
        writer.start()
        time.sleep(rng.uniform(0.02, 0.15))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert [problem for path in shards_below(folder) for problem in verify_shard(path)] == []
        for stage in folder.glob("*"):
            remove_stale_temporaries(stage)
            assert {path.suffix for path in stage.iterdir()} <= {".h5"}
        shutil.rmtree(folder, ignore_errors=True)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    die()


@pytest.mark.parametrize(
    ("owner", "call", "last_act", "left"),
    [
        (Path, "write_bytes", write_half, {".tmp"}),
        (os, "fsync", die, {".tmp"}),
        (Path, "replace", die, {".tmp"}),
        (atomic, "_sync_folder", die, {".h5"}),
    ],
)
def test_a_writer_killed_at_each_step(tmp_path, monkeypatch, owner, call, last_act, left):
    monkeypatch.setattr(owner, call, last_act)
    writer = FORK.Process(target=write, args=(tmp_path,))
    writer.start()
    writer.join()
    monkeypatch.undo()
    assert {path.suffix for path in tmp_path.iterdir()} == left
    assert len(shard_files(tmp_path)) == (left == {".h5"})
    assert len(remove_stale_temporaries(tmp_path)) == (left == {".tmp"})
    assert verify_shard(write(tmp_path)) == []


def write_on_a_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        write(folder, "vision", (60,))
    except OSError as error:
        sys.exit(error.errno)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    writer = FORK.Process(target=write_on_a_full_disk, args=(tmp_path,))
    writer.start()
    writer.join()
    assert writer.exitcode == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_only_stale_temporary_files_are_removed(tmp_path):
    gone = FORK.Process(target=time.sleep, args=(0,))
    gone.start()
    gone.join()
    here, elsewhere = atomic._host(), "0" * 8
    names = {
        "dead": f"a.h5.{here}-{gone.pid}-01234567.tmp",
        "alive": f"a.h5.{here}-{os.getpid()}-01234567.tmp",
        "elsewhere": f"a.h5.{elsewhere}-{gone.pid}-01234567.tmp",
        "elsewhere, old": f"b.h5.{elsewhere}-{gone.pid}-01234567.tmp",
        "a user's, old": "mine.tmp",
        "shard, old": "a.h5",
    }
    for why, name in names.items():
        (tmp_path / name).touch()
        if "old" in why:
            os.utime(tmp_path / name, (0, 0))
    removed = {path.name for path in remove_stale_temporaries(tmp_path)}
    assert removed == {names["dead"], names["elsewhere, old"]}
    assert {path.name for path in tmp_path.iterdir()} == set(names.values()) - removed
    assert remove_stale_temporaries(tmp_path / "absent") == []
