"""Assignment of splits: ratios, classes, existing splits, and seeds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from manifest_cases import (
    NAN,
    any_pace,
    clip,
    make_ch_sims,
    touch,
)

from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.splits import assign_splits, empty_splits, label_class, parse_ratio


@pytest.fixture(scope="module")
def ch_sims(test_data, tmp_path_factory) -> Path:
    return make_ch_sims(test_data, tmp_path_factory.mktemp("ch-sims"))


def labelled(labels, splits=None) -> Manifest:
    splits = splits or [None] * len(labels)
    return Manifest(
        tuple(
            clip(f"v$_${n:04d}", split=split, labels=(label, NAN, NAN, NAN))
            for n, (label, split) in enumerate(zip(labels, splits, strict=True))
        )
    )


def test_ratio_must_be_three_whole_numbers():
    assert parse_ratio("6:2:2") == (6, 2, 2)
    assert parse_ratio(" 1:0:0 ") == (1, 0, 0)
    for invalid in ["6:2", "6:2:2:1", "0:0:0", "-6:2:2", "0.6:0.2:0.2", "a:b:c", "", "٦:٢:٢"]:
        with pytest.raises(InputError, match=r"as in 6:2:2"):
            parse_ratio(invalid)


@pytest.mark.parametrize(
    ("label", "number"),
    [
        (-1, 0),
        (-0.7, 0),
        (-0.6, 1),
        (-0.1, 1),
        (0, 2),
        (0.1, 2),
        (0.2, 3),
        (0.7, 3),
        (0.8, 4),
        (1, 4),
        (NAN, 5),
    ],
)
def test_label_classes_are_right_closed(label, number):
    assert label_class(label) == number


RATIOS = st.tuples(*[st.integers(0, 9)] * 3).filter(any)
LABELS = st.lists(st.sampled_from([-1.0, -0.7, -0.4, 0.0, 0.4, 1.0, NAN]), min_size=1, max_size=60)


@any_pace
@given(LABELS, RATIOS, st.integers(), st.randoms())
def test_sizes_follow_the_ratio_in_any_row_order(labels, ratios, seed, shuffler):
    manifest = labelled(labels)
    assigned = assign_splits(manifest, ratios, seed)
    assert [clip.id for clip in assigned.clips] == [clip.id for clip in manifest.clips]
    for classes in [range(6), *([number] for number in range(6))]:
        inside = [clip for clip in assigned.clips if label_class(clip.label) in classes]
        sizes = Counter(clip.split for clip in inside)
        for name, ratio in zip(("train", "valid", "test"), ratios, strict=True):
            difference = abs(sizes[name] - len(inside) * ratio / sum(ratios))
            assert difference < (1 if len(classes) == 6 else 2)
        assert None not in sizes
    clips = list(manifest.clips)
    shuffler.shuffle(clips)
    shuffled = assign_splits(Manifest(tuple(clips)), ratios, seed)
    assert {clip.id: clip.split for clip in shuffled.clips} == {
        clip.id: clip.split for clip in assigned.clips
    }


@any_pace
@given(LABELS, RATIOS, st.data())
def test_existing_splits_stay(labels, ratios, data):
    splits = data.draw(
        st.lists(
            st.sampled_from(["train", "valid", "test", None]), min_size=len(labels), max_size=len(labels)
        )
    )
    before = labelled(labels, splits)
    after = assign_splits(before, ratios, 1)
    for old, new in zip(before.clips, after.clips, strict=True):
        assert new.split == old.split if old.split else new.split in ("train", "valid", "test")


def test_existing_splits_count_towards_the_ratio():
    after = assign_splits(labelled([0.0] * 100, ["train"] * 50 + [None] * 50), (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 60, "valid": 20, "test": 20}
    # Train already exceeds its share: the other clips are divided evenly.
    after = assign_splits(labelled([0.0] * 100, ["train"] * 90 + [None] * 10), (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 90, "valid": 5, "test": 5}
    # The same within each class: the class of -1 already has its test clips, the class of 1 has none.
    labels = [-1.0] * 20 + [1.0] * 20
    after = assign_splits(labelled(labels, ["test"] * 4 + [None] * 36), (6, 2, 2), 1)
    assert Counter((clip.label, clip.split) for clip in after.clips) == {
        (label, name): size
        for label in (-1.0, 1.0)
        for name, size in [("train", 12), ("valid", 4), ("test", 4)]
    }


def test_splits_without_a_clip_are_reported(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    done = assign_splits(labelled([0.0] * 3), (6, 2, 2), 0)
    assert empty_splits(done, (6, 2, 2)) == ["test"]
    assert empty_splits(done, (6, 2, 0)) == []
    shown = CliRunner().invoke(cli, ["manifest", str(tmp_path), "--split", "6:2:2"])
    assert "warning: no clip for test: 3 clips are too few for 6:2:2" in shown.stderr


def test_seed_changes_the_assignment():
    manifest = labelled([0.0] * 50)
    assert assign_splits(manifest, (6, 2, 2), 1) == assign_splits(manifest, (6, 2, 2), 1)
    assert assign_splits(manifest, (6, 2, 2), 1) != assign_splits(manifest, (6, 2, 2), 2)
    assert assign_splits(manifest, (6, 2, 2), 1).clips[:4] != manifest.clips[:4]


def test_real_table_is_split_like_the_paper(ch_sims):
    clips = list(load_manifest(ch_sims).clips)
    random.Random(0).shuffle(clips)
    unsplit = Manifest(tuple(Clip(c.id, c.path, c.text, None, c.label, NAN, NAN, NAN, c.root) for c in clips))
    after = assign_splits(unsplit, (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 1369, "valid": 456, "test": 456}
    by_class = Counter((label_class(clip.label), clip.split) for clip in after.clips)
    for number in range(5):
        total = sum(size for (other, _), size in by_class.items() if other == number)
        for name, share in [("train", 0.6), ("valid", 0.2), ("test", 0.2)]:
            assert abs(by_class[number, name] - total * share) < 1
