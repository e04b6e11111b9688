"""The report of a feature folder: what is in the file, and that no text of a user becomes part of the page."""

from __future__ import annotations

import base64
import json
import math
import shutil
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from feature_folder import make_folder

from triptych.extractors.base import Reason
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.imported import import_mmsa
from triptych.pipeline.exchange.mmsa import export_mmsa
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.report import html, strips
from triptych.pipeline.report.gather import ClipFacts, Lengths, measure
from triptych.pipeline.report.html import write_report
from triptych.pipeline.report.outliers import ranked
from triptych.pipeline.report.series import clip_series, quantised
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter
from triptych.pipeline.storage.store import FeatureStore

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"' & <!-- \u202egnp.exe"


class Page(HTMLParser):
    """The elements of a page, its scripts by id, and its visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.source = path.read_text("utf-8")
        self.text = ""
        self._script: str | None = None
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] += data
        else:
            self.text += data

    @property
    def data(self) -> dict:
        return json.loads(self.scripts["data"])

    def rows(self) -> list[dict]:
        return [dict(zip(self.data["fields"], clip, strict=True)) for clip in self.data["clips"]]


def page_of(folder: Path, tmp_path: Path) -> Page:
    output = tmp_path / "report.html"
    write_report(folder, output)
    return Page(output)


def decode(text: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Read what `clip_series` writes, as the page does."""
    content = zlib.decompress(base64.b64decode(text), wbits=-15)
    length = int.from_bytes(content[:4], "little")
    header, at, arrays = json.loads(content[4 : 4 + length]), 4 + length, {}
    for one in header["arrays"]:
        count, kind = one["rows"] * one["columns"], np.dtype(f"<{one['kind']}")
        levels = np.frombuffer(content, kind, count, at).reshape(one["columns"], one["rows"]).T
        at += count * kind.itemsize
        missing = np.iinfo(kind).max
        scaled = one["low"] + levels * (one["high"] - one["low"]) / (missing - 1)
        arrays[one["name"]] = np.where(levels == missing, np.nan, scaled)
    assert at == len(content)
    return header, arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("report") / "F"
    make_folder(place, {"train": 6, "valid": 3, "test": 3}, missing={"text": [0], "vision": [1]})
    return place


def failed(folder: Path, clip: Clip, stage: str, reason: str, detail: str) -> None:
    fingerprint = json.loads((folder / "recipe.json").read_text())["fingerprints"][stage]
    with LedgerWriter(folder) as ledger:
        ledger.write(LedgerLine(clip.id, stage, "failed", reason, detail, 0.1, fingerprint, ""))


def test_report_shows_coverage_rows_and_labels(folder, tmp_path):
    page = page_of(folder, tmp_path)
    rows = page.rows()
    assert len(rows) == 12
    assert [row["tokens"] is None for row in rows] == [True] + [False] * 11
    assert [row["vision"] is None for row in rows] == [False, True] + [False] * 10
    assert rows[0]["states"] == "text missing"
    assert "5 / 6" in page.text  # text and vision of the split train
    store = FeatureStore(folder)
    vision = store.read("vision", rows[2]["id"])
    assert rows[2]["valid"] == pytest.approx(vision.valid.mean(), abs=1e-4)
    labels = np.array([[clip.label, clip.label_T] for clip in store.manifest.clips])
    assert f"{np.mean((labels[:, 0] - labels[:, 1]) ** 2):.3f}" in page.text


def test_policy_names_the_scripts_that_run_and_forbids_the_rest(folder, tmp_path):
    page = page_of(folder, tmp_path)
    policy = next(attrs["content"] for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs)
    library = zlib.decompress(base64.b64decode(page.scripts["bokeh"]), wbits=-15).decode()
    assert policy == html.policy(page.scripts["code"], library)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    loaded = {attrs[name] for _, attrs in page.elements for name in ("src", "href") if name in attrs}
    assert [address for address in loaded if not str(address).startswith("#")] == []


def test_texts_of_users_stay_texts(folder, tmp_path):
    hostile = tmp_path / "F"
    shutil.copytree(folder, hostile)
    clips = FeatureStore(folder).manifest.clips
    named = replace(clips[0], id="a<script>alert(2)<!--'\"&", text=HOSTILE, split=None)
    write_manifest(Manifest((named, *clips[1:])), hostile / "manifest.csv")
    failed(hostile, named, "audio", Reason.UNDECODABLE, HOSTILE)
    failed(hostile, named, "text", "<b>unknown</b>", f"{HOSTILE} again")
    page, plain = page_of(hostile, tmp_path), page_of(folder, tmp_path)
    scripts = [tag for tag, _ in page.elements].count("script")
    assert (
        scripts == len(page.data["clips"]) - 1 + 3
    )  # curves of all clips but the new one; data, library, code
    assert {tag for tag, _ in page.elements} - {tag for tag, _ in plain.elements} <= {"details", "summary"}
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert page.rows()[0]["id"] == named.id
    assert "alert(1)</script><img" in page.text  # in the failure's detail
    assert "\\u202egnp" in page.text
    assert "\u202e" not in page.source
    assert "Check that the file plays" in page.text


def test_curves_are_those_of_the_rows(folder):
    store = FeatureStore(folder)
    clip = store.complete_ids()[0]
    text, audio, vision = (store.read(stage, clip) for stage in ("text", "audio", "vision"))
    header, arrays = decode(clip_series(store, clip))
    assert header["tokens"] == list(text.extras["tokens"])
    assert header["audio"]["step"] == pytest.approx(512 / 22050, abs=1e-6)
    columns = [vision.columns.index(name) for name in ("gaze_angle_x", "gaze_angle_y")]
    gaze = np.degrees(np.clip(vision.values[:, columns], -math.pi / 2, math.pi / 2))
    assert arrays["gaze"][vision.valid] == pytest.approx(gaze[vision.valid], abs=0.01)
    assert np.isnan(arrays["gaze"][~vision.valid]).all()
    chroma = audio.values[:, [audio.columns.index(name) for name in ("chroma_C", "chroma_B")]]
    assert arrays["chroma"][:, [0, 11]] == pytest.approx(np.clip(chroma, 0, 1), abs=0.003)


def test_missing_values_have_a_level_of_their_own():
    assert quantised(np.array([0.0, 1.0, np.nan, 9.0]), 0, 1, "u1").tolist() == [0, 254, 255, 254]


def facts(number: int, **measured: object) -> ClipFacts:
    clip = Clip(f"c{number}", "", None, None, math.nan, math.nan, math.nan, math.nan, "/")
    usual: dict = {
        "media": Lengths(4, 4, 4),
        "audio_end": 4.0,
        "frames_end": 4.0,
        "voiced": 0.6,
        "confidence": 0.9,
    }
    return ClipFacts(clip, number, "d", **{**usual, "valid": 1.0, **measured})


def test_rows_that_do_not_span_the_media_come_first():
    clips = [facts(number) for number in range(30)]
    clips[3] = facts(3, valid=0.0)
    clips[5] = facts(5, frames_end=3.6)
    clips[7] = facts(7, audio_end=1.0)
    clips[9] = facts(9, voiced=0.0)
    clips[11] = facts(11, frames_end=3.9)  # within the tolerance
    found = ranked(clips)
    assert [one.number for one, _ in found] == [7, 5, 3, 9]
    assert found[0][1][0].text == "audio rows end at 1.00 s; the file's sound last 4.00 s"


def test_sound_and_frames_are_compared_where_the_file_is_missing():
    found = ranked([facts(0, media=Lengths(), frames_end=2.0), facts(1, media=Lengths())])
    assert [(one.number, findings[0].first) for one, findings in found] == [(0, True)]


def test_folder_with_one_stage_and_no_labels(folder, tmp_path):
    small = tmp_path / "F"
    shutil.copytree(folder, small)
    for stage in ("text", "vision"):
        shutil.rmtree(small / stage)
    recipe = json.loads((small / "recipe.json").read_text())
    recipe["fingerprints"] = {"audio": recipe["fingerprints"]["audio"]}
    (small / "recipe.json").write_text(json.dumps(recipe))
    nothing = dict.fromkeys(("label", "label_T", "label_A", "label_V"), math.nan)
    clips = [replace(clip, text=None, split=None, **nothing) for clip in FeatureStore(folder).manifest.clips]
    write_manifest(Manifest(tuple(clips)), small / "manifest.csv")
    page = page_of(small, tmp_path)
    assert "No clip has a label." in page.text
    assert {row["audio"] is None for row in page.rows()} == {False}
    assert {row["vision"] for row in page.rows()} == {None}


def test_folder_of_failures_alone(folder, tmp_path):
    empty = tmp_path / "F"
    empty.mkdir()
    for name in ("manifest.csv", "recipe.json"):
        shutil.copy(folder / name, empty / name)
    for clip in FeatureStore(folder).manifest.clips:
        for stage in ("audio", "vision"):
            failed(empty, clip, stage, Reason.FILE_MISSING, f"{clip.path}: file not found")
    page = page_of(empty, tmp_path)
    assert "No clip has rows." in page.text
    assert page.text.count("v_0000/0001.mp4: file not found") == 1  # once for both stages
    assert not [name for name in page.scripts if name.startswith("series-")]


def test_imported_features_have_no_curves_of_named_columns(folder, tmp_path):
    export_mmsa(FeatureStore(folder), tmp_path / "F.pkl")
    import_mmsa(tmp_path / "F.pkl", tmp_path / "F")
    page = page_of(tmp_path / "F", tmp_path)
    assert "Imported from F.pkl" in page.text
    assert len(page.rows()) == 12
    assert not [name for name in page.scripts if name.startswith("series-")]
    assert {row["seconds"] for row in page.rows()} == {None}


def test_large_data_sets_are_limited_and_the_report_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "LISTED", 8)
    monkeypatch.setattr(html, "SERIES_BYTES", 3 * len(clip_series(FeatureStore(folder), "v_0002$_$0001")))
    page = page_of(folder, tmp_path)
    assert len(page.rows()) == 8
    assert "The table lists 8 of 12 clips" in page.text
    drawn = sum(name.startswith("series-") for name in page.scripts)
    assert 0 < drawn < 8
    assert f"{drawn} clips of 8 have curves here" in page.text or f"{drawn} clip of 8" in page.text


def test_landmarks_of_crops_are_drawn_on_the_face(demo_features, monkeypatch):
    store = FeatureStore(demo_features)
    clip = store.manifest.clips[0]
    found = []
    drawn = strips._drawn
    monkeypatch.setattr(strips, "_drawn", lambda frame: found.append(frame) or drawn(frame))
    image, times = strips.strip(store, clip)
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[0] == strips.HEIGHT
    assert len(times) == strips.FRAMES
    track = store.read("faces", clip.id)
    assert len(found) == strips.FRAMES
    for frame in found:
        row = round(frame.time * 30)
        eye = frame.marks.landmarks[36:42].mean(
            axis=0
        )  # OpenFace's numbers 36 to 41 are the left eye of the image
        expected = track.values[row, 5:7]
        width = track.values[row, 2] - track.values[row, 0]
        assert np.linalg.norm(eye - expected) < 0.12 * width


def test_rows_are_compared_with_the_file(demo_features):
    store = FeatureStore(demo_features)
    clips = store.manifest.clips
    measured = [measure(store, clip, number, "dddd") for number, clip in enumerate(clips)]
    assert all(one.media.container > 1 for one in measured)
    assert ranked(measured) == []
    shortest, longest = (choose(measured, key=lambda one: one.seconds) for choose in (min, max))
    swapped = measure(store, replace(shortest.clip, path=longest.clip.path), 0, "dddd")
    texts = [finding.text for finding in ranked([swapped])[0][1]]
    assert [text.partition(" end at")[0] for text in texts] in (
        ["audio rows", "rows of frames"],
        ["rows of frames", "audio rows"],
    )


def test_command_writes_the_file(folder, tmp_path):
    done = CliRunner().invoke(cli, ["report", str(folder), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert "12 clips, 12 with curves, 0 with frames" in done.output


def test_output_in_a_missing_folder_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="Name a file in a folder that exists"):
        write_report(folder, tmp_path / "missing" / "report.html")
