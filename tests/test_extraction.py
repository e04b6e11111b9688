"""Runs of `extract` over clips: what is extracted, what is skipped, what is reported of failures."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from triptych.extractors.base import BackendMissingError
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.registry import stages as registered
from triptych.extractors.settings import MediaSettings
from triptych.extractors.text.stage import TextSettings
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.run.extraction import Extraction, prepare, run, survey
from triptych.pipeline.run.plan import Why
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage import index
from triptych.pipeline.storage.ledger import read_ledger
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import verify_shard
from triptych.pipeline.storage.store import FeatureStore

STAGES = ("text", "audio", "faces", "vision")


def extract(source: Path, folder: Path, jobs: int = 0, **options: object) -> Extraction:
    """Extract, by default in this process: a worker process needs seconds for its imports."""
    return run(prepare(source, folder, **options), jobs=jobs)


def shards(folder: Path, stages: Iterable[str] = STAGES) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for stage in stages for path in sorted((folder / stage).glob("*.h5"))
    }


def todo(extraction: Extraction) -> dict[str, dict[str, Why]]:
    return {name: plan.todo for name, plan in extraction.plan.stages.items() if plan.todo}


@pytest.fixture(scope="session")
def complete(few_clips: Path, small_bert: Path, made_once) -> Path:
    """All stages of four clips, extracted in this process."""
    pytest.importorskip("ai_edge_litert")

    def make(folder: Path) -> None:
        assert not todo(extract(few_clips, folder, assignments=settings(small_bert)))

    return made_once("complete-features", make)


def settings(bert: Path) -> list[str]:
    return [f"text.model={bert}", "vision.backend=facemesh"]


def test_every_stage_has_its_columns_and_finite_values(complete: Path) -> None:
    store = FeatureStore(complete)
    assert len(store.complete_ids(tuple(STAGES))) == 4
    for stage, width in {"text": 768, "audio": 33, "faces": 15, "vision": 709}.items():
        for clip in store.ids(stage):
            features = store.read(stage, clip)
            assert features.values.shape[1] == width
            assert np.isfinite(features.values).all()
    assert not [problem for path in shards(complete) for problem in verify_shard(path)]


def test_a_second_run_does_nothing(complete: Path, few_clips: Path) -> None:
    before = shards(complete)
    again = prepare(few_clips, complete)
    assert again.plan.work == ()
    run(again, jobs=0)
    assert shards(complete) == before


def test_two_worker_processes_give_the_same_bits(
    complete: Path, few_clips: Path, small_bert: Path, tmp_path: Path
) -> None:
    extract(
        few_clips,
        tmp_path / "two",
        jobs=2,
        assignments=settings(small_bert),
    )
    one, two = FeatureStore(complete), FeatureStore(tmp_path / "two")
    for stage in STAGES:
        assert one.ids(stage) == two.ids(stage)
        for clip in one.ids(stage):
            a, b = one.read(stage, clip), two.read(stage, clip)
            np.testing.assert_array_equal(a.values, b.values)
            np.testing.assert_array_equal(a.times, b.times)
            np.testing.assert_array_equal(a.valid, b.valid)


def test_another_text_model_extracts_only_text_again(complete: Path, few_clips: Path, tmp_path: Path) -> None:
    from triptych.pipeline.demo.bert import make_bert

    make_bert(tmp_path / "other", seed=1)
    folder = tmp_path / "features"
    shutil.copytree(complete, folder)
    before = shards(folder, ["audio", "faces", "vision"])
    planned = prepare(few_clips, folder, assignments=[f"text.model={tmp_path / 'other'}"])
    assert set(todo(planned)) == {"text"}
    assert set(todo(planned)["text"].values()) == {Why.SETTINGS_CHANGED}
    old = FeatureStore(complete).read("text", FeatureStore(complete).ids("text")[0]).values
    run(planned, jobs=0)
    assert shards(folder, ["audio", "faces", "vision"]) == before
    new = FeatureStore(folder).read("text", FeatureStore(folder).ids("text")[0]).values
    assert np.abs(new - old).max() > 0.1


def test_only_new_and_changed_clips_are_extracted(few_clips: Path, tmp_path: Path) -> None:
    clips, folder = tmp_path / "clips", tmp_path / "features"
    first, second, third = sorted((few_clips / "Raw").rglob("*.mp4"))[:3]
    (clips / "v").mkdir(parents=True)
    for name, file in (("a", first), ("b", second)):
        shutil.copy(file, clips / "v" / f"{name}.mp4")
    extract(clips, folder, only=["audio"])
    before = shards(folder)
    shutil.copy(third, clips / "v" / "c.mp4")
    assert todo(prepare(clips, folder, only=["audio"])) == {"audio": {"v$_$c": Why.NEW}}
    extract(clips, folder, only=["audio"])
    assert before.items() <= shards(folder).items()
    shutil.copy(third, clips / "v" / "a.mp4")
    assert todo(prepare(clips, folder, only=["audio"])) == {"audio": {"v$_$a": Why.CLIP_CHANGED}}
    extract(clips, folder, only=["audio"])
    store = FeatureStore(folder)
    np.testing.assert_array_equal(store.read("audio", "v$_$a").values, store.read("audio", "v$_$c").values)


def test_failures_are_typed_and_retried_on_request(few_clips: Path, tmp_path: Path) -> None:
    clips, folder = tmp_path / "clips", tmp_path / "features"
    (clips / "v").mkdir(parents=True)
    shutil.copy(next((few_clips / "Raw").rglob("*.mp4")), clips / "v" / "good.mp4")
    (clips / "v" / "empty.mp4").write_bytes(b"")
    (clips / "v" / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    result = extract(clips, folder, only=["audio", "faces"])
    for stage in ("audio", "faces"):
        plan = result.plan.stages[stage]
        assert plan.done == ["v$_$good"]
        assert {clip: line.reason for clip, line in plan.failed.items()} == {
            "v$_$empty": "undecodable",
            "v$_$noise": "undecodable",
        }
        assert all(clip.partition("$_$")[2] in line.detail for clip, line in plan.failed.items()), (
            "the file is named"
        )
    lines = len(read_ledger(folder))
    assert prepare(clips, folder, only=["audio", "faces"]).plan.work == ()
    retried = prepare(clips, folder, only=["audio", "faces"], retry_failed=True)
    assert set(todo(retried)["audio"].values()) == {Why.FAILED_BEFORE}
    run(retried, jobs=0)
    assert len(read_ledger(folder)) == lines
    shutil.copy(clips / "v" / "good.mp4", clips / "v" / "empty.mp4")
    assert todo(prepare(clips, folder, only=["audio"])) == {"audio": {"v$_$empty": Why.CLIP_CHANGED}}


def test_a_damaged_shard_is_reported_and_made_again(complete: Path, few_clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    shutil.copytree(complete, folder)
    victim = next(iter(shards(folder, ["audio"])))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    found = survey(folder)
    assert str(victim) in "".join(found.damaged)
    assert set(todo(found)) == {"audio"}
    result = extract(few_clips, folder)
    assert not todo(result)
    assert not result.damaged
    assert not verify_shard(victim)


def test_a_second_source_is_merged(few_clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    files = sorted((few_clips / "Raw").rglob("*.mp4"))[:2]
    for name, file in zip("ab", files, strict=True):
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name / "x.mp4")
        extract(tmp_path / name, folder, only=["audio"])
    assert FeatureStore(folder).ids("audio") == ("b$_$x", "x")
    assert len(survey(folder).manifest.clips) == 2


def test_a_folder_keeps_its_recipe_unless_one_is_given(
    complete: Path, few_clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    shutil.copytree(complete, folder)
    assert prepare(few_clips, folder).plan.work == ()
    changed = prepare(few_clips, folder, assignments=["audio.fmin=70"])
    assert set(todo(changed)) == {"audio"}
    code = prepare(few_clips, folder, recipe="authors-code", only=["audio", "vision"])
    assert set(todo(code)) == {"audio", "vision"}
    assert code.recipe.vision.backend == "facemesh", "`auto` is resolved once per folder"


def test_a_limit_extracts_and_counts_the_first_clips(few_clips: Path, tmp_path: Path) -> None:
    first = extract(few_clips, tmp_path / "f", only=["audio"], limit=1)
    assert len(first.plan.stages["audio"].done) == 1
    assert not todo(first)
    assert len(todo(survey(tmp_path / "f"))["audio"]) == 3


def test_the_authors_recipe_runs(few_clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path / "features"
    result = extract(few_clips, folder, recipe="authors-code", only=["audio", "vision"], limit=1)
    clip = result.plan.stages["vision"].done[0]
    store = FeatureStore(folder)
    assert store.read("audio", clip).columns[0] == "zcr"
    vision, faces = store.read("vision", clip), store.read("faces", clip)
    assert vision.valid.all()
    assert len(vision) == -(-int(faces.valid.sum()) // 5)


def test_missing_transcripts_are_absent_a_long_one_noted(
    few_clips: Path, small_bert: Path, tmp_path: Path
) -> None:
    clips, folder = tmp_path / "v", tmp_path / "features"
    clips.mkdir()
    for name, text in (("long", "我" * 600), ("blank", " \n"), ("none", None)):
        shutil.copy(next((few_clips / "Raw").rglob("*.mp4")), clips / f"{name}.mp4")
        if text is not None:
            (clips / f"{name}.txt").write_text(text, encoding="utf-8")
    result = extract(clips, folder, only=["text"], assignments=[f"text.model={small_bert}"])
    assert result.plan.stages["text"].done == ["long"]
    assert sorted(result.plan.stages["text"].absent) == ["blank", "none"]
    lines = {line.clip_id: line for line in read_ledger(folder).values()}
    assert lines["long"].detail == "cut from 602 to 512 tokens"
    assert result.plan.stages["text"].notes == {"long": "cut from 602 to 512 tokens"}
    shown = CliRunner().invoke(cli, ["status", "-v", str(folder)]).output
    assert re.search(r"^long +text +cut from 602 to 512 tokens$", shown, re.MULTILINE)
    assert lines["blank"].outcome == lines["none"].outcome == "absent"
    files = list((folder / "ledger").iterdir())
    extract(clips, folder, only=["text"])
    assert list((folder / "ledger").iterdir()) == files, "an absence is recorded once"


def test_a_dry_run_writes_nothing(few_clips: Path, tmp_path: Path) -> None:
    prepare(few_clips, tmp_path / "features", only=["audio"], dry_run=True)
    assert not (tmp_path / "features").exists()


def test_each_file_is_hashed_once_from_the_first_run_on(
    few_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(few_clips, tmp_path / "clips")
    for file in (tmp_path / "clips").rglob("*"):
        os.utime(file, (1, 1))
    hashed = []
    digest = index.content_digest
    monkeypatch.setattr(index, "content_digest", lambda path: hashed.append(path) or digest(path))
    prepare(tmp_path / "clips", tmp_path / "features", only=["audio"])  # and interrupted after that
    extract(tmp_path / "clips", tmp_path / "features", only=["audio"])
    assert len(hashed) == len(set(hashed)) == 4


def test_wrong_input_is_an_error_before_any_work(few_clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        prepare(tmp_path / "nowhere", tmp_path / "features")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: a file"):
        prepare(few_clips, tmp_path / "file")
    with pytest.raises(InputError, match="not a feature folder"):
        survey(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "recipe.json").write_text(json.dumps({"recipe": 3}))
    with pytest.raises(InputError, match=r"recipe\.json"):
        prepare(few_clips, tmp_path / "damaged")


def test_a_stage_not_asked_for_keeps_its_features(
    few_clips: Path, small_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is no longer there must not invalidate the features that it made."""
    model, folder = tmp_path / "model", tmp_path / "features"
    shutil.copytree(small_bert, model)
    monkeypatch.chdir(tmp_path)
    extract(few_clips, folder, only=["text"], assignments=["text.model=model"])
    shutil.move(model, tmp_path / "elsewhere")
    extract(few_clips, folder, only=["audio"], limit=1)
    assert len(FeatureStore(folder).ids("text")) == 4
    assert len(survey(folder).plan.stages["text"].done) == 4


def test_vision_tracks_again_if_the_faces_shard_is_damaged(
    complete: Path, few_clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    shutil.copytree(complete, folder)
    planned = prepare(few_clips, folder, only=["vision"], assignments=["vision.average=2"])
    for shard in shards(folder, ["faces"]):
        shard.write_bytes(shard.read_bytes()[:-100])
    assert not run(planned, jobs=0).plan.stages["vision"].failed
    assert len(FeatureStore(folder).ids("vision")) == 4
    with Shard(next(iter(shards(folder, ["vision"])))) as shard:
        assert shard.header.frame_rate in (15.0, 30.0)


def test_a_file_that_changes_during_the_run_is_a_failure(few_clips: Path, tmp_path: Path) -> None:
    clips, folder = tmp_path / "v", tmp_path / "features"
    clips.mkdir()
    first, second = sorted((few_clips / "Raw").rglob("*.mp4"))[:2]
    shutil.copy(first, clips / "a.mp4")
    planned = prepare(clips, folder, only=["audio"])
    shutil.copy(second, clips / "a.mp4")
    result = run(planned, jobs=0)
    assert FeatureStore(folder).ids("audio") == ()
    assert {line.reason for line in read_ledger(folder).values()} == {"file_changed"}
    assert set(todo(result)["audio"].values()) == {Why.CLIP_CHANGED}


def test_two_simultaneous_sources_keep_both_their_clips(few_clips: Path, tmp_path: Path) -> None:
    plans = []
    for name, file in zip("ab", sorted((few_clips / "Raw").rglob("*.mp4"))[:2], strict=True):
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name / "x.mp4")
        plans.append(prepare(tmp_path / name, tmp_path / "features", only=["audio"]))
    for planned in plans:
        run(planned, jobs=0)
    assert [clip.id for clip in survey(tmp_path / "features").manifest.clips] == ["x", "b$_$x"]


def test_features_of_a_removed_transcript_are_not_read(
    few_clips: Path, small_bert: Path, tmp_path: Path
) -> None:
    clips, folder = tmp_path / "v", tmp_path / "features"
    clips.mkdir()
    for name in "ab":
        shutil.copy(next((few_clips / "Raw").rglob("*.mp4")), clips / f"{name}.mp4")
        (clips / f"{name}.txt").write_text("很好", encoding="utf-8")
    extract(clips, folder, only=["text"], assignments=[f"text.model={small_bert}"])
    (clips / "a.txt").unlink()
    extract(clips, folder, only=["audio"])
    assert FeatureStore(folder).ids("text") == ("b",)


def test_an_unreadable_clip_does_not_stop_the_others(few_clips: Path, tmp_path: Path) -> None:
    clips = tmp_path / "v"
    clips.mkdir()
    shutil.copy(next((few_clips / "Raw").rglob("*.mp4")), clips / "good.mp4")
    (clips / "bad.mp4").symlink_to("/proc/self/mem")
    result = extract(clips, tmp_path / "features", only=["audio"])
    assert result.plan.stages["audio"].done == ["good"]
    assert "bad" in {line.clip_id for line in read_ledger(tmp_path / "features").values()}


@pytest.mark.parametrize("wrong", ["audio.frame_length=2049", "media.sample_rate=8000"])
def test_impossible_audio_settings_are_input_errors(few_clips: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="audio settings"):
        extract(few_clips, tmp_path / "features", only=["audio"], assignments=[wrong])


def test_real_clips_have_all_their_features(test_data: Path, small_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path / "features"
    result = extract(test_data / "clips", folder, assignments=settings(small_bert))
    assert not todo(result)
    assert not any(plan.failed for plan in result.plan.stages.values())
    store = FeatureStore(folder)
    assert {stage: len(store.ids(stage)) for stage in STAGES} == {
        "text": 19,
        "audio": 24,
        "faces": 24,
        "vision": 24,
    }
    rows = [store.read("vision", clip) for clip in store.ids("vision")]
    assert sum(row.valid.sum() for row in rows) >= 0.99 * sum(map(len, rows))
    for stage, width in {"text": 768, "audio": 33, "vision": 709}.items():
        for clip in store.ids(stage):
            values = store.read(stage, clip).values
            assert values.shape[1] == width
            assert np.isfinite(values).all()


@pytest.mark.slow
def test_hard_clips_have_features_or_a_reason(test_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    stages = ["audio", "faces", "vision"]
    result = extract(
        test_data / "clips" / "hard",
        tmp_path / "f",
        only=stages,
        assignments=["vision.backend=facemesh"],
    )
    assert not todo(result)
    reasons = {
        stage: {clip: str(line.reason) for clip, line in result.plan.stages[stage].failed.items()}
        for stage in stages
    }
    broken = dict.fromkeys(("garbage", "text_named", "zero_bytes"), "undecodable")
    faceless = dict.fromkeys(("no_face_background", "no_face_cartoon"), "no_face")
    assert reasons == {
        "audio": {**broken, "no_audio_stream": "no_audio_stream"},
        "faces": {**broken, **faceless},
        "vision": {**broken, **faceless},
    }
    assert len(result.manifest.clips) == 48


def test_cuda_without_a_gpu_is_refused_before_any_write(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    source = tmp_path / "clips.csv"
    source.write_text("id,path,text\na,a.mp4,好\n")
    arguments = ["extract", str(source), "-o", str(tmp_path / "features"), "--device", "cuda"]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputError)
    assert re.search(r"--device cuda: torch .*; leave the option out", str(result.exception))
    assert not (tmp_path / "features").exists()


def test_the_device_is_used_and_in_no_fingerprint(tmp_path: Path, monkeypatch) -> None:
    devices = []
    monkeypatch.setattr(
        "triptych.extractors.text.encoder.TextEncoder", lambda settings, device: devices.append(device)
    )
    monkeypatch.setattr(
        "triptych.extractors.faces.tracker.Mtcnn", lambda device, runtime: devices.append(device)
    )
    registered()["text"].load(TextSettings(), MediaSettings(), "cuda")
    registered()["faces"].load(FacesSettings(), MediaSettings(), "cuda")
    assert devices == ["cuda", "cuda"]
    assert "device" not in Recipe().model_dump_json()


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hub is out of reach, and nothing of it is cached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_folder_without_transcripts_needs_no_language_model(
    few_clips: Path, tmp_path: Path, no_hub: None
) -> None:
    pytest.importorskip("ai_edge_litert")
    clips, features = tmp_path / "clips", tmp_path / "features"
    clips.mkdir()
    for name, file in zip("ab", sorted((few_clips / "Raw").rglob("*.mp4")), strict=False):
        shutil.copy(file, clips / f"{name}.mp4")
    done = CliRunner().invoke(cli, ["extract", str(clips), "-o", str(features), "-j", "1"])
    assert done.exit_code == 0, done.output
    assert "no clip has a transcript: text is skipped" in done.output
    assert FeatureStore(features).complete_ids(("audio", "faces", "vision")) == ("a", "b")

    (clips / "a.txt").write_text("很好", encoding="utf-8")
    refused = CliRunner().invoke(cli, ["extract", str(clips), "-o", str(features)])
    assert isinstance(refused.exception, BackendMissingError)
    for way in ("--only audio,faces,vision", "HF_ENDPOINT", "--set text.model=FOLDER", "HF_HOME"):
        assert way in str(refused.exception)
