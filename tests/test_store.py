from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shard_cases import STAGES, assert_same, digest, make_features, make_header, make_items

from triptych.pipeline.errors import InputError
from triptych.pipeline.storage import store as store_module
from triptych.pipeline.storage.index import FILE, text_digest
from triptych.pipeline.storage.schema import ShardError, ShardItem
from triptych.pipeline.storage.shard_reader import CheckedShard, Shard
from triptych.pipeline.storage.shards import write_shard
from triptych.pipeline.storage.store import FeatureStore, MissingFeaturesError

CLIPS = [f"video_{k:04d}$_$00{k}" for k in range(9)]


def write_recipe(folder, **fingerprints):
    fingerprints = {stage: make_header(stage).fingerprint for stage in STAGES} | fingerprints
    folder.mkdir(exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"text": {}}, "fingerprints": fingerprints}))


def write_manifest(folder, texts, root="media"):
    rows = [f"{clip},{clip}.mp4,{text},train,0.2,,,,{root}" for clip, text in texts.items()]
    head = "id,path,text,split,label,label_T,label_A,label_V,root"
    (folder / "manifest.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Nine clips in three shards a stage; clip 4 has no text, clip 7 no vision."""
    features = tmp_path / "features"
    for stage in STAGES:
        absent = {"text": 4, "vision": 7}.get(stage)
        for first in (0, 3, 6):
            items = make_items(stage, (5, 9, 2), first=first)
            present = [item for k, item in enumerate(items, start=first) if k != absent]
            write_shard(features / stage, make_header(stage), present)
    write_recipe(features)
    return features


def check_all(store):
    for stage in STAGES:
        for clip_id in store.ids(stage):
            k = CLIPS.index(clip_id)
            assert_same(store.read(stage, clip_id), make_features(stage, (5, 9, 2)[k % 3], seed=k))
    return os.getpid()


def test_every_stage_joined_by_clip(folder):
    store = FeatureStore(folder)
    assert store.ids("audio") == tuple(CLIPS)
    assert store.ids("text") == tuple(clip for clip in CLIPS if clip != CLIPS[4])
    assert set(CLIPS) - set(store.complete_ids()) == {CLIPS[4], CLIPS[7]}
    assert set(CLIPS) - set(store.complete_ids(("text", "faces"))) == {CLIPS[4]}
    check_all(store)
    assert store.recipe["recipe"] == {"text": {}}


def test_what_is_missing_is_said(folder):
    store = FeatureStore(str(folder))
    with pytest.raises(MissingFeaturesError, match=f"^{folder}: no vision features of clip 'video_0007"):
        store.read("vision", CLIPS[7])
    with pytest.raises(KeyError):
        store.read("text", "nobody")
    for call in (lambda: store.ids("smell"), lambda: store.read("smell", CLIPS[0])):
        with pytest.raises(ValueError, match="stage 'smell': there are text, audio, faces, vision"):
            call()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "not found, so .* is not a feature folder"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "not the recipe of a feature folder"),
        ('{"recipe": {}, "fingerprints": 1}', "cannot be read"),
    ],
)
def test_a_folder_without_a_recipe_is_an_input_error(folder, content, words):
    (folder / "recipe.json").unlink()
    if content is not None:
        (folder / "recipe.json").write_text(content)
    with pytest.raises(InputError, match=rf"recipe\.json: .*{words}.*triptych extract"):
        FeatureStore(folder)


def test_only_the_present_settings_count(folder):
    items = make_items("audio", (4, 4), first=0)
    write_shard(folder / "audio", make_header("audio", settings=1), items)
    write_recipe(folder, audio=make_header("audio", settings=1).fingerprint)
    store = FeatureStore(folder)
    assert store.ids("audio") == tuple(CLIPS[:2])
    assert_same(store.read("audio", CLIPS[1]), items[1].features)
    (folder / "recipe.json").write_text(json.dumps({"recipe": {}, "fingerprints": {}}))
    assert FeatureStore(folder).ids("audio") == ()


def test_of_two_shards_with_a_clip_the_first_by_name_is_read(folder):
    for rows in ((5,), (5, 9), (5, 9, 2, 5)):
        write_shard(folder / "audio", make_header("audio"), make_items("audio", rows))
    names = []
    for path in sorted((folder / "audio").glob("*.h5")):
        with Shard(path) as shard:
            names += [path] if CLIPS[0] in shard.ids else []
    assert len(names) == 4
    assert FeatureStore(folder)._places["audio"].find(CLIPS[0])[0] == names[0]


def write_version(folder, stage, content_digest, seed):
    features = make_features(stage, 6, seed=seed)
    write_shard(folder / stage, make_header(stage), [ShardItem(CLIPS[0], content_digest, features)])
    time.sleep(0.001)
    return features


def test_of_a_changed_clip_the_present_content_is_read(folder):
    media = folder / "media" / f"{CLIPS[0]}.mp4"
    media.parent.mkdir()
    texts = {CLIPS[0]: "以前", CLIPS[1]: "b"}
    write_manifest(folder, texts)
    versions = {
        word: write_version(folder, "audio", digest(word), len(word)) for word in ("one", "three", "seventh")
    }
    words = {word: write_version(folder, "text", text_digest(word), len(word)) for word in ("以前", "现在的")}
    for word in ("three", "one", "seventh"):
        media.write_text(word)
        assert_same(FeatureStore(folder).read("audio", CLIPS[0]), versions[word])
    for word in words:
        write_manifest(folder, {**texts, CLIPS[0]: word})
        assert_same(FeatureStore(folder).read("text", CLIPS[0]), words[word])
    media.unlink()  # nobody knows the present content: the latest features are the best guess
    assert_same(FeatureStore(folder).read("audio", CLIPS[0]), versions["seventh"])
    write_manifest(folder, {CLIPS[1]: "b"})
    assert_same(FeatureStore(folder).read("text", CLIPS[0]), words["现在的"])


def test_the_manifest_needs_no_media(folder):
    write_manifest(folder, {CLIPS[0]: "你好，世界", CLIPS[1]: ""})
    first, second = FeatureStore(folder).manifest.clips
    assert (first.id, first.text, first.label) == (CLIPS[0], "你好，世界", 0.2)
    assert np.isnan(second.label_T)


def test_a_damaged_shard_costs_its_own_clips(folder):
    path = FeatureStore(folder)._places["audio"].find(CLIPS[0])[0]
    os.truncate(path, path.stat().st_size - 1)
    assert FeatureStore(folder).ids("audio") == tuple(CLIPS[3:])


def test_a_shard_damaged_or_removed_after_opening_is_an_error(folder):
    store = FeatureStore(folder)
    path = store._places["audio"].find(CLIPS[0])[0]
    path.write_bytes(b"")
    with pytest.raises(ShardError, match=f"{path.name}: user block: 0 bytes.*The next"):
        store.read("audio", CLIPS[0])
    path.unlink()
    with pytest.raises(ShardError, match=f"{path.name}: cannot be opened"):
        store.read("audio", CLIPS[1])
    store.read("audio", CLIPS[3])


def test_a_read_only_folder_without_an_index(folder, monkeypatch):
    monkeypatch.setattr(
        "triptych.pipeline.storage.index.save", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    check_all(FeatureStore(folder))
    assert not (folder / FILE).exists()


def test_few_shards_stay_open(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 2)
    monkeypatch.setattr(
        store_module, "CheckedShard", lambda path, *rest: opened.append(path) or CheckedShard(path, *rest)
    )
    store = FeatureStore(folder)
    files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        check_all(store)
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 2
    before = len(opened)
    for _ in range(5):
        store.read("audio", CLIPS[0])
    assert len(opened) == before + 1


def test_a_folder_moves(folder):
    FeatureStore(folder)
    moved = folder.rename(folder.with_name("移动 过"))
    check_all(FeatureStore(moved))


# -- processes and threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_goes_to_other_processes(folder, method):
    store = FeatureStore(folder)
    check_all(store)  # with shards open
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert os.getpid() not in set(pool.map(check_all, [store] * 4))
    check_all(store)


def test_an_inherited_store_opens_its_own_shards(folder):
    store = FeatureStore(folder)
    check_all(store)
    children = [
        multiprocessing.get_context("fork").Process(target=check_all, args=(store,)) for _ in range(3)
    ]
    for child in children:
        child.start()
    check_all(store)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 3


def test_a_pickle_holds_no_open_file(folder):
    store = FeatureStore(folder)
    write_manifest(folder, {CLIPS[0]: "a"})
    assert len(store.manifest.clips) == 1
    check_all(store)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.ids("text") == store.ids("text")
    check_all(copy)


def test_threads_share_it(folder, monkeypatch):
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 2)
    store = FeatureStore(folder)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: check_all(store), range(8))) == {os.getpid()}
