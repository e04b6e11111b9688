"""What `extract` and `status` print of failures and notes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from triptych.extractors.base import Reason
from triptych.extractors.remedies import REMEDIES
from triptych.pipeline.cli.summary import FEW, print_result, print_status
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.run.extraction import Extraction
from triptych.pipeline.run.plan import Plan, StagePlan
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.terminal.tables import print_table

COUNT = FEW + 2


def line(clip: str, stage: str, reason: Reason) -> LedgerLine:
    return LedgerLine(clip, stage, "failed", reason, f"{clip}.mp4: broken", 0.0, "f" * 64, "d" * 64)


@pytest.fixture
def found(tmp_path: Path) -> Extraction:
    """Two stages of clips, of which one has a note, some fail in both stages and one in one stage."""
    names = [f"v/{number:02}" for number in range(COUNT)]
    failed = {name: line(name, "faces", Reason.UNDECODABLE) for name in names}
    stages = {
        "faces": StagePlan(done=["v/noted"], failed=failed, notes={"v/noted": "2.8 of 5.0 s decoded"}),
        "vision": StagePlan(
            done=["v/noted"],
            failed={**failed, "v/alone": line("v/alone", "vision", Reason.NO_FACE)},
            notes={"v/noted": "2.8 of 5.0 s decoded"},
        ),
    }
    missing = (math.nan,) * 4
    manifest = Manifest(
        tuple(
            Clip(name, f"{name}.mp4", "text", None, *missing, "/r") for name in [*names, "v/noted", "v/alone"]
        )
    )
    prints = dict.fromkeys(stages, "f" * 64)
    return Extraction(tmp_path, manifest, manifest, Recipe(), prints, Plan(stages, (), len(manifest.clips)))


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Reason)
    assert all(remedy and not remedy.endswith(".") for remedy in REMEDIES.values())


def test_failures_are_one_line_a_clip_under_their_reason(found: Extraction, capsys) -> None:
    print_status(found, as_json=False, verbose=True)
    out = capsys.readouterr().out
    assert out.count("v/03") == 1 + out.count("v/03.mp4")
    assert f"undecodable: {COUNT} clips failed. {REMEDIES[Reason.UNDECODABLE]}." in out
    assert "no_face: 1 clip failed." in out
    assert out.index("undecodable:") < out.index("v/03") < out.index("no_face:") < out.index("v/alone")
    assert any(row.split()[:3] == ["v/03", "faces,", "vision"] for row in out.splitlines())


def test_few_are_named_unless_asked_for(found: Extraction, capsys) -> None:
    print_result(found, found, as_json=False)
    short = capsys.readouterr().out
    assert f"v/{FEW - 1:02}" in short
    assert f"v/{FEW:02}" not in short
    assert f"and 2 more: `triptych status -v {found.folder}`" in short
    print_status(found, as_json=False, verbose=True)
    assert f"v/{COUNT - 1:02}" in capsys.readouterr().out


def test_notes_are_counted_and_listed(found: Extraction, capsys) -> None:
    print_result(found, found, as_json=False)
    out = capsys.readouterr().out
    row = next(row for row in out.splitlines() if row.startswith("vision"))
    assert row.split()[-1] == "1"
    assert "1 clip with notes: `triptych status -v" in out
    assert "2.8 of 5.0 s" not in out

    print_status(found, as_json=False, verbose=True)
    listed = [row for row in capsys.readouterr().out.splitlines() if "2.8 of 5.0 s decoded" in row]
    assert [row.split()[:3] for row in listed] == [["v/noted", "faces,", "vision"]]

    print_status(found, as_json=True, verbose=False)
    document = json.loads(capsys.readouterr().out)
    assert {"clip": "v/noted", "stage": "vision", "note": "2.8 of 5.0 s decoded"} in document["notes"]
    assert document["remedies"] == {
        "no_face": REMEDIES[Reason.NO_FACE],
        "undecodable": REMEDIES[Reason.UNDECODABLE],
    }


def test_names_with_control_characters_stay_on_their_line(capsys) -> None:
    print_table(("clip", "count"), [("new\nline \x1b[31mred 名字", 1)])
    assert capsys.readouterr().out.splitlines()[1].startswith(r"new\nline \x1b[31mred 名字  ")
