"""A stage with faults of its own costs no other stage and no clip, and gets no input that it does not declare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import triptych
from triptych.extractors import registry
from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.inputs import ClipInputs, UndeclaredInputError
from triptych.extractors.registry import Registry, stages
from triptych.extractors.stage import Input
from triptych.pipeline.demo.clips import make_clips
from triptych.pipeline.errors import InputError
from triptych.pipeline.run.group import load_stage


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group") / "clips"
    make_clips(folder, count=2)
    return folder


@pytest.fixture
def audio(monkeypatch):
    """Return a function that changes the declaration of the audio stage."""

    def change(**changes):
        changed = {**stages(), "audio": replace(stages()["audio"], **changes)}
        monkeypatch.setattr(registry, "registry", lambda: Registry(changed))
        load_stage.cache_clear()

    yield change
    load_stage.cache_clear()


class Returns:
    """An extractor that returns, or raises, the same for every clip."""

    def __init__(self, result):
        self.result = result

    def extract(self, clip):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result(clip) if callable(self.result) else self.result


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (None, "the stage returned NoneType, not Features"),
        (np.zeros(3), "the stage returned ndarray, not Features"),
        (ZeroDivisionError("by nothing"), "ZeroDivisionError: by nothing"),
        (lambda clip: clip.text, "UndeclaredInputError: stage audio reads text; name Input.TEXT in reads"),
    ],
)
def test_a_faulty_stage_fails_for_its_clips_alone(audio, clips, tmp_path, result, detail):
    audio(load=lambda *_: Returns(result))
    run = triptych.extract(clips, tmp_path / "f", only=["audio", "faces"], jobs=0)
    failed = run.plan.stages["audio"].failed
    assert len(failed) == 2
    assert all(line.reason == "unexpected" and detail in line.detail for line in failed.values())
    assert len(run.plan.stages["faces"].done) == 2


def test_faulty_columns_fail_for_their_clips_alone(audio, clips, tmp_path):
    def raises(width):
        raise LookupError("no layout")

    audio(columns=raises)
    run = triptych.extract(clips, tmp_path / "f", only="audio", jobs=0)
    assert all("LookupError" in line.detail for line in run.plan.stages["audio"].failed.values())


@pytest.mark.parametrize(
    "change",
    [
        {"load": lambda *_: 1 / 0},
        {"resolve": lambda settings: 1 / 0},
        {"model_identity": lambda settings: 1 / 0},
    ],
)
def test_a_stage_that_cannot_be_used_is_one_clear_error(audio, clips, tmp_path, change):
    audio(**change)
    with pytest.raises(InputError, match=r"stage audio.*ZeroDivisionError"):
        triptych.extract(clips, tmp_path / "f", only="audio", jobs=0)


def test_an_unknown_stage_is_refused(clips, tmp_path):
    with pytest.raises(InputError, match="unknown stage sound; choose from text, audio"):
        triptych.extract(clips, tmp_path / "f", only="sound", jobs=0)


@pytest.mark.parametrize(
    ("declared", "allowed"),
    [
        ((Input.TEXT,), {"text"}),
        ((Input.WAVEFORM,), {"waveform"}),
        ((Input.FRAMES,), {"frames"}),
        ((Input.CROPS,), {"frames", "rows"}),
    ],
)
def test_a_stage_gets_only_the_inputs_that_it_declares(declared, allowed):
    stage = replace(stages()["audio"], reads=declared)
    clip = ClipInputs(stage, "text", lambda: np.zeros(1, np.float32), list, lambda name: name)
    for name, read in {
        "text": lambda: clip.text,
        "waveform": clip.waveform,
        "frames": clip.frames,
        "rows": lambda: clip.rows("faces"),
    }.items():
        if name in allowed:
            read()
        else:
            with pytest.raises(UndeclaredInputError, match="stage audio reads"):
                read()


class Batches:
    """A batched stage that writes down which clips it is asked for together."""

    def __init__(self):
        self.waiting, self.batches = [], []

    def add(self, clip_id, clip):
        self.waiting.append(clip_id)
        return False

    def finish(self):
        self.batches.append(self.waiting)
        self.waiting = []
        return dict.fromkeys(self.batches[-1], ExtractionError(Reason.NO_FACE, "nothing"))


@pytest.mark.parametrize("shares", [True, False])
def test_only_a_stage_that_shares_its_start_gets_the_clips_of_several_groups(
    clips, tmp_path, monkeypatch, shares
):
    made = {name: Batches() for name in ("text", "audio")}
    changed = {
        name: replace(
            stages()[name],
            load=lambda *_, extractor=extractor: extractor,
            batched=True,
            resolve=lambda settings: settings,
            model_identity=lambda settings: "",
            shares_start=lambda settings, name=name: shares and name == "audio",
        )
        for name, extractor in made.items()
    }
    every = Registry({**stages(), **changed})
    monkeypatch.setattr(registry, "registry", lambda: every)
    load_stage.cache_clear()
    run = triptych.extract(clips, tmp_path / "features", only=["text", "audio"], jobs=0)
    load_stage.cache_clear()
    ids = sorted(clip.id for clip in run.manifest.clips)
    alone = [[clip] for clip in ids]
    assert sorted(made["text"].batches) == alone, "a batch is a group"
    assert sorted(map(sorted, made["audio"].batches)) == ([ids] if shares else alone)
