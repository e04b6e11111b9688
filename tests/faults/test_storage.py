"""Damage on disk: changed bytes with unchanged times, damaged and newer shards, a wrong index."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from shard_cases import make_header, make_items
from test_extraction import extract

from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.run.extraction import prepare, run, survey
from triptych.pipeline.storage import index_file
from triptych.pipeline.storage.index import FILE, FeatureIndex
from triptych.pipeline.storage.index_file import IndexFile
from triptych.pipeline.storage.schema import USER_BLOCK, NewerSchemaError, ShardError
from triptych.pipeline.storage.shards import verify_shard, write_shard
from triptych.pipeline.storage.store import FeatureStore

MUTATIONS = 1000


@pytest.fixture
def undisturbed(few_clips: Path, made_once: Callable[..., Path]) -> Path:
    """Audio of four clips, in two shards."""

    def make(folder: Path) -> None:
        run(prepare(few_clips, folder, only=["audio"]), jobs=0, group_size=2)

    return made_once("few-audio", make)


@pytest.fixture
def features(undisturbed: Path, tmp_path: Path) -> Path:
    shutil.copytree(undisturbed, tmp_path / "features")
    survey(tmp_path / "features")  # its index knows every shard
    return tmp_path / "features"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def shards(features: Path) -> list[Path]:
    return sorted((features / "audio").glob("*.h5"))


def rot(path: Path, position: int | None = None, bit: int = 1) -> None:
    """Change one bit and leave size and time as they were."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= bit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def saved(features: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """What the index has saved: entries of shards, digests of media files, doubted shards."""
    with closing(IndexFile(features / FILE)) as file:
        return list(file.shards()), list(file.all_media()), sorted(file.doubted())


def assert_equal(features: Path, undisturbed: Path) -> None:
    found, expected = FeatureStore(features), FeatureStore(undisturbed)
    assert found.ids("audio") == expected.ids("audio") != ()
    for clip in expected.ids("audio"):
        np.testing.assert_array_equal(found.read("audio", clip).values, expected.read("audio", clip).values)


# -- bit rot --------------------------------------------------------------------------------------------


def test_what_verify_finds_is_made_again(features: Path, undisturbed: Path, few_clips: Path) -> None:
    victim = shards(features)[0]
    with FeatureIndex(features) as index:
        lost = {one.clip_id for one in index.holdings("audio") if one.shard == victim}
    rot(victim)
    assert not survey(features).damaged, "size and time are those of the index"
    assert call("verify", features).exit_code == 4
    found = survey(features)
    assert str(victim) in "".join(found.damaged)
    assert set(found.plan.stages["audio"].todo) == lost
    assert lost.isdisjoint(FeatureStore(features).ids("audio")), "the store does not read it"
    assert not extract(few_clips, features, only=["audio"]).plan.stages["audio"].todo
    assert_equal(features, undisturbed)


def test_an_index_that_was_open_meanwhile_does_not_bring_the_damage_back(features: Path) -> None:
    with FeatureIndex(features) as before:
        rot(shards(features)[0])
        call("verify", features)
        before._changed = True
    assert list(FeatureIndex(features).damaged) == shards(features)[:1]


def test_a_shard_that_is_intact_after_all_is_used_again(features: Path) -> None:
    rot(shards(features)[0])
    call("verify", features)
    rot(shards(features)[0])  # the same bit
    assert FeatureIndex(features).damaged == {}
    assert saved(features)[2] == []


def test_the_first_read_in_a_process_finds_bit_rot(
    features: Path, undisturbed: Path, few_clips: Path
) -> None:
    victim = shards(features)[0]
    store = FeatureStore(features)
    clip = next(clip for clip in store.ids("audio") if store._places["audio"].find(clip)[0] == victim)
    with h5py.File(victim) as file:  # a byte of the columns' names, which HDF5 checks by no sum of its own
        name = file["columns"][5]
    rot(victim, victim.read_bytes().index(name))
    with pytest.raises(ShardError, match="not the SHA-256"):
        store.read("audio", clip)
    assert (
        not survey(features).plan.stages["audio"].done or clip in survey(features).plan.stages["audio"].todo
    )
    extract(few_clips, features, only=["audio"])
    assert_equal(features, undisturbed)


def test_the_check_of_the_first_read_can_be_switched_off(features: Path) -> None:
    victim = shards(features)[0]
    store = FeatureStore(features, check=False)
    clip = next(clip for clip in store.ids("audio") if store._places["audio"].find(clip)[0] == victim)
    rot(victim, 100)  # in the user block, which HDF5 does not read
    assert len(store.read("audio", clip))


def test_a_shard_is_checked_once(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []
    monkeypatch.setattr("triptych.pipeline.storage.checked.checksum_problem", checked.append)
    for _ in range(2):
        store = FeatureStore(features)
        for clip in store.ids("audio"):
            store.read("audio", clip)
    assert sorted(checked) == shards(features)


# -- verify and repair ----------------------------------------------------------------------------------


def test_repair_sets_damaged_shards_aside(features: Path, undisturbed: Path, few_clips: Path) -> None:
    victim = shards(features)[0]
    whole = victim.read_bytes()
    for number in (1, 2):  # a second repair replaces nothing
        victim.write_bytes(whole)
        rot(victim)
        damaged = victim.read_bytes()
        done = call("verify", features, "--repair")
        assert done.exit_code == 4
        aside = features / "damaged" / "audio" / (victim.name if number == 1 else f"{victim.stem}-2.h5")
        assert f"is now damaged/audio/{aside.name}" in done.output
        assert aside.read_bytes() == damaged
        assert not victim.exists()
        extract(few_clips, features, only=["audio"])
        assert call("verify", features).output.endswith("shards, 0 damaged\n")
        assert_equal(features, undisturbed)


def test_foreign_files_are_listed_and_stay(features: Path) -> None:
    (features / "audio" / "notes.txt").write_text("mine")
    (features / "audio" / "more").mkdir()
    (features / "audio" / f"{shards(features)[0].name}.00000000-1-00000000.tmp").touch()
    done = call("verify", features, "--repair", "--json")
    assert done.exit_code == 0
    assert json.loads(done.output)["foreign"] == ["audio/more", "audio/notes.txt"]
    assert (features / "audio" / "notes.txt").read_text() == "mine"
    assert f"left alone: {features}/audio/notes.txt" in call("verify", features).output


def newer(path: Path, schema: str = "triptych/2", block: str | None = None) -> None:
    """Write a shard as a newer version might."""
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = schema
    content = path.read_bytes()[USER_BLOCK:]
    start = f"{block or schema} sha256:{hashlib.sha256(content).hexdigest()}\n".encode()
    path.write_bytes(start.ljust(USER_BLOCK, b"\0") + content)


def test_a_newer_schema_is_no_damage(features: Path, few_clips: Path) -> None:
    victim = shards(features)[0]
    newer(victim)
    before = victim.read_bytes()
    done = call("verify", features, "--repair")
    assert done.exit_code == 2
    assert (
        "written in the newer schema triptych/2; this version reads triptych/1. Update triptych"
        in done.output
    )
    assert "2 shards, 0 damaged, 1 of a newer schema" in done.output
    with pytest.raises(InputError, match="Update triptych"):
        prepare(few_clips, features, only=["audio"])
    with pytest.raises(InputError, match="Update triptych"):
        FeatureStore(features)
    assert call("prune", features, "--yes").exit_code != 0
    assert victim.read_bytes() == before


def test_a_newer_shard_is_not_written_over(tmp_path: Path) -> None:
    path = write_shard(tmp_path, make_header("audio"), make_items("audio", (3, 4)))
    newer(path)
    with pytest.raises(NewerSchemaError):
        write_shard(tmp_path, make_header("audio"), make_items("audio", (3, 4)))


def test_a_changed_bit_in_the_schema_is_damage(features: Path) -> None:
    newer(shards(features)[0], schema="triptych/1", block="triptych/3")
    assert call("verify", features).exit_code == 4


# -- the index ------------------------------------------------------------------------------------------


def spoil(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as base:
        for statement in statements:
            base.execute(statement)
        base.commit()


WRONG_DIGEST = f"UPDATE media SET digest = '{'0' * 64}'"


@pytest.fixture
def settled(few_clips: Path, tmp_path: Path) -> Path:
    """Clips whose files are old enough for their digests to be saved."""
    shutil.copytree(few_clips, tmp_path / "clips")
    for file in (tmp_path / "clips").rglob("*"):
        os.utime(file, (1, 1))
    return tmp_path / "clips"


def test_a_wrong_digest_in_the_index_fails_no_clip(settled: Path, features: Path, undisturbed: Path) -> None:
    prepare(settled, features, only=["audio"])
    spoil(features / FILE, WRONG_DIGEST)
    for shard in shards(features):
        shard.unlink()
    found = extract(settled, features, only=["audio"])
    assert not found.plan.stages["audio"].failed
    assert_equal(features, undisturbed)


def test_a_wrong_digest_with_a_matching_hash_fails_a_clip_once(
    settled: Path, features: Path, undisturbed: Path
) -> None:
    prepare(settled, features, only=["audio"])
    shards, media, _ = saved(features)
    assert media
    index_file.save(features / FILE, shards, ((path, stamp, "0" * 64) for path, stamp, _ in media), ())
    extract(settled, features, only=["audio"])
    found = extract(settled, features, only=["audio"])
    assert not found.plan.stages["audio"].failed
    assert_equal(features, undisturbed)


@pytest.mark.parametrize(
    "statements",
    [
        ("UPDATE shards SET stage = CAST(x'ff' AS TEXT)",),
        ("UPDATE shards SET content = CAST(x'5bff5d' AS TEXT)",),
        ("UPDATE media SET digest = CAST(x'ff' AS TEXT)",),
        ("UPDATE shards SET hash = CAST(x'ff' AS TEXT)",),
        ("DROP TABLE media", "CREATE VIEW media AS SELECT 1 AS path, 2 AS stamp, 3 AS digest, 4 AS hash"),
        (
            "DROP TABLE doubted",
            "CREATE VIEW doubted AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT x AS stage, x AS name, x AS hash FROM n",
        ),
        ("INSERT INTO doubted SELECT stage, name, 'x' FROM shards",),
    ],
)
def test_an_index_with_invalid_content_is_rebuilt(
    settled: Path, features: Path, statements: tuple[str, ...]
) -> None:
    prepare(settled, features, only=["audio"])
    spoil(features / FILE, *statements)
    for command in (["status"], ["verify"]):
        assert call(*command, features).exit_code == 0
    assert not survey(features).damaged
    assert not survey(features).plan.stages["audio"].todo


def test_an_index_that_is_no_file_does_not_hang(features: Path) -> None:
    (features / FILE).unlink()
    os.mkfifo(features / FILE)
    assert not survey(features).plan.stages["audio"].todo


def test_1000_flipped_and_truncated_indexes_are_rebuilt(settled: Path, features: Path) -> None:
    prepare(settled, features, only=["audio"])
    whole, draw = (features / FILE).read_bytes(), random.Random(3)
    shards, media, _ = saved(features)
    for _ in range(MUTATIONS):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (features / FILE).write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        found_shards, found_media, found_doubted = saved(features)
        assert set(found_shards) <= set(shards)
        assert set(found_media) <= set(media)
        assert not found_doubted


# -- shards and prune -----------------------------------------------------------------------------------


def test_1000_flipped_and_truncated_shards_are_found(tmp_path: Path) -> None:
    path = write_shard(tmp_path, make_header("audio"), make_items("audio", (3, 4)))
    whole, draw = path.read_bytes(), random.Random(2)
    missed = []
    for number in range(MUTATIONS):
        content = bytearray(whole)
        if number % 4 == 0:
            del content[draw.randrange(len(content)) :]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        if not verify_shard(path, "audio"):
            missed.append(number)
    assert missed == []


def test_prune_of_a_recipe_without_fingerprints_removes_nothing(features: Path) -> None:
    recipe = json.loads((features / "recipe.json").read_text())
    (features / "recipe.json").write_text(json.dumps({**recipe, "fingerprints": {}}))
    before = shards(features)
    done = call("prune", features, "--yes")
    assert isinstance(done.exception, InputError)
    assert "no fingerprints" in str(done.exception)
    assert shards(features) == before
