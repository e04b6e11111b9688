"""A run of `triptych transcribe` on a real clip, what people edit meanwhile, and files of corrections."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from triptych.extractors.asr.stage import AsrSettings
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.transcribing.correction_files import read_files, write_files
from triptych.pipeline.transcribing.run import place_of, plan, recogniser_name, transcribe
from triptych.pipeline.transcribing.texts import corrected

SPHINX = "asr.backend=pocketsphinx"


def a_clip(id, text=None, **more):
    root = more.pop("root", "/media")
    path = more.pop("path", f"{id.replace('$_$', '/')}.mp4")
    return Clip(id, path, text, None, math.nan, math.nan, math.nan, math.nan, root, **more)


@pytest.fixture(scope="module")
def transcribed_once(tmp_path_factory, test_data):
    """A data set of two spans of speech, one of them with a person's transcript, and a quiet span."""
    folder = tmp_path_factory.mktemp("once") / "dataset"
    folder.mkdir()
    shutil.copy(test_data / "clips/Raw/liveportrait/0013.mp4", folder / "talk.mp4")
    span = {"root": str(folder), "path": "talk.mp4"}
    clips = (
        a_clip("talk$_$0001", None, start=0.0, end=3.0, **span),
        a_clip("talk$_$0002", "as I heard it", start=0.0, end=2.0, **span),
        a_clip("talk$_$0003", None, start=0.0, end=0.15, **span),
        a_clip("gone$_$0001", None, root=str(folder), path="gone.mp4"),
    )
    write_manifest(Manifest(clips), folder / "manifest.csv")
    run(folder)
    return folder


@pytest.fixture
def dataset(transcribed_once, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(transcribed_once, folder)
    manifest = load_manifest(folder / "manifest.csv", check_files=False)
    clips = tuple(replace(clip, root=str(folder)) for clip in manifest.clips)
    write_manifest(replace(manifest, clips=clips), folder / "manifest.csv")
    return folder


def run(folder, *assignments, **options):
    place = place_of([folder], None)
    return transcribe(place, plan(place, [SPHINX, *assignments], **options), jobs=0)[0]


def rows(folder):
    return {clip.id: clip for clip in load_manifest(folder / "manifest.csv", check_files=False).clips}


def edit(folder, id, **changes):
    manifest = load_manifest(folder / "manifest.csv", check_files=False)
    clips = tuple(replace(clip, **changes) if clip.id == id else clip for clip in manifest.clips)
    write_manifest(replace(manifest, clips=clips), folder / "manifest.csv")


def test_transcripts_name_their_recogniser_and_a_persons_stays(transcribed_once):
    found = rows(transcribed_once)
    heard = found["talk$_$0001"]
    assert "during the day" in heard.text
    assert heard.text_source.startswith("asr:pocketsphinx@5")
    assert 0 < heard.text_confidence < 1
    assert found["talk$_$0002"].text == "as I heard it"
    assert found["talk$_$0002"].text_source is None
    for silent in ("talk$_$0003", "gone$_$0001"):
        assert (found[silent].text, found[silent].text_source) == (None, None)


def test_a_correction_and_a_removal_by_hand_stay(dataset):
    edit(dataset, "talk$_$0001", text="the device would work")
    done = run(dataset, again=True)
    assert done.corrected == ("talk$_$0001",)
    row = rows(dataset)["talk$_$0001"]
    assert (row.text, row.text_source) == ("the device would work", "corrected")
    assert math.isnan(row.text_confidence)
    edit(dataset, "talk$_$0001", text=None)
    run(dataset, again=True)
    assert rows(dataset)["talk$_$0001"].text is None


def test_only_again_replaces_what_a_recogniser_wrote(dataset, test_data):
    before = rows(dataset)
    (dataset / "more").mkdir()
    shutil.copy(test_data / "clips/Raw/pyfeat/0002.mp4", dataset / "gone.mp4")  # the file is back
    edit(dataset, "gone$_$0001", start=0.0, end=2.0)
    run(dataset, "media.sample_rate=16000")
    after = rows(dataset)
    assert after["talk$_$0001"] == before["talk$_$0001"]
    assert "device" in after["gone$_$0001"].text
    (dataset / "gone.mp4").unlink()
    done = run(dataset, "media.sample_rate=11025", again=True)
    assert set(done.by_machine) == {"talk$_$0001", "gone$_$0001"}
    last = rows(dataset)
    assert last["gone$_$0001"] == after["gone$_$0001"]  # its file cannot be read: the transcript stays
    assert last["talk$_$0001"].text_confidence != before["talk$_$0001"].text_confidence


def test_edits_during_a_run_are_not_lost(dataset):
    edit(dataset, "talk$_$0001", text=None, text_source=None, text_confidence=math.nan)
    place = place_of([dataset], None)
    todo = plan(place, [SPHINX])
    edit(dataset, "talk$_$0002", text="heard again", label=0.4)
    transcribe(place, todo, jobs=0)
    row = rows(dataset)["talk$_$0002"]
    assert (row.text, row.label) == ("heard again", 0.4)
    assert "device" in rows(dataset)["talk$_$0001"].text


def test_new_clips_of_a_source_are_added_to_a_manifest_that_exists(tmp_path, test_data):
    manifest, first = tmp_path / "clips.csv", test_data / "clips/Raw/liveportrait/0013.mp4"
    write_manifest(Manifest((a_clip("old", "by hand"),)), manifest)
    place = place_of([first], manifest)
    assert [clip.text for clip in place.clips.clips] == ["by hand", None]
    with pytest.raises(InputError, match="name the manifest to write: -o"):
        place_of([first], None)


def test_a_model_in_a_folder_is_named_with_a_hash_of_its_content(tmp_path):
    def name(weights):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own/config.json").write_text("{}")
        (tmp_path / "own/model.safetensors").write_bytes(weights)
        section = AsrSettings(model=str(tmp_path / "own"), revision="")
        return recogniser_name(SimpleNamespace(recipe=SimpleNamespace(section=lambda _: section)))

    assert re.fullmatch("own@sha256:[0-9a-f]{12}", name(b"one"))
    assert name(b"one") != name(b"two")


TEXTS = ['他说："你好"，走了。', 'He said "a --> b" & left', "two\nlines", "1", "if a <b> c then 5 < 6"]


@pytest.mark.parametrize("form", ["srt", "vtt", "TextGrid"])
@pytest.mark.parametrize("spans", [False, True])
def test_files_that_nobody_changed_change_nothing(tmp_path, form, spans):
    clips = [
        a_clip(
            f"v$_${k}", text, **({"path": "v.mp4", "start": 2.0 * k, "end": 2.0 * k + 1.5} if spans else {})
        )
        for k, text in enumerate(TEXTS)
    ]
    clips.append(a_clip("..$_$out", "stays in the folder"))
    written = write_files(Manifest(tuple(clips)), {}, form, tmp_path / "files")
    assert len(written) == (2 if spans else len(clips))
    assert all(path.resolve().is_relative_to(tmp_path / "files") for path in written)
    assert corrected(Manifest(tuple(clips)), read_files(Manifest(tuple(clips)), tmp_path / "files"))[1] == ()


@pytest.mark.parametrize("form", ["srt", "vtt", "TextGrid"])
def test_a_corrected_piece_of_a_recording_is_that_of_its_span(tmp_path, form):
    spans = [(0.0, 2.0), (1.5, 4.0), (4.0, 6.0)]  # two of them overlap
    clips = tuple(
        a_clip(
            f"v$_${k}", text, path="v.mp4", start=start, end=end, text_source="asr:m@r", text_confidence=0.5
        )
        for k, (text, (start, end)) in enumerate(zip(["你好吗", "我很好", "再见"], spans, strict=True))
    )
    (path,) = write_files(Manifest(clips), {}, form, tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("再见", "再见了"), encoding="utf-8")
    manifest, changed = corrected(Manifest(clips), read_files(Manifest(clips), tmp_path))
    assert changed == ("v$_$2",)
    assert (manifest.clips[2].text, manifest.clips[2].text_source) == ("再见了", "corrected")
    assert manifest.clips[:2] == clips[:2]


def test_a_corrected_file_is_found_by_the_name_of_the_clips_file(tmp_path):
    clip = a_clip("v$_$1", "helo", path="take one.mp4", text_source="asr:m@r")
    (tmp_path / "take one.txt").write_text("hello", encoding="utf-8")
    assert read_files(Manifest((clip,)), tmp_path) == {"v$_$1": "hello"}
    (tmp_path / "take one.txt").unlink()
    with pytest.raises(InputError, match=r"expected files such as v/1\.srt"):
        read_files(Manifest((clip,)), tmp_path)


def test_the_command_writes_and_reads_subtitles(dataset):
    def command(*options):
        return CliRunner().invoke(cli, ["transcribe", str(dataset), *options], catch_exceptions=False)

    assert (
        "1 transcripts by a recogniser, 1 by people"
        in command("--limit", "1", "--backend", "pocketsphinx").output
    )
    assert command("--to", "vtt").exit_code == 0
    file = dataset / "subtitles/talk.vtt"
    file.write_text(
        file.read_text(encoding="utf-8").replace("as I heard it", "as I hear it"), encoding="utf-8"
    )
    assert "1 transcripts changed" in command("--from", str(dataset / "subtitles")).output
    assert rows(dataset)["talk$_$0002"].text == "as I hear it"
    assert rows(dataset)["talk$_$0002"].text_source is None  # by a person, before and after
    assert CliRunner().invoke(cli, ["transcribe", str(dataset), "--to", "srt", "--from", "x"]).exit_code == 2
