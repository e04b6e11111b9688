from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from shard_cases import digest, make_features, make_header, make_items

from triptych.pipeline.storage import index as index_module
from triptych.pipeline.storage.index import FILE, FeatureIndex, text_digest
from triptych.pipeline.storage.schema import ShardItem
from triptych.pipeline.storage.shards import verify_shard, write_shard

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path):
    """Two audio shards of three clips and a text shard of two."""
    features = tmp_path / "features"
    write_shard(features / "audio", make_header("audio"), make_items("audio", (3, 4, 5)))
    write_shard(features / "audio", make_header("audio"), make_items("audio", (3, 4, 5), first=3))
    write_shard(features / "text", make_header("text"), make_items("text", (3, 4)))
    return features


@pytest.fixture
def examined(monkeypatch):
    """The shards whose content is looked at."""
    seen = []
    real = index_module.checksum_problem
    monkeypatch.setattr(index_module, "checksum_problem", lambda path: seen.append(path) or real(path))
    return seen


def stored(folder, stage="audio"):
    return sorted((holding.clip_id, holding.digest) for holding in FeatureIndex(folder).holdings(stage))


def expected(*numbers):
    return [(f"video_{k:04d}$_$00{k}", digest(k)) for k in numbers]


def test_it_knows_where_every_clip_is(folder):
    holdings = list(FeatureIndex(folder).holdings("audio"))
    assert sorted((one.clip_id, one.digest) for one in holdings) == expected(*range(6))
    assert [one.shard for one in holdings] == sorted(one.shard for one in holdings)
    assert [one.row for one in holdings] == [0, 1, 2] * 2
    assert {one.fingerprint for one in holdings} == {make_header("audio").fingerprint}
    assert stored(folder, "text") == expected(0, 1)
    assert stored(folder, "vision") == []


def test_a_shard_is_examined_once(folder, examined):
    FeatureIndex(folder)
    assert len(examined) == 3
    FeatureIndex(folder)
    assert len(examined) == 3
    write_shard(folder / "audio", make_header("audio"), make_items("audio", (2,), first=6))
    index = FeatureIndex(folder)
    assert len(examined) == 4
    write_shard(folder / "audio", make_header("audio"), make_items("audio", (2,), first=7))
    index.refresh()
    assert sorted(one.clip_id for one in index.holdings("audio"))[-1] == "video_0007$_$007"
    assert len(examined) == 5


def test_removed_shards_are_forgotten(folder):
    FeatureIndex(folder)
    next(iter(FeatureIndex(folder).holdings("audio"))).shard.unlink()
    assert len(stored(folder)) == 3
    shutil.rmtree(folder / "audio")
    assert stored(folder) == []


def spoil_with(content):
    return lambda path: path.write_bytes(content)


def spoil_by(*statements):
    def apply(path):
        with closing(sqlite3.connect(path)) as base:
            for statement in statements:
                base.execute(statement)
            base.commit()

    return apply


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        spoil_with(b""),
        spoil_with(b"not a database" * 500),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096)),
        lambda path: (path.unlink(), path.mkdir()),
        spoil_by("DROP TABLE media"),
        spoil_by("DROP TABLE shards", "CREATE TABLE shards (name, size)"),
        spoil_by("PRAGMA journal_mode = WAL", "UPDATE shards SET stage = 7"),
        spoil_by("UPDATE shards SET content = NULL"),
        spoil_by("UPDATE shards SET content = '[1, 2]'"),
        spoil_by("UPDATE shards SET content = '[]'"),
        spoil_by("UPDATE shards SET content = replace(content, 'video_0001', 'video_9999')"),
        spoil_by("UPDATE shards SET content = upper(content)"),
        spoil_by("UPDATE shards SET created = 7"),
        spoil_by("UPDATE shards SET stamp = '0:0'"),
        spoil_by("UPDATE media SET path = 7", "UPDATE shards SET stage = x'ff'"),
    ],
)
def test_an_invalid_index_is_rebuilt(folder, spoil):
    with FeatureIndex(folder) as index:
        media = folder.parent / "clip.mp4"
        media.write_bytes(b"clip")
        os.utime(media, (1, 1))
        index.digest_of(media)
    spoil(folder / FILE)
    with FeatureIndex(folder) as index:
        assert index.damaged == {}
        assert sorted((one.clip_id, one.digest) for one in index.holdings("audio")) == expected(*range(6))
        assert index.digest_of(media) == hashlib.sha256(b"clip").hexdigest()
    assert stored(folder) == expected(*range(6))


def test_a_rebuilt_index_is_saved(folder, examined):
    FeatureIndex(folder)
    (folder / FILE).write_bytes(b"not a database" * 500)
    FeatureIndex(folder)
    assert len(examined) == 6
    FeatureIndex(folder)
    assert len(examined) == 6


def test_an_index_of_another_folder_does_no_harm(folder, tmp_path):
    other = tmp_path / "other"
    write_shard(other / "audio", make_header("audio"), make_items("audio", (9, 9), first=90))
    FeatureIndex(other)
    shutil.copy(other / FILE, folder / FILE)
    assert stored(folder) == expected(*range(6))


def test_damaged_shards_are_left_out_and_listed(folder):
    first, second = sorted((folder / "audio").glob("*.h5"))
    before = FeatureIndex(folder)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 4
    first.write_bytes(content)
    before.refresh()
    for index in (before, FeatureIndex(folder)):
        assert list(index.damaged) == [first]
        assert str(index.damaged[first]) == verify_shard(first)[0]
        assert {one.shard for one in index.holdings("audio")} == {second}
    first.unlink()
    assert FeatureIndex(folder).damaged == {}


def test_what_is_no_shard_of_the_stage_is_damaged(folder):
    (folder / "audio" / "empty.h5").touch()
    (folder / "audio" / "folder.h5").mkdir()
    (folder / "audio" / "gone.h5").symlink_to("nowhere")
    (folder / "audio" / "x.h5.00000000-1-00000000.tmp").touch()
    (folder / "audio" / ".hidden.h5").touch()
    text = next((folder / "text").glob("*.h5"))
    shutil.copy(text, folder / "audio" / text.name)
    shutil.copy(text, folder / "text" / "renamed.h5")
    damaged = FeatureIndex(folder).damaged
    assert {path.name for path in damaged} == {"empty.h5", "folder.h5", "gone.h5", text.name, "renamed.h5"}
    assert damaged[folder / "audio" / text.name].path.parent.name == "audio"
    assert stored(folder) == expected(*range(6))


def test_a_folder_that_cannot_be_written_has_an_index_in_memory(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(index_module, "save", refuse)
    assert stored(folder) == expected(*range(6))
    assert not (folder / FILE).exists()


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    with FeatureIndex(tmp_path / "absent") as index:
        assert list(index.holdings("text")) == []
    assert not (tmp_path / "absent").exists()


# -- digests --------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "片段.mp4"
    path.write_bytes(b"one" * 1_000_000)
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def hashed(monkeypatch):
    """How often a file is read for its digest."""
    seen = []
    real = hashlib.file_digest
    monkeypatch.setattr(index_module.hashlib, "file_digest", lambda *args: seen.append(1) or real(*args))
    return seen


def test_a_digest_is_remembered_until_the_file_changes(tmp_path, clip, hashed):
    one, two = (hashlib.sha256(word * 1_000_000).hexdigest() for word in (b"one", b"two"))
    for _ in range(2):
        with FeatureIndex(tmp_path) as index:
            assert index.digest_of(clip) == index.digest_of(clip) == one
    assert len(hashed) == 1
    clip.write_bytes(b"two" * 1_000_000)
    os.utime(clip, ns=(10**18, 10**18 + 1))
    assert FeatureIndex(tmp_path).digest_of(clip) == two
    other = clip.with_name("other")
    other.write_bytes(b"one" * 1_000_000)
    os.utime(other, ns=(10**18, 10**18))
    other.replace(clip)  # size and time as they were at first, but another inode
    assert FeatureIndex(tmp_path).digest_of(clip) == one


def test_rehash_reads_again(tmp_path, clip, hashed):
    with FeatureIndex(tmp_path) as index:
        index.digest_of(clip)
        before = clip.stat()
        clip.write_bytes(b"two" * 1_000_000)
        os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
        stale = index.digest_of(clip)
        assert index.digest_of(clip, rehash=True) == hashlib.sha256(b"two" * 1_000_000).hexdigest() != stale
        assert index.digest_of(clip) != stale


def test_a_file_that_may_still_be_changing_is_not_remembered(tmp_path, clip, hashed):
    os.utime(clip)
    index = FeatureIndex(tmp_path)
    assert index.digest_of(clip) == index.digest_of(clip)
    assert len(hashed) == 2


def test_a_missing_file_is_an_error(tmp_path, clip):
    index = FeatureIndex(tmp_path)
    index.digest_of(clip)
    clip.unlink()
    with pytest.raises(FileNotFoundError):
        index.digest_of(clip)


def test_ill_coded_names_are_remembered(tmp_path, hashed):
    path = tmp_path / os.fsdecode(b"\xff\xfe.mp4")
    path.write_bytes(b"x")
    os.utime(path, (1, 1))
    for _ in range(2):
        with FeatureIndex(tmp_path) as index:
            index.digest_of(path)
    assert len(hashed) == 1


def test_a_long_hashing_is_saved_on_the_way(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(index_module, "SAVE_SECONDS", 0)
    FeatureIndex(tmp_path).digest_of(clip)
    assert (tmp_path / FILE).exists()


def test_processes_take_over_what_the_others_know(folder, clip, hashed):
    mine, theirs = FeatureIndex(folder), FeatureIndex(folder)
    other = clip.with_name("other.mp4")
    shutil.copy2(clip, other)
    mine.digest_of(clip)
    theirs.digest_of(other)
    mine.save()
    theirs.save()
    with FeatureIndex(folder) as both:
        both.digest_of(clip)
        both.digest_of(other)
    assert len(hashed) == 3 + 2  # three shards and two clips, each once


def open_many_times(folder, number):
    for k in range(10):
        item = ShardItem(f"{number}-{k}", digest(k), make_features("faces", 2))
        write_shard(folder / "faces", make_header("faces"), [item])
        with FeatureIndex(folder) as index:
            found = {holding.clip_id for holding in index.holdings("faces")}
            assert {f"{number}-{done}" for done in range(k + 1)} <= found
            assert index.damaged == {}


def test_many_processes_at_once(folder):
    processes = [FORK.Process(target=open_many_times, args=(folder, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(stored(folder, "faces")) == 40
    assert list(folder.glob("*.tmp")) == []


def test_text_digest():
    assert text_digest("我") == hashlib.sha256("我".encode()).hexdigest()
    assert text_digest("a") != text_digest("a ")
