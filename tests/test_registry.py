"""The registry: built-in stages in order, and stages of installed packages, usable or refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from triptych.extractors.registry import BUILT_IN, assemble, registry, stages
from triptych.extractors.settings import Settings
from triptych.extractors.stage import Input, Stage, numbered
from triptych.pipeline.stages.graph import source_digest, sources, with_downstream, with_upstream


def stage(name="energy", **changes):
    declared = {
        "row": "a frame",
        "settings": Settings,
        "reads": (Input.WAVEFORM,),
        "columns": lambda width: [numbered("e", width)],
        "row_rate": None,
        "load": lambda *_: None,
    }
    return Stage(name=name, **{**declared, **changes})


def point(target, name="energy"):
    """An entry point that loads `target`, or raises it."""

    class Point(EntryPoint):
        def load(self):
            if isinstance(target, Exception):
                raise target
            return target

    return Point(name, f"somewhere:{name}", "triptych.stages")


def test_built_in_stages_stand_below_those_they_read():
    names = list(stages())
    assert names[:4] == ["text", "audio", "faces", "vision"]
    for name, declared in stages().items():
        assert all(names.index(up) < names.index(name) for up in declared.upstream)


def test_four_stages_are_on_by_default():
    assert [name for name, one in stages().items() if one.default] == ["text", "audio", "faces", "vision"]


def test_every_built_in_module_declares_one_stage():
    assert len(BUILT_IN) == len({*BUILT_IN})
    assert len(registry().stages) >= len(BUILT_IN)


@pytest.mark.parametrize("name", list(stages()))
def test_every_setting_has_a_default_and_a_description(name):
    model = stages()[name].settings
    model()
    assert all(field.description for field in model.model_fields.values())


def test_declarations_are_read_without_heavy_imports():
    code = (
        "import sys; from triptych.extractors.registry import stages; stages(); "
        "print({'numpy', 'torch', 'cv2', 'transformers', 'onnxruntime', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_package_adds_stages_in_the_order_of_their_upstream():
    downstream = stage("rate", rows_of=("energy",), reads=(Input.TEXT,))
    found = assemble([stage("audio")], [point(downstream, "a"), point(stage(), "b")])
    assert list(found.stages) == ["audio", "energy", "rate"]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (ImportError("no module named energy"), "cannot be loaded (ImportError: no module named energy)"),
        (42, "is a int, not a triptych.extractors.stage.Stage"),
        (stage("audio"), "another stage is named 'audio' already"),
        (stage("Energy"), "the name 'Energy' cannot be used"),
        (stage("../up"), "the name '../up' cannot be used"),
        (stage("ledger"), "the name 'ledger' cannot be used"),
        (stage(rows_of=("missing",)), "it reads rows of missing, which no installed package declares"),
    ],
)
def test_an_unusable_stage_is_refused_and_the_others_stay(target, problem):
    found = assemble([stage("audio")], [point(target), point(stage("good"), "good")])
    assert list(found.stages) == ["audio", "good"]
    assert len(found.problems) == 1
    assert problem in found.problems[0]


def test_two_stages_that_read_each_other_are_refused():
    one, other = stage("one", rows_of=("other",)), stage("other", rows_of=("one",))
    found = assemble([stage("audio")], [point(one, "one"), point(other, "other")])
    assert list(found.stages) == ["audio"]
    assert len(found.problems) == 2


def test_crops_need_the_face_track():
    assert stage(reads=(Input.CROPS,)).upstream == ("faces",)
    assert with_upstream(["appearance"]) == ("faces", "appearance")
    assert with_downstream("faces") == {"faces", "vision", "appearance"}


def test_a_stage_depends_on_what_its_upstream_reads():
    assert sources("text") == {"text"}
    assert sources("vision") == {"media"}
    assert source_digest("vision", {"text": "t", "media": "m"}) == "m"
