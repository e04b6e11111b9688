"""Sources of clips: a folder in CH-SIMS layout, and any folder of videos."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from pathlib import Path

import pytest
from manifest_cases import (
    NAN,
    clip,
    make_ch_sims,
    problem_of,
    problems_of,
    touch,
    write,
)

from triptych.pipeline.manifest.loading import load_manifest

HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"


@pytest.fixture(scope="module")
def ch_sims(test_data, tmp_path_factory) -> Path:
    return make_ch_sims(test_data, tmp_path_factory.mktemp("ch-sims"))


# ---- a folder in CH-SIMS layout


def test_ch_sims_row_becomes_clip(tmp_path):
    touch(tmp_path, "Raw/video_0001/0001.mp4", "Raw/video_0001/0002.MKV")
    rows = "video_0001,0001,我不想,-1.0,-0.8,,0.2,Negative,train\nvideo_0001,0002,  ,,,,,,\n"
    write(tmp_path / "label.csv", HEADER + rows)
    assert load_manifest(tmp_path).clips == (
        clip(
            "video_0001$_$0001",
            "Raw/video_0001/0001.mp4",
            "我不想",
            "train",
            (-1.0, -0.8, NAN, 0.2),
            str(tmp_path),
        ),
        clip("video_0001$_$0002", "Raw/video_0001/0002.MKV", root=str(tmp_path)),
    )


@pytest.mark.parametrize("extra", ["", ",more,id"])
@pytest.mark.parametrize("with_header", [True, False])
def test_ch_sims_header_is_optional(tmp_path, with_header, extra):
    touch(tmp_path, "Raw/v/0001.mp4")
    header = HEADER.strip() + extra + "\n" if with_header else ""
    write(tmp_path / "label.csv", header + "v,0001,x,0.4,,,,Positive,Test" + extra + "\n")
    (only,) = load_manifest(tmp_path).clips
    assert (only.id, only.path, only.text, only.split, only.label) == (
        "v$_$0001",
        "Raw/v/0001.mp4",
        "x",
        "test",
        0.4,
    )


def test_ch_sims_problems_are_all_reported(tmp_path, caplog):
    touch(tmp_path, "Raw/v/0001.mp4", "Raw/v/0001.avi", "Raw/v/0002.mp4", "Raw/v/0003.mp4")
    rows = (
        "v,0001,,,,,,,\n"  # two files
        "v,2,,,,,,,\n"  # zeros lost: restored
        "v,0009,,1.5,,,,,train\n"  # no file, and a label
        "v,0003,,,nan,,,,dev\n"  # a label and a split
        'v,0003,"a\nb",,,,,,\n'  # id given twice, on two lines
        "v,0002,too,few\n"
    )
    write(tmp_path / "label.csv", HEADER + rows)
    found = problems_of(tmp_path)
    for line, part in [
        (2, "0001.avi and 0001.mp4 are both in Raw/v"),
        (4, "label = 1.5: outside [-1, 1]"),
        (5, "label_T = 'nan': not a number"),
        (5, "split = 'dev': unknown; write valid"),
        (6, f"id 'v$_$0003' is already used by {tmp_path}/label.csv:5"),
        (8, "4 cells for 9 columns"),
    ]:
        assert any(m.startswith(f"{tmp_path}/label.csv:{line}: ") and part in m for m in found), (part, found)
    assert len(found) == 6
    assert "label.csv:4: video Raw/v/0009.* not found" in caplog.text


@pytest.mark.parametrize(
    ("table", "content", "path"),
    [
        ("label.csv", HEADER + "v,0001,,,,,,,\nv,0009,很好,0.4,,,,,train\n", "Raw/v/0009.mp4"),
        (
            "m.csv",
            "id,path,text,label,split\nx,Raw/v/0001.mp4,,,\nv$_$0009,gone.mp4,很好,0.4,train\n",
            "gone.mp4",
        ),
        (
            "m.jsonl",
            '{"path": "Raw/v/0001.mp4"}\n'
            '{"id": "v$_$0009", "path": "gone.mp4", "text": "很好", "label": 0.4, "split": "train"}\n',
            "gone.mp4",
        ),
    ],
)
def test_a_row_without_its_video_stays_and_is_reported(tmp_path, caplog, table, content, path):
    touch(tmp_path, "Raw/v/0001.mp4")
    file = write(tmp_path / table, content)
    source = tmp_path if table == "label.csv" else file
    _, gone = load_manifest(source).clips
    assert (gone.id, gone.path, gone.text, gone.split, gone.label) == ("v$_$0009", path, "很好", "train", 0.4)
    line = len(content.splitlines())
    assert f"{file}:{line}: " in caplog.text
    assert f"{file}: rows without a video: 1; only these clips fail" in caplog.text
    (tmp_path / "Raw" / "v" / "0001.mp4").unlink()
    assert any(f"{file}:{line}: " in problem for problem in problems_of(source))


def test_ids_with_blanks_are_matched(tmp_path, caplog):
    touch(tmp_path, "Raw/v/0001.mp4")
    write(tmp_path / "label.csv", HEADER + " v , 0001 ,,,,,,,\n")
    assert [clip.id for clip in load_manifest(tmp_path).clips] == ["v$_$0001"]
    assert "or with blanks were matched" in caplog.text


def test_empty_cells_beyond_the_header_are_ignored(tmp_path):
    touch(tmp_path, "a.mp4")
    table = write(tmp_path / "m.csv", "path,text\na.mp4,很好,, \n")
    assert load_manifest(table).clips[0].text == "很好"


def test_ch_sims_videos_without_row_give_a_warning(tmp_path, caplog):
    touch(
        tmp_path, "Raw/v/0001.mp4", "Raw/v/0002.mp4", "Raw/w/0001.mov", "Raw/loose.mp4", "Raw/v/.hidden.mp4"
    )
    write(tmp_path / "label.csv", HEADER + "v,0001,,,,,,,\n")
    with caplog.at_level(logging.WARNING):
        assert len(load_manifest(tmp_path).clips) == 1
    (record,) = caplog.records
    assert "3 videos in Raw have no row" in record.getMessage()
    assert "v/0002.mp4" in record.getMessage()


@pytest.mark.parametrize(
    ("table", "part"),
    [("", "has no clips"), (HEADER, "has no clips"), ("video_id,text\nv,x\n", "no column clip_id")],
)
def test_ch_sims_table_without_rows_or_ids_is_refused(tmp_path, table, part):
    (tmp_path / "Raw").mkdir()
    write(tmp_path / "label.csv", table)
    assert part in problem_of(tmp_path)


def test_ch_sims_without_raw_is_refused(tmp_path):
    write(tmp_path / "label.csv", HEADER + "v,0001,,,,,,,\n")
    assert "has its videos in Raw/" in problem_of(tmp_path)


def test_real_clips_are_read(test_data):
    clips = load_manifest(test_data / "clips").clips
    assert len(clips) == 24
    assert sum(clip.text is not None for clip in clips) == 19
    assert all(math.isnan(clip.label) and clip.split is None and clip.file.is_file() for clip in clips)
    assert clips[0].id == "video_retalking$_$0001"


def test_real_ch_sims_table_is_read(ch_sims):
    clips = load_manifest(ch_sims).clips
    assert len(clips) == 2281
    assert Counter(clip.split for clip in clips) == {"train": 1368, "valid": 456, "test": 457}
    assert clips[1].id == "video_0001$_$0002"
    assert clips[1].text == "你这是嫁入豪门啊！"
    assert (clips[1].label, clips[1].label_T, clips[1].label_A, clips[1].label_V) == (1.0, 1.0, 0.8, 1.0)


# ---- any folder of videos


def test_folder_is_read_recursively_and_sorted(tmp_path):
    touch(tmp_path, "b/2.mp4", "b/1.MOV", "-a.mp4", "名字 带空格 (1).mp4", "b/notes.md")
    touch(tmp_path, ".hidden.mp4", ".cache/3.mp4", "b/folder.mp4/4.webm")
    write(tmp_path / "b" / "2.txt", " 你好\r\n世界\r\n")
    write(tmp_path / "b" / "1.txt", "\r\n")
    found = [(clip.id, clip.path, clip.text) for clip in load_manifest(tmp_path).clips]
    assert found == [
        ("-a", "-a.mp4", None),
        ("名字 带空格 (1)", "名字 带空格 (1).mp4", None),
        ("b$_$1", "b/1.MOV", None),
        ("b$_$2", "b/2.mp4", "你好\r\n世界"),
        ("folder.mp4$_$4", "b/folder.mp4/4.webm", None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
def test_transcript_encodings_are_recognised(tmp_path, encoding):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.txt", "你却没有来！".encode(encoding))
    assert load_manifest(tmp_path).clips[0].text == "你却没有来！"


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ("你好".encode() + b"\xff", 6),
        (b"\xef\xbb\xbfab\xffcd", 5),
        ("你好嗎".encode("big5"), 0),
        ("こんにちは、世界".encode("euc-jp")[:-1], 0),
    ],
)
def test_unknown_transcript_encoding_reports_the_byte(tmp_path, content, offset):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.txt", content)
    assert problem_of(tmp_path).startswith(f"{tmp_path}/a.txt: byte {offset} (0x")


def test_equal_ids_report_both_files(tmp_path):
    touch(tmp_path, "x/v/1.mp4", "y/v/1.mp4")
    problem = problem_of(tmp_path)
    assert f"{tmp_path}/x/v/1.mp4" in problem
    assert f"{tmp_path}/y/v/1.mp4" in problem


@pytest.mark.parametrize("in_raw", [True, False])
def test_sound_beside_its_video_is_no_clip(tmp_path, caplog, in_raw):
    touch(tmp_path, "Raw/v/0001.mp4", "Raw/v/0001.WAV", "Raw/v/0002.wav")
    if in_raw:
        write(tmp_path / "label.csv", HEADER + "v,0001,,,,,,,\nv,0002,,,,,,,\n")
    assert [clip.path for clip in load_manifest(tmp_path).clips] == ["Raw/v/0001.mp4", "Raw/v/0002.wav"]
    (record,) = caplog.records
    assert "1 audio files beside a video of the same name are left out: '0001.WAV'" in record.getMessage()


def test_folder_without_videos_is_refused(tmp_path):
    touch(tmp_path, "readme.md")
    assert "no clip in this folder" in problem_of(tmp_path)


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "in/a/1.mp4", "out/b/2.mp4")
    for link, target in {
        "in/0": "in/a",
        "in/loop": "in",
        "in/w": "out",
        "in/z": "out",
        "out/b/up": "out",
    }.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert [clip.path for clip in load_manifest(tmp_path / "in").clips] == ["a/1.mp4", "w/b/2.mp4"]


def test_linked_source_keeps_the_path_of_the_link(tmp_path):
    touch(tmp_path, "in/1.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (only,) = load_manifest(tmp_path / "link").clips
    assert (only.id, only.root) == ("1", str(tmp_path / "link"))


def test_broken_link_is_a_missing_file(tmp_path):
    """In a folder it costs only its own clip; a table of which no file exists is an error."""
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    touch(tmp_path, "b.mp4")
    assert [clip.id for clip in load_manifest(tmp_path).clips] == ["a", "b"]
    table = write(tmp_path / "m.csv", "path\na.mp4\n")
    assert f"file {tmp_path}/a.mp4 not found" in problem_of(table)


def test_file_name_that_is_not_utf8_is_refused(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffa.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    problem = problem_of(tmp_path)
    assert "not valid UTF-8" in problem
    problem.encode()


def test_ids_do_not_depend_on_the_folders_above_the_source(tmp_path, monkeypatch):
    touch(tmp_path, "v/1.mp4", "v/sub/2.mp4")
    monkeypatch.chdir(tmp_path / "v" / "sub")
    assert [clip.id for clip in load_manifest(Path("..")).clips] == ["1", "sub$_$2"]
    assert load_manifest(Path()).clips[0].id == "2"
    (tmp_path / "v").rename(tmp_path / "w")
    assert [clip.id for clip in load_manifest(tmp_path / "w").clips] == ["1", "sub$_$2"]


def test_clips_with_unusual_names_are_read(test_data):
    clips = load_manifest(test_data / "clips" / "hard").clips
    assert len(clips) == 48
    assert {"-leading-dash", "名字 带空格 (1)", "zero_bytes"} <= {clip.id for clip in clips}
