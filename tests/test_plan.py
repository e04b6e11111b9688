"""The plan: what is missing and why, decided from plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.run.plan import SHARED_BYTES, WORTHWHILE_CLIPS, Plan, Why, make_plan, shared
from triptych.pipeline.stages.graph import sources
from triptych.pipeline.storage.index import ShardClips, text_digest
from triptych.pipeline.storage.ledger import LedgerLine

STAGES = ("text", "audio", "faces", "vision")
Holdings = dict[str, list[ShardClips]]
PRINTS = {name: f"{name}-now" for name in STAGES}


def clips(count: int) -> Manifest:
    missing = (math.nan,) * 4
    return Manifest(
        tuple(Clip(f"v$_${i:03}", f"v/{i:03}.mp4", f"text {i}", None, *missing, "/r") for i in range(count))
    )


def digests(manifest: Manifest) -> dict[str, str]:
    return {clip.id: f"bytes of {clip.id}" for clip in manifest.clips}


def digest(manifest: Manifest, clip: str, stage: str) -> str:
    if sources(stage) == {"text"}:
        return text_digest(next(c.text for c in manifest.clips if c.id == clip))
    return digests(manifest)[clip]


def holdings_of(
    manifest: Manifest, ids: Iterable[str] = (), stages: Iterable[str] = STAGES, **changes: str
) -> Holdings:
    return {
        stage: [
            ShardClips(
                Path(f"{stage}.h5"), changes.get("fingerprint", PRINTS[stage]), "", (clip,),
                (changes.get("digest", digest(manifest, clip, stage)),),
            )
            for clip in (ids or [c.id for c in manifest.clips])
        ]
        for stage in stages
    }  # fmt: skip


def failed(manifest: Manifest, clip: str, stage: str, **changes: str) -> LedgerLine:
    return LedgerLine(**{
        "clip_id": clip, "stage": stage, "outcome": "failed", "reason": "no_face", "detail": "", "seconds": 0.1,
        "fingerprint": PRINTS[stage], "digest": digest(manifest, clip, stage), "at": "2026-01-01T00:00:00Z", **changes,
    })  # fmt: skip


def plan(
    manifest: Manifest, holdings: Holdings, ledger: Iterable[LedgerLine] = (), **options: object
) -> Plan:
    options.setdefault("stages", STAGES)
    return make_plan(manifest, PRINTS, digests(manifest), holdings, ledger, **options)


def test_all_is_new_at_first_and_nothing_is_missing_later() -> None:
    manifest = clips(3)
    first = plan(manifest, {})
    assert all(set(p.todo.values()) == {Why.NEW} and len(p.todo) == 3 for p in first.stages.values())
    last = plan(manifest, holdings_of(manifest))
    assert last.work == ()
    assert all(len(p.done) == 3 and not p.todo for p in last.stages.values())


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"fingerprint": "before"}, Why.SETTINGS_CHANGED), ({"digest": "before"}, Why.CLIP_CHANGED)],
)
def test_the_plan_names_what_changed(changes: dict[str, str], why: Why) -> None:
    manifest = clips(2)
    found = plan(manifest, holdings_of(manifest, stages=["audio"], **changes), stages=["audio"])
    assert found.stages["audio"].todo == {clip.id: why for clip in manifest.clips}


def test_rows_of_other_settings_do_not_hide_those_of_these() -> None:
    manifest = clips(1)
    before, now = holdings_of(manifest, fingerprint="before"), holdings_of(manifest)
    both = {stage: before[stage] + now[stage] for stage in STAGES}
    assert plan(manifest, both).work == ()


def test_one_new_clip_is_done_alone() -> None:
    manifest = clips(5)
    others = [clip.id for clip in manifest.clips if clip.id != "v$_$002"]
    found = plan(manifest, holdings_of(manifest, others))
    assert [work.clip.id for work in found.work] == ["v$_$002"]
    assert found.work[0].stages == tuple(STAGES)


def test_vision_alone_is_redone_from_the_saved_track() -> None:
    manifest = clips(1)
    found = plan(manifest, holdings_of(manifest, stages=["text", "audio", "faces"]))
    assert found.work[0].stages == ("vision",)
    assert found.work[0].saved["faces"] == Path("faces.h5")


def test_no_transcript_is_absent_and_no_work() -> None:
    manifest = Manifest(tuple(Clip(c.id, c.path, text, *([None] + [math.nan] * 4), "/r")
                              for c, text in zip(clips(3).clips, (None, " \n", "x"), strict=True)))  # fmt: skip
    found = plan(manifest, {}, stages=["text"])
    assert found.stages["text"].absent == ["v$_$000", "v$_$001"]
    assert [work.clip.id for work in found.work] == ["v$_$002"]


def test_a_failure_stays_until_it_is_retried_or_changed() -> None:
    manifest = clips(2)
    line = failed(manifest, "v$_$000", "faces")
    unchanged = plan(manifest, {}, [line])
    assert unchanged.stages["faces"].failed == {"v$_$000": line}
    assert unchanged.stages["vision"].failed == {"v$_$000": line}, (
        "what reads from a failed stage fails with it"
    )
    assert unchanged.work[0].stages == ("text", "audio")
    again = plan(manifest, {}, [line], retry_failed=True)
    assert again.stages["faces"].todo == {"v$_$000": Why.FAILED_BEFORE, "v$_$001": Why.NEW}
    assert again.stages["vision"].todo == {"v$_$000": Why.NEW, "v$_$001": Why.NEW}
    other_settings = plan(manifest, {}, [failed(manifest, "v$_$000", "faces", fingerprint="before")])
    assert other_settings.stages["faces"].todo["v$_$000"] == Why.SETTINGS_CHANGED
    other_file = plan(manifest, {}, [failed(manifest, "v$_$000", "faces", digest="before")])
    assert other_file.stages["faces"].todo["v$_$000"] == Why.CLIP_CHANGED


def test_shards_are_the_truth_whatever_the_ledger_says() -> None:
    manifest = clips(1)
    done = failed(manifest, "v$_$000", "audio", outcome="done")
    assert plan(manifest, {}, [done], stages=["audio"]).stages["audio"].todo
    failed_once = failed(manifest, "v$_$000", "audio")
    assert plan(manifest, holdings_of(manifest), [failed_once], stages=["audio"]).stages["audio"].done


def test_only_the_wanted_clips_are_planned() -> None:
    assert [work.clip.id for work in plan(clips(5), {}, clips={"v$_$000", "v$_$001"}).work] == [
        "v$_$000",
        "v$_$001",
    ]


@given(st.integers(1, 300), st.sets(st.integers(0, 299)), st.one_of(st.none(), st.integers(1, 80)))
def test_groups_do_not_depend_on_what_is_missing(count: int, done: set[int], size: int | None) -> None:
    manifest = clips(count)
    whole = plan(manifest, {}, stages=["audio"]).groups(size)
    group_of = {work.clip.id: number for number, group in enumerate(whole) for work in group}
    ids = [clip.id for number, clip in enumerate(manifest.clips) if number in done]
    rest = plan(manifest, holdings_of(manifest, ids, ["audio"]) if ids else {}, stages=["audio"]).groups(size)
    assert {work.clip.id for group in rest for work in group} == set(group_of) - set(ids)
    for group in rest:
        assert len({group_of[work.clip.id] for work in group}) == 1
    assert max(map(len, whole)) <= (size or 64)


def test_small_manifests_make_enough_groups_for_several_workers() -> None:
    assert len(plan(clips(24), {}).groups()) >= 8
    assert len(plan(clips(2281), {}).groups()) == 36


MIB = 2**20


def joined(sizes: list[int], workers: int, group: int = 1) -> list[list[int]]:
    """The places of the clips in each task, for clips of these sizes in groups of so many."""
    manifest = clips(len(sizes))
    groups = plan(manifest, {}).groups(group)
    bytes_of = {clip.id: size for clip, size in zip(manifest.clips, sizes, strict=True)}
    tasks = shared(groups, bytes_of, workers)
    return [[int(work.clip.id[-3:]) for work in task] for task in tasks]


def test_small_groups_share_a_task_and_every_worker_has_one() -> None:
    assert sorted(map(len, joined([MIB] * 16, workers=2))) == [8, 8]
    assert sorted(map(len, joined([4 * MIB] * 16, workers=3))) == [5, 5, 6]
    assert sorted(map(len, joined([8 * MIB] * 16, workers=16))) == [1] * 16
    assert sorted(map(len, joined([MIB] * 40, workers=1))) == [13, 13, 14]


def test_a_few_short_clips_are_not_spread_over_many_workers() -> None:
    assert sorted(map(len, joined([MIB // 10] * 16, workers=16))) == [8, 8]
    assert sorted(map(len, joined([MIB // 10] * 6, workers=2))) == [6]


def test_shared_tasks_have_about_equal_bytes() -> None:
    sizes = [9 * MIB, *[MIB] * 9]
    assert sorted(sum(sizes[clip] for clip in task) for task in joined(sizes, workers=2)) == [9 * MIB] * 2


def test_groups_of_many_or_large_clips_stay_separate() -> None:
    assert len(joined([MIB] * 240, workers=2, group=15)) == 16
    assert len(joined([SHARED_BYTES] * 4, workers=1)) == 4


@given(
    st.lists(st.integers(0, 2 * SHARED_BYTES), min_size=1, max_size=80), st.integers(1, 9), st.integers(1, 20)
)
def test_shared_tasks_have_every_clip_once_and_split_no_group(
    sizes: list[int], workers: int, group: int
) -> None:
    tasks = joined(sizes, workers, group)
    assert sorted(clip for task in tasks for clip in task) == list(range(len(sizes)))
    assert all(task == sorted(task) for task in tasks)
    owner = {clip: number for number, task in enumerate(tasks) for clip in task}
    assert all(owner[clip] == owner[clip // group * group] for clip in owner)
    assert len(tasks) <= -(-len(sizes) // group)
    assert len(tasks) >= min(workers, -(-len(sizes) // max(group, WORTHWHILE_CLIPS)))


def test_clips_remember_their_group() -> None:
    works = [work for group in plan(clips(7), {}).groups(3) for work in group]
    assert [work.group for work in works] == [0, 0, 0, 1, 1, 1, 2]
