"""A folder that lives for months: clips that move, are renamed, vanish or come back, and what prune removes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from manifest_cases import write
from test_extraction import extract

from triptych.extractors.base import Reason
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.run.extraction import prepare, survey
from triptych.pipeline.storage.dataset import FeatureDataset
from triptych.pipeline.storage.store import FeatureStore


@pytest.fixture
def clips(few_clips: Path, tmp_path: Path) -> Path:
    """Four clips: two directly in the folder, two below."""
    files = sorted((few_clips / "Raw").rglob("*.mp4"))
    for name, file in zip(("a.mp4", "b.mp4", "v/c.mp4", "v/d.mp4"), files, strict=True):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "clips" / name)
    return tmp_path / "clips"


@pytest.fixture
def features(clips: Path, tmp_path: Path) -> Path:
    extract(clips, tmp_path / "features", only=["audio"])
    return tmp_path / "features"


def call(*arguments: object, **options: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)), **options)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_renamed_source_costs_nothing(clips: Path, features: Path) -> None:
    clips.rename(clips.with_name("elsewhere"))
    again = prepare(clips.with_name("elsewhere"), features, only=["audio"])
    assert again.plan.work == ()
    assert not again.vanished
    assert not again.moved


def test_renamed_and_moved_clips_keep_their_features(clips: Path, features: Path) -> None:
    (clips / "a.mp4").rename(clips / "first.mp4")
    (clips / "w").mkdir()
    (clips / "v" / "c.mp4").rename(clips / "w" / "c.mp4")
    again = prepare(clips, features, only=["audio"])
    assert again.plan.work == ()
    assert again.moved == {"a": str(clips / "first.mp4"), "v$_$c": str(clips / "w" / "c.mp4")}
    assert [clip.id for clip in again.manifest.clips] == ["a", "b", "v$_$c", "v$_$d"]

    out = call("extract", clips, "-o", features, "--only", "audio")
    assert f"2 clips moved or renamed; their features stay valid: {clips}/first.mp4 is a" in out
    stored = {clip.id: clip.path for clip in load_manifest(features / "manifest.csv").clips}
    assert stored == {"a": "first.mp4", "b": "b.mp4", "v$_$c": "w/c.mp4", "v$_$d": "v/d.mp4"}
    later = prepare(clips, features, only=["audio"])
    assert (later.plan.work, later.moved) == ((), {})


def test_a_copy_is_a_clip_of_its_own(clips: Path, features: Path) -> None:
    shutil.copy(clips / "a.mp4", clips / "copy.mp4")
    again = prepare(clips, features, only=["audio"])
    assert [work.clip.id for work in again.plan.work] == ["copy"]


def test_a_name_stated_in_a_table_is_not_replaced(clips: Path, features: Path) -> None:
    (clips / "a.mp4").rename(clips / "first.mp4")
    table = write(clips / "m.csv", "path,id\nfirst.mp4,mine\n")
    assert [work.clip.id for work in prepare(table, features, only=["audio"]).plan.work] == ["mine"]


def test_vanished_clips_leave_the_data_set_and_come_back(clips: Path, features: Path, tmp_path: Path) -> None:
    (clips / "b.mp4").rename(tmp_path / "b.mp4")
    out = call("extract", clips, "-o", features, "--only", "audio")
    assert "1 clip no longer in the source, left out of the data set: b." in out
    assert survey(features).vanished == ("b",)
    assert "1 clip no longer in the source" in call("status", features)
    assert len(FeatureDataset(FeatureStore(features), stages=("audio",))) == 3

    (tmp_path / "b.mp4").rename(clips / "b.mp4")
    back = prepare(clips, features, only=["audio"])
    assert (back.plan.work, back.vanished) == ((), ())


def test_a_disk_that_is_not_mounted_and_other_sources_remove_nothing(
    clips: Path, features: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(clips / "a.mp4", other / "x.mp4")
    with (other / "x.mp4").open("ab") as stream:
        stream.write(b"\0")
    assert not extract(other, features, only=["audio"]).vanished
    clips.rename(tmp_path / "unmounted")
    assert not extract(other, features, only=["audio"]).vanished
    assert len(load_manifest(features / "manifest.csv", check_files=False).clips) == 5


def test_a_feature_folder_is_split_without_its_clips(clips: Path, features: Path) -> None:
    clips.rename(clips.with_name("unmounted"))
    own = features / "manifest.csv"
    assert call("manifest", own, "--split", "1:1:2", "--anew", "-o", own) == f"4 clips in {own}\n"
    found = load_manifest(own, check_files=False).clips
    assert sorted(clip.split for clip in found) == ["test", "test", "train", "valid"]
    assert found[0].root == str(clips)


def test_prune_asks_and_removes_what_is_not_needed(clips: Path, features: Path) -> None:
    old = set((features / "audio").glob("*.h5"))
    extract(clips, features, only=["audio"], assignments=["audio.mfcc_htk=true"])
    (clips / "b.mp4").unlink()
    extract(clips, features, only=["audio"])
    shards = {path: path.stat().st_mtime_ns for path in (features / "audio").glob("*.h5")}
    store = FeatureStore(features)
    values_before = {id: store.read("audio", id).values for id in ("a", "v$_$c", "v$_$d")}

    listed = call("prune", features, input="n\n")
    assert listed.count("settings replaced: audio/") == len(old)
    assert "no longer in the source: b in audio/" in listed
    assert set((features / "audio").glob("*.h5")) == set(shards)

    removed = call("prune", features, "--yes")
    assert removed.endswith("removed\n")
    assert not any(path.exists() for path in old)
    after = FeatureStore(features)
    assert after.ids("audio") == tuple(values_before)
    for id, values in values_before.items():
        assert (after.read("audio", id).values == values).all()
    assert call("prune", features) == "nothing to remove\n"
    assert survey(features).vanished == ()
    assert prepare(clips, features, only=["audio"]).plan.work == ()


def test_prune_without_an_answer_removes_nothing(clips: Path, features: Path) -> None:
    (clips / "b.mp4").unlink()
    extract(clips, features, only=["audio"])
    before = set((features / "audio").glob("*.h5"))
    done = CliRunner().invoke(cli, ["prune", str(features)], input="")
    assert isinstance(done.exception, InputError)
    assert "nothing was removed; --yes removes without asking" in str(done.exception)
    assert set((features / "audio").glob("*.h5")) == before


def test_a_missing_file_is_listed_until_it_exists(clips: Path, features: Path) -> None:
    good = clips / "b.mp4"
    shutil.copy(good, clips.parent / "good.mp4")
    (clips / "e.mp4").symlink_to(clips / "gone.mp4")
    table = write(clips / "m.csv", "path\na.mp4\ne.mp4\nf.mp4\n")
    for _ in range(2):
        failed = extract(table, features, only=["audio"]).plan.stages["audio"].failed
        assert {clip: line.reason for clip, line in failed.items()} == dict.fromkeys(
            "ef", Reason.FILE_MISSING
        )
    assert "file_missing: 2 clips failed" in call("status", features)
    (clips.parent / "good.mp4").rename(clips / "f.mp4")
    assert list(survey(features).plan.stages["audio"].failed) == ["e"]
    done = extract(table, features, only=["audio"]).plan.stages["audio"]
    assert ("f" in done.done, list(done.failed)) == (True, ["e"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"recipe": ', "cannot be read (JSONDecodeError"),
        (b"", "cannot be read (JSONDecodeError"),
        (b"\x98", "cannot be read (UnicodeDecodeError"),
        (b"[]", "cannot be read (TypeError"),
        (b"{}", "not the recipe of a feature folder ('recipe' is missing)"),
        (b'{"recipe": {"audio": {"nope": 1}}, "fingerprints": {}}', "audio.nope: unknown setting"),
        (b'{"recipe": {"audio": 3}, "fingerprints": {}}', "cannot be read (TypeError: recipe.audio"),
    ],
)
def test_damaged_recipe_is_one_clear_error(clips: Path, features: Path, content: bytes, message: str) -> None:
    (features / "recipe.json").write_bytes(content)
    commands = [["status"], ["prune"], ["extract", str(clips), "--only", "audio", "-o"]]
    for command in commands if "audio" in message else [*commands, ["verify"]]:
        done = CliRunner().invoke(cli, [*command, str(features)])
        assert isinstance(done.exception, InputError), (command, done.output)
        (problem,) = done.exception.problems
        assert problem.startswith(f"{features}/recipe.json: {message}")


def test_prune_removes_damaged_shards_which_are_made_again(clips: Path, features: Path) -> None:
    shard = sorted((features / "audio").glob("*.h5"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert f"damaged: audio/{shard.name}" in call("prune", features, "--yes")
    assert not shard.exists()
    extract(clips, features, only=["audio"])
    assert call("verify", features).endswith("0 damaged\n")


def test_prune_keeps_what_is_readable_until_new_features_are_complete(clips: Path, features: Path) -> None:
    extract(clips, features, only=["audio"], assignments=["audio.mfcc_htk=true"], limit=1)
    assert call("prune", features, "--yes") == "nothing to remove\n"
    assert len(FeatureStore(features).ids("audio")) == 4
