"""The table of cuts, the data set that it makes, and its page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from triptych.extractors.cutting.proposals import REMEDIES
from triptych.pipeline.cutting.cuts import Cut, numbered, read_cuts, write_cuts
from triptych.pipeline.cutting.dataset import Recording, write_dataset
from triptych.pipeline.cutting.page import write_page
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest

CUTS = [
    Cut("a", "0001", 0.0, 2.5, False, "no_speech", "nobody speaks", "", 0.0),
    Cut("a", "0002", 2.5, 6.125, True, "", "", "0.300 0.500", 0.9, 0.42),
    Cut("a", "0003", 7.0, 9.0, True, "", "", "", 0.8, 0.3),
]


def test_the_table_is_read_as_it_was_written(tmp_path):
    write_cuts(CUTS, tmp_path / "cuts.csv")
    read = read_cuts(tmp_path / "cuts.csv", {"a": 10})
    assert [replace(cut, score=0) for cut in read] == [replace(cut, score=0) for cut in CUTS]
    assert math.isnan(read[0].score)
    assert read[1].score == 0.42


def test_a_table_from_a_spreadsheet_with_edits(tmp_path):
    rows = ["recording;id;start;end;keep;reason", "a;0002;1:02,5;1:06.25;x;too_short", "a;;70;72;yes;"]
    (tmp_path / "cuts.csv").write_text("\n".join([*rows, "a;0007;80;82;no;two_faces"]))
    read = read_cuts(tmp_path / "cuts.csv", {"a": 100})
    assert [(cut.id, cut.start, cut.end, cut.keep, cut.reason) for cut in read] == [
        ("0002", 62.5, 66.25, True, ""),
        ("0008", 70, 72, True, ""),
        ("0007", 80, 82, False, "two_faces"),
    ]


def test_every_bad_row_is_reported_with_its_line(tmp_path):
    rows = ["b,1,0,1,yes", "a,2,soon,1,yes", "a,3,5,4,yes", "a,4,1,99,yes", "a,5,1,2,perhaps", "a,5,2,3,no"]
    (tmp_path / "cuts.csv").write_text("\n".join(["recording,id,start,end,keep", *rows]))
    with pytest.raises(InputError) as caught:
        read_cuts(tmp_path / "cuts.csv", {"a": 10})
    text = str(caught.value)
    expected = [
        "name one of its",
        "1:23.25",
        "not before",
        "after the rec",
        "write yes or no",
        "that of line 6",
    ]
    for line, part in enumerate(expected, start=2):
        assert any(f"cuts.csv:{line}: " in one and part in one for one in text.splitlines()), part


def test_ids_stay_when_other_spans_change_and_none_is_given_twice():
    proposed = [replace(cut, id="") for cut in (CUTS[1], replace(CUTS[2], start=7.1))]
    added = Cut("a", "", 6.2, 6.9, True)
    assert [cut.id for cut in numbered([*proposed, added], CUTS)] == ["0002", "0004", "0003"]


def dataset(folder, cuts, before=()):
    labels = dict.fromkeys(("label", "label_T", "label_A", "label_V"), math.nan)
    clip = Clip(id="a", path="a.mp4", text=None, root=str(folder), split=None, **labels)
    recording = Recording("a", clip, "d", 10.0)
    return write_dataset(folder, [recording], cuts, before, mode="none", quality=14, jobs=0)


def test_labels_stay_and_only_a_recognisers_transcript_of_a_moved_span_is_removed(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    dataset(tmp_path, CUTS)
    manifest = load_manifest(tmp_path / "manifest.csv", check_files=False)
    assert [(clip.start, clip.end) for clip in manifest.clips] == [(2.5, 6.125), (7, 9)]
    one, two = manifest.clips
    edited = (
        replace(one, text="by hand", label=0.5, split="train"),
        replace(two, text="by a machine", text_source="asr:x", label=-0.5, split="test"),
    )
    write_manifest(Manifest(edited), tmp_path / "manifest.csv")
    moved = [CUTS[0], replace(CUTS[1], end=5.0), replace(CUTS[2], end=8.0)]
    written = dataset(tmp_path, moved, CUTS)
    found = written.manifest.clips
    assert [(clip.text, clip.label, clip.split) for clip in found] == [
        ("by hand", 0.5, "train"),
        (None, -0.5, "test"),
    ]
    assert written.new_texts == (one.id, two.id)


def test_the_page_escapes_texts_and_names_every_reason(tmp_path):
    left_out = [
        Cut("<b>", f"{k}", k, k + 1.0, False, reason, "<script>") for k, reason in enumerate(REMEDIES)
    ]
    page = Path(write_page(left_out, tmp_path, "cuts.csv")).read_text()
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert all(reason in page for reason in REMEDIES)
