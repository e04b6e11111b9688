"""Every SOURCE read, every mistake named, a manifest read back as written, the reader held to its schema."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest, load_manifest, load_transcripts, write_manifest
from triptych.pipeline.manifest.sources import absolute
from triptych.pipeline.manifest.splits import assign_splits, label_class, parse_ratio

MANIFESTS = Path(__file__).parents[1] / "manifests"
HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
NAN = math.nan

any_pace = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def clip(id="v$_$1", path="v/1.mp4", text=None, split=None, labels=(NAN, NAN, NAN, NAN), root="/videos"):
    return Clip(id, path, text, split, *labels, root=root)


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def mistakes_of(source: Path, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_manifest(source, **options)
    return list(caught.value.mistakes)


def mistake_of(source: Path, **options) -> str:
    mistakes = mistakes_of(source, **options)
    assert len(mistakes) == 1, mistakes
    return mistakes[0]


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
def test_ch_sims_header_is_optional_and_extra_columns_are_tolerated(tmp_path, with_header, extra):
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


def test_ch_sims_mistakes_all_at_once(tmp_path):
    touch(tmp_path, "Raw/v/0001.mp4", "Raw/v/0001.avi", "Raw/v/0002.mp4", "Raw/v/0003.mp4")
    rows = (
        "v,0001,,,,,,,\n"  # two files
        "v,2,,,,,,,\n"  # zeros lost
        "v,0009,,1.5,,,,,train\n"  # no file, and a label
        "v,0003,,,nan,,,,dev\n"  # a label and a split
        'v,0003,"a\nb",,,,,,\n'  # id given twice, on two lines
        "v,0002,too,few\n"
    )
    write(tmp_path / "label.csv", HEADER + rows)
    found = mistakes_of(tmp_path)
    for line, part in [
        (2, "0001.avi and 0001.mp4 are both in Raw/v"),
        (3, "0002.mp4 is there; restore the zeros"),
        (4, "label = 1.5: outside [-1, 1]"),
        (4, "no video Raw/v/0009.*"),
        (5, "label_T = 'nan': not a number"),
        (5, "split = 'dev': unknown; write valid"),
        (6, f"id 'v$_$0003' is also that of {tmp_path}/label.csv:5"),
        (8, "4 cells where there are 9 columns"),
    ]:
        assert any(m.startswith(f"{tmp_path}/label.csv:{line}: ") and part in m for m in found), (part, found)
    assert len(found) == 8


def test_ch_sims_videos_without_row_are_warned_of(tmp_path, caplog):
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
    [("", "holds no clips"), (HEADER, "holds no clips"), ("video_id,text\nv,x\n", "no column clip_id")],
)
def test_ch_sims_table_without_rows_or_ids(tmp_path, table, part):
    (tmp_path / "Raw").mkdir()
    write(tmp_path / "label.csv", table)
    assert part in mistake_of(tmp_path)


def test_ch_sims_without_raw(tmp_path):
    write(tmp_path / "label.csv", HEADER + "v,0001,,,,,,,\n")
    assert "CH-SIMS keeps its videos in Raw" in mistake_of(tmp_path)


def test_real_clips(test_data):
    clips = load_manifest(test_data / "clips").clips
    assert len(clips) == 24
    assert sum(clip.text is not None for clip in clips) == 19
    assert all(math.isnan(clip.label) and clip.split is None and clip.file.is_file() for clip in clips)
    assert clips[0].id == "video_retalking$_$0001"


@pytest.fixture(scope="module")
def ch_sims(test_data, tmp_path_factory) -> Path:
    """The real table of CH-SIMS, every video an empty file."""
    folder = tmp_path_factory.mktemp("ch-sims")
    shutil.copy(test_data / "labels" / "ch_sims_label.csv", folder / "label.csv")
    with (folder / "label.csv").open(encoding="utf-8-sig", newline="") as stream:
        touch(folder, *(f"Raw/{row['video_id']}/{row['clip_id']}.mp4" for row in csv.DictReader(stream)))
    return folder


def test_real_table(ch_sims):
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
    name = tmp_path.name
    assert found == [
        (f"{name}$_$-a", "-a.mp4", None),
        (f"{name}$_$名字 带空格 (1)", "名字 带空格 (1).mp4", None),
        ("b$_$1", "b/1.MOV", None),
        ("b$_$2", "b/2.mp4", "你好\r\n世界"),
        ("folder.mp4$_$4", "b/folder.mp4/4.webm", None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk"])
def test_transcript_encodings(tmp_path, encoding):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.txt", "你却没有来！".encode(encoding))
    assert load_manifest(tmp_path).clips[0].text == "你却没有来！"


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ("你好".encode() + b"\xff", 6),
        (b"\xef\xbb\xbfab\xffcd", 5),
        ("你好".encode("utf-16"), 0),
        ("你好嗎".encode("big5"), 0),
        ("こんにちは、世界".encode("euc-jp")[:-1], 0),
    ],
)
def test_transcript_in_another_encoding_names_the_byte(tmp_path, content, offset):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.txt", content)
    assert mistake_of(tmp_path).startswith(f"{tmp_path}/a.txt: byte {offset} (0x")


def test_equal_ids_in_nested_folders_name_both_files(tmp_path):
    touch(tmp_path, "x/v/1.mp4", "y/v/1.mp4")
    mistake = mistake_of(tmp_path)
    assert f"{tmp_path}/x/v/1.mp4" in mistake
    assert f"{tmp_path}/y/v/1.mp4" in mistake


def test_folder_without_videos(tmp_path):
    touch(tmp_path, "readme.md")
    assert "no video in this folder" in mistake_of(tmp_path)


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


def test_source_may_be_a_link_and_keeps_its_name(tmp_path):
    touch(tmp_path, "in/1.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (only,) = load_manifest(tmp_path / "link").clips
    assert (only.id, only.root) == ("link$_$1", str(tmp_path / "link"))


def test_link_that_leads_nowhere(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    assert f"no file {tmp_path}/a.mp4" in mistake_of(tmp_path)


def test_file_name_that_is_not_utf8(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffa.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    mistake = mistake_of(tmp_path)
    assert "not UTF-8" in mistake
    mistake.encode()


def test_source_written_as_a_dot_is_named_by_its_folder(tmp_path, monkeypatch):
    touch(tmp_path, "v/1.mp4", "v/sub/2.mp4")
    monkeypatch.chdir(tmp_path / "v" / "sub")
    assert [clip.id for clip in load_manifest(Path("..")).clips] == ["v$_$1", "sub$_$2"]
    assert load_manifest(Path()).clips[0].id == "sub$_$2"


def test_hard_clips(test_data):
    clips = load_manifest(test_data / "clips" / "hard").clips
    assert len(clips) == 48
    assert {"hard$_$-leading-dash", "hard$_$名字 带空格 (1)", "hard$_$zero_bytes"} <= {
        clip.id for clip in clips
    }


# ---- manifests of ours


def test_csv_forms_agree(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/2.mp4")
    rows = [["path", "text", "label"], ["v/1.mp4", "a\nb", "0.5"], ["v/2.mp4", "一，二", ""]]
    texts = {}
    for name, delimiter, end in [
        ("a.csv", ",", "\n"),
        ("b.CSV", ",", "\r\n"),
        ("c.tsv", "\t", "\n"),
        ("d.csv", ",", "\r"),
    ]:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
        texts[name] = stream.getvalue() + end * 3
    texts["e.csv"] = "\ufeff" + texts["a.csv"] + ",,\n"
    texts["f.csv"] = texts["b.CSV"].encode("gb18030")
    texts["g.jsonl"] = (
        '{"path": "v/1.mp4", "text": "a\\nb", "label": 0.5}\r\n\r\n'
        '{"path": "./v//2.mp4", "text": "一，二"}\r\n'
    )
    expected = Manifest(
        (
            clip(text="a\nb", labels=(0.5, NAN, NAN, NAN), root=str(tmp_path)),
            clip("v$_$2", "v/2.mp4", "一，二", root=str(tmp_path)),
        )
    )
    for name, content in texts.items():
        assert load_manifest(write(tmp_path / name, content)) == expected, name


def test_json_strings_hold_any_line_separator(tmp_path):
    touch(tmp_path, "a.mp4")
    file = write(tmp_path / "m.jsonl", '{"path": "a.mp4", "text": "a\u2028b\x85c"}\n')
    assert load_manifest(file).clips[0].text == "a\u2028b\x85c"


def test_ids(tmp_path):
    touch(tmp_path, "a.mp4", "v/b.c.mp4")
    rows = [
        {"path": "a.mp4"},
        {"path": "v/b.c.mp4"},
        {"path": "a.mp4", "id": "007"},
        {"path": "a.mp4", "video_id": "v", "clip_id": "0001"},
        {"path": "a.mp4", "video_id": "v", "clip_id": "2", "id": "v$_$2"},
    ]
    file = write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))
    ids = [clip.id for clip in load_manifest(file).clips]
    assert ids == [f"{tmp_path.name}$_$a", "v$_$b.c", "007", "v$_$0001", "v$_$2"]


def test_roots(tmp_path):
    touch(tmp_path, "videos/v/1.mp4", "lists/2.mp4")
    table = f"path,root\nv/1.mp4,../videos\n2.mp4,\n{tmp_path}/videos/v/1.mp4,{tmp_path}\n"
    table = "id," + table.replace("\n", "\n{}$_$x,").removesuffix("{}$_$x,")
    clips = load_manifest(write(tmp_path / "lists" / "m.csv", table.format(1, 2, 3))).clips
    assert [(clip.root, clip.path) for clip in clips] == [
        (f"{tmp_path}/videos", "v/1.mp4"),
        (f"{tmp_path}/lists", "2.mp4"),
        (str(tmp_path), "videos/v/1.mp4"),
    ]
    assert all(clip.file.is_file() for clip in clips)


def test_recorded_root_can_be_replaced_or_left_unseen(tmp_path):
    touch(tmp_path, "v/1.mp4")
    file = write(tmp_path / "m.csv", "path,root\n/host/videos/v/1.mp4,/host/videos\nv/2.mp4,/host/videos\n")
    assert "no folder /host/videos" in mistake_of(file)
    assert [clip.root for clip in load_manifest(file, check_files=False).clips] == ["/host/videos"] * 2
    assert mistake_of(file, root=tmp_path).startswith(f"{file}:3: no file {tmp_path}/v/2.mp4")
    touch(tmp_path, "v/2.mp4")
    assert [clip.file for clip in load_manifest(file, root=tmp_path).clips] == [
        tmp_path / "v/1.mp4",
        tmp_path / "v/2.mp4",
    ]


def test_link_out_of_the_root_is_fine(tmp_path):
    touch(tmp_path, "elsewhere/1.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.mp4").symlink_to(tmp_path / "elsewhere" / "1.mp4")
    assert load_manifest(write(tmp_path / "in" / "m.csv", "path\n1.mp4\n")).clips[0].path == "1.mp4"


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("id,path\nx,../m.mp4", "outside the root"),
        ("id,path\nx,v/../../m.mp4", "outside the root"),
        ("id,path\nx,/elsewhere/m.mp4", "outside the root"),
        ("id,path\nx,gone.mp4", "no file"),
        ("id,path\nx,v", "no file"),
        ("id,path\nx,v\\1.mp4", "separate folders by '/'"),
        ("id,path\nx,", "path is empty"),
        ("id,path\n,v/1.mp4", "id is empty"),
        ("id,path\na/b,v/1.mp4", "an id has no '/'"),
        ("id,path\na\0,v/1.mp4", "holds a NUL"),
        ("video_id,path\nv,v/1.mp4", "video_id and clip_id go together"),
        ("id,video_id,clip_id,path\nv1,v,1,v/1.mp4", "make it 'v$_$1'"),
        ("path,split\nv/1.mp4,val", "split = 'val': unknown; write valid"),
        ("path,split\nv/1.mp4,holdout", "write train, valid or test"),
        ("path,label\nv/1.mp4,1.01", "outside [-1, 1]"),
        ("path,label\nv/1.mp4,1e999", "outside [-1, 1]"),
        ("path,label\nv/1.mp4,inf", "not a number"),
        ("path,label\nv/1.mp4,NaN", "not a number"),
        ("path,label\nv/1.mp4,0_1", "not a number"),
        ("path,label\nv/1.mp4,０", "not a number"),
        ("path,label\nv/1.mp4,good", "not a number"),
        ("path,text\nv/1.mp4,a,b", "3 cells where there are 2 columns"),
        ('path,text\nv/1.mp4,"a" b', "not closed properly"),
        ('path,text\nv/1.mp4,"a', "not closed properly"),
    ],
)
def test_csv_mistake_names_its_line(tmp_path, row, part):
    touch(tmp_path, "v/1.mp4")
    file = write(tmp_path / "m.csv", row + "\n")
    mistake = mistake_of(file)
    assert mistake.startswith(f"{file}:2: ")
    assert part in mistake


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("m.csv", "", "holds no clips"),
        ("m.csv", "path\n\n", "holds no clips"),
        ("m.jsonl", "\n", "holds no clips"),
        ("m.csv", "file,text\na.mp4,x\n", ":1: no column path among file, text"),
        ("m.csv", "path,text,text\na.mp4,x,y\n", ":1: column text stands twice"),
        ("m.txt", "path\na.mp4\n", "neither a folder nor a manifest"),
        ("m.csv", b"path,text\na.mp4,\xff\n", "byte 16 (0xFF) is not UTF-8"),
    ],
)
def test_manifest_that_is_none(tmp_path, name, content, part):
    touch(tmp_path, "a.mp4")
    assert part in mistake_of(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("[1]", "not a JSON object"),
        ('"path"', "not a JSON object"),
        ("path", "not JSON"),
        ('{"path": "a.mp4"', "not JSON"),
        ('{"path": "a.mp4", "label": NaN}', "NaN is not a JSON number"),
        ('{"path": "a.mp4", "label": ' + "9" * 5000 + "}", "not JSON"),
        ('{"path": ' + "[" * 100_000, "not JSON"),
        ('{"path": "a.mp4", "label": true}', "not a number"),
        ('{"path": "a.mp4", "label": "0.5"}', "not a number"),
        ('{"path": "a.mp4", "id": 1}', "put it in quotes, so that 0001 keeps its zeros"),
        ('{"path": "a.mp4", "id": null}', "not text"),
        ('{"path": "a.mp4", "text": ["a"]}', "not text"),
        ('{"path": "a.mp4", "text": "\\ud800"}', "not UTF-8"),
        ('{"text": "a"}', "column path is missing"),
    ],
)
def test_jsonl_mistake_names_its_line(tmp_path, line, part):
    touch(tmp_path, "a.mp4", "b.mp4")
    file = write(tmp_path / "m.jsonl", '{"path": "b.mp4"}\n\n' + line + "\n")
    mistake = mistake_of(file)
    assert mistake.startswith(f"{file}:3: ")
    assert part in mistake


def test_source_that_is_not_there(tmp_path):
    assert "no such file or folder" in mistake_of(tmp_path / "gone")
    assert "no such file or folder" in mistake_of(tmp_path / "gone" / "m.csv")
    assert "cannot be read" in mistake_of(tmp_path / ("long" * 100))


def test_a_hundred_mistakes_are_shown_and_the_rest_counted(tmp_path):
    file = write(tmp_path / "m.csv", "path\n" + "".join(f"{n}.mp4\n" for n in range(250)))
    found = mistakes_of(file)
    assert len(found) == 101
    assert found[0].startswith(f"{file}:2: ")
    assert found[-1] == "... and 150 more mistakes"


def test_other_columns_are_named_in_a_warning(tmp_path, caplog):
    touch(tmp_path, "a.mp4")
    with caplog.at_level(logging.WARNING):
        load_manifest(write(tmp_path / "m.csv", "path,lable,text\na.mp4,1,x\n"))
    assert "'lable'" in caplog.text
    assert "'text'" not in caplog.text


def test_no_numpy_is_imported():
    code = (
        "import sys, triptych.pipeline.manifest.clips, triptych.pipeline.manifest.splits; "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=MANIFESTS.parent, check=False).returncode == 0


# ---- equality, merging, writing


def test_missing_labels_are_equal_wherever_the_nan_comes_from():
    assert clip() == clip(labels=(float("nan"),) * 4)
    assert hash(clip()) == hash(clip(labels=(float("nan"),) * 4))
    assert clip() != clip(labels=(0.0, NAN, NAN, NAN))
    assert clip() != clip(text="a")


def test_merged_keeps_the_place_and_takes_the_newer_row():
    old = Manifest((clip("a", text="old"), clip("b"), clip("c")))
    new = Manifest((clip("d"), clip("a", text="new")))
    merged = old.merged(new)
    assert [clip.id for clip in merged.clips] == ["a", "b", "c", "d"]
    assert merged.clips[0].text == "new"
    assert old.clips[0].text == "old"


def test_rerooted_moves_the_root_alone(tmp_path):
    (moved,) = Manifest((clip(),)).rerooted(tmp_path / "x" / "..").clips
    assert moved == clip(root=str(tmp_path))
    assert moved.file == tmp_path / "v" / "1.mp4"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LABEL = st.floats(-1, 1) | st.just(NAN)
NAME = TEXT.filter(lambda name: name and "/" not in name and name not in (".", ".."))


@st.composite
def manifests(draw) -> Manifest:
    ids = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    return Manifest(
        tuple(
            clip(
                id,
                "/".join(draw(st.lists(NAME, min_size=1, max_size=3))),
                draw(TEXT).strip() or None,
                draw(st.sampled_from(["train", "valid", "test", None])),
                draw(st.tuples(LABEL, LABEL, LABEL, LABEL)),
                absolute("/" + draw(NAME)),
            )
            for id in ids
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("manifests")


@any_pace
@given(manifests())
@example(Manifest((clip("\r", "a\rb", 'x"y\r\nz', "train", (-0.0, 5e-324, 0.1 + 0.2, NAN)),)))
@example(Manifest((clip("\ufeff", "\ufeff", "\ufeff" * 3, root="/ "),)))
@example(Manifest((clip(text="长" * 200_000),)))
def test_round_trip(folder, manifest):
    write_manifest(manifest, folder / "m.csv")
    assert load_manifest(folder / "m.csv", check_files=False) == manifest
    assert load_transcripts(folder / "m.csv") == {clip.id: clip.text for clip in manifest.clips}
    stream = io.StringIO()
    write_manifest(manifest, stream)
    assert stream.getvalue().encode() == (folder / "m.csv").read_bytes()


def test_round_trip_of_real_sources(ch_sims, test_data, tmp_path):
    for source in [ch_sims, test_data / "clips", test_data / "clips" / "hard"]:
        manifest = load_manifest(source)
        write_manifest(manifest, tmp_path / "m.csv")
        assert load_manifest(tmp_path / "m.csv") == manifest


def test_transcripts_of_a_manifest_that_somebody_wrote(tmp_path):
    file = write(tmp_path / "m.csv", "text,path\n hello ,a/1.mp4\n,a/2.mp4\n")
    assert load_transcripts(file) == {"a$_$1": "hello", "a$_$2": None}
    with pytest.raises(InputError, match=r"m\.csv:3: 1 cells"):
        load_transcripts(write(tmp_path / "m.csv", "text,path\nhello,a/1.mp4\nx\n"))


def test_writing_replaces_whole_files_only(tmp_path, monkeypatch):
    file = write(tmp_path / "m.csv", "as it was")

    def fail(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("triptych.pipeline.manifest.clips.os.fsync", fail)
        with pytest.raises(InputError, match=r"m\.csv: cannot be written \(No space left"):
            write_manifest(Manifest((clip(),)), file)
    assert file.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [file]
    write_manifest(Manifest((clip(),)), file)
    assert file.read_text().startswith("id,path,text,split,label,label_T,label_A,label_V,root\n")


@pytest.mark.parametrize(("name", "part"), [("m.jsonl", "ends in .csv"), ("gone/m.csv", "cannot be written")])
def test_writing_where_it_cannot(tmp_path, name, part):
    with pytest.raises(InputError, match=part):
        write_manifest(Manifest((clip(),)), tmp_path / name)


# ---- the schema and the demonstration's manifest

SCHEMA = json.loads((MANIFESTS / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

ANY_CASE = st.sampled_from(["train", "valid", "test"]).flatmap(
    lambda word: st.tuples(*(st.sampled_from([letter, letter.upper()]) for letter in word)).map("".join)
)
PATH = st.lists(NAME | st.sampled_from(["", ".", "...", "a.mp4"]), min_size=1, max_size=4).map(
    lambda parts: "/".join(parts).lstrip("/")
)
ADMITTED = {
    "id": NAME | st.sampled_from([".", ".."]),
    "path": PATH.filter(lambda path: set(path.split("/")) - {"", "."}),
    "text": TEXT | st.none(),
    "split": ANY_CASE | st.none(),
    **dict.fromkeys(
        ["label", "label_T", "label_A", "label_V"], st.floats(-1, 1) | st.integers(-1, 1) | st.none()
    ),
    "root": TEXT.filter(bool) | st.none(),
    "other": st.none() | st.integers(),
}
ADMITTED_ROW = st.fixed_dictionaries(
    {"path": ADMITTED["path"]}, optional={name: values for name, values in ADMITTED.items() if name != "path"}
)
# Close to what is admitted, so that both verdicts come up.
NEAR = st.one_of(
    st.text(st.sampled_from("./\0\n a\ud800"), max_size=4),
    st.sampled_from(
        [
            "val",
            "Train",
            "train\n",
            " train",
            "teſt",
            "0.5",
            "",
            "..\n",
            "a/..",
            "../a",
            "a/../b",
            "...",
            ".",
            "a/.",
        ]
    ),
    st.floats(allow_nan=False),
    st.integers(-2, 2),
    st.booleans(),
    st.none(),
    st.lists(st.none(), max_size=1),
    st.dictionaries(TEXT, st.none(), max_size=1),
)


def reader_reads(folder: Path, line: str) -> bool:
    try:
        return len(load_manifest(write(folder / "row.jsonl", line), check_files=False).clips) == 1
    except InputError:
        return False


def test_schema_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == {name for name in ADMITTED if name != "other"} | {
        "video_id",
        "clip_id",
    }


@any_pace
@given(ADMITTED_ROW)
def test_reader_reads_what_the_schema_admits(folder, row):
    VALIDATOR.validate(row)
    assert reader_reads(folder, json.dumps(row))


@any_pace
@given(ADMITTED_ROW, st.sampled_from([*ADMITTED, "video_id", "clip_id"]), NEAR)
@example({"path": "a"}, "path", "..\n")
@example({"path": "a"}, "path", ".")
@example({"path": "a"}, "path", "a/..")
@example({"path": "a"}, "split", "train\n")
@example({"path": "a"}, "label", float("inf"))
@example({"path": "a"}, "label", -1.0000000000000002)
def test_reader_and_schema_agree_when_one_value_is_changed(folder, row, name, value):
    line = json.dumps({**row, name: value}, allow_nan=True).replace("Infinity", "1e999")
    changed = json.loads(line)
    path = changed.get("path")
    if isinstance(path, str) and path.startswith("/"):
        return  # whether it lies under the root, no schema can say
    assert reader_reads(folder, line) == VALIDATOR.is_valid(changed)


@pytest.mark.parametrize(
    ("row", "admitted"),
    [
        ({"path": "v/1.mp4"}, True),
        ({"path": "v/1.mp4", "id": "a"}, True),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": "0001"}, True),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": "0001", "id": "v$_$0001"}, True),
        ({"path": "v/1.mp4", "text": "", "split": "VALID", "label": 1, "label_T": -1.0, "extra": []}, True),
        ({"path": "v/1.mp4", "text": None, "split": None, "label": None, "root": None}, True),
        ({"path": "1.mp4", "root": "v"}, True),
        ({"path": "./v//1.mp4"}, True),
        ({}, False),
        ({"path": ""}, False),
        ({"path": "."}, False),
        ({"path": "/"}, False),
        ({"path": "v/.."}, False),
        ({"path": "v/../v/1.mp4"}, False),
        ({"path": "v/1.mp4\0"}, False),
        ({"path": None}, False),
        ({"path": "v/1.mp4", "video_id": "v"}, False),
        ({"path": "v/1.mp4", "clip_id": "1"}, False),
        ({"path": "v/1.mp4", "video_id": "v", "clip_id": 1}, False),
        ({"path": "v/1.mp4", "id": None}, False),
        ({"path": "v/1.mp4", "id": ""}, False),
        ({"path": "v/1.mp4", "id": "a/b"}, False),
        ({"path": "v/1.mp4", "root": ""}, False),
        ({"path": "v/1.mp4", "split": "dev"}, False),
        ({"path": "v/1.mp4", "split": ""}, False),
        ({"path": "v/1.mp4", "label": 1.5}, False),
        ({"path": "v/1.mp4", "label": "1"}, False),
        ({"path": "v/1.mp4", "label": False}, False),
        ([], False),
        ("path", False),
        (None, False),
    ],
)
def test_reader_and_schema_on_chosen_rows(tmp_path, row, admitted):
    touch(tmp_path, "v/1.mp4")
    assert VALIDATOR.is_valid(row) == admitted
    file = write(tmp_path / "m.jsonl", json.dumps(row))
    if admitted:
        assert len(load_manifest(file).clips) == 1
    else:
        mistakes_of(file)


def test_demo_manifest_is_read(tmp_path):
    shutil.copy(MANIFESTS / "demo.csv", tmp_path)
    with (tmp_path / "demo.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    touch(tmp_path, *(row["path"] for row in rows))
    clips = load_manifest(tmp_path / "demo.csv").clips
    assert [clip.id for clip in clips] == [row["id"] for row in rows]
    assert clips[1].text == '他说："明天再来吧"，然后就走了。'
    assert clips[-1] == clip("demo_001$_$0002", "Raw/demo_001/0002.mp4", root=str(tmp_path))


def test_readme_explains_every_column():
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Columns")[2].partition("\n\nIds")[0]
    assert all(f"`{name}`" in table for name in SCHEMA["properties"])


# ---- splits


def labelled(labels, splits=None) -> Manifest:
    splits = splits or [None] * len(labels)
    return Manifest(
        tuple(
            clip(f"v$_${n:04d}", split=split, labels=(label, NAN, NAN, NAN))
            for n, (label, split) in enumerate(zip(labels, splits, strict=True))
        )
    )


def test_parse_ratio():
    assert parse_ratio("6:2:2") == (6, 2, 2)
    assert parse_ratio(" 1:0:0 ") == (1, 0, 0)
    for wrong in ["6:2", "6:2:2:1", "0:0:0", "-6:2:2", "0.6:0.2:0.2", "a:b:c", "", "٦:٢:٢"]:
        with pytest.raises(InputError, match=r"as in 6:2:2"):
            parse_ratio(wrong)


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
def test_classes_are_right_closed(label, number):
    assert label_class(label) == number


RATIOS = st.tuples(*[st.integers(0, 9)] * 3).filter(any)
LABELS = st.lists(st.sampled_from([-1.0, -0.7, -0.4, 0.0, 0.4, 1.0, NAN]), min_size=1, max_size=60)


@any_pace
@given(LABELS, RATIOS, st.integers(), st.randoms())
def test_sizes_match_over_all_and_in_each_class_whatever_the_order(labels, ratios, seed, shuffler):
    manifest = labelled(labels)
    assigned = assign_splits(manifest, ratios, seed)
    assert [clip.id for clip in assigned.clips] == [clip.id for clip in manifest.clips]
    for classes in [range(6), *([number] for number in range(6))]:
        inside = [clip for clip in assigned.clips if label_class(clip.label) in classes]
        sizes = Counter(clip.split for clip in inside)
        for name, ratio in zip(("train", "valid", "test"), ratios, strict=True):
            off = abs(sizes[name] - len(inside) * ratio / sum(ratios))
            assert off < (1 if len(classes) == 6 else 2)
        assert None not in sizes
    clips = list(manifest.clips)
    shuffler.shuffle(clips)
    shuffled = assign_splits(Manifest(tuple(clips)), ratios, seed)
    assert {clip.id: clip.split for clip in shuffled.clips} == {
        clip.id: clip.split for clip in assigned.clips
    }


@any_pace
@given(LABELS, RATIOS, st.data())
def test_splits_that_are_there_stay(labels, ratios, data):
    splits = data.draw(
        st.lists(
            st.sampled_from(["train", "valid", "test", None]), min_size=len(labels), max_size=len(labels)
        )
    )
    before = labelled(labels, splits)
    after = assign_splits(before, ratios, 1)
    for old, new in zip(before.clips, after.clips, strict=True):
        assert new.split == old.split if old.split else new.split in ("train", "valid", "test")


def test_splits_that_are_there_count():
    after = assign_splits(labelled([0.0] * 100, ["train"] * 50 + [None] * 50), (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 60, "valid": 20, "test": 20}
    # More than their share is there already: what is left goes to the others, evenly.
    after = assign_splits(labelled([0.0] * 100, ["train"] * 90 + [None] * 10), (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 90, "valid": 5, "test": 5}
    # In each class, too: here the class of -1 has its test clips and the class of 1 has none.
    labels = [-1.0] * 20 + [1.0] * 20
    after = assign_splits(labelled(labels, ["test"] * 4 + [None] * 36), (6, 2, 2), 1)
    assert Counter((clip.label, clip.split) for clip in after.clips) == {
        (label, name): size
        for label in (-1.0, 1.0)
        for name, size in [("train", 12), ("valid", 4), ("test", 4)]
    }


def test_the_seed_decides_who_goes_where():
    manifest = labelled([0.0] * 50)
    assert assign_splits(manifest, (6, 2, 2), 1) == assign_splits(manifest, (6, 2, 2), 1)
    assert assign_splits(manifest, (6, 2, 2), 1) != assign_splits(manifest, (6, 2, 2), 2)
    assert assign_splits(manifest, (6, 2, 2), 1).clips[:4] != manifest.clips[:4]


def test_real_table_is_split_as_the_paper_does(ch_sims):
    clips = list(load_manifest(ch_sims).clips)
    random.Random(0).shuffle(clips)
    bare = Manifest(tuple(Clip(c.id, c.path, c.text, None, c.label, NAN, NAN, NAN, c.root) for c in clips))
    after = assign_splits(bare, (6, 2, 2), 1)
    assert Counter(clip.split for clip in after.clips) == {"train": 1369, "valid": 456, "test": 456}
    by_class = Counter((label_class(clip.label), clip.split) for clip in after.clips)
    for number in range(5):
        total = sum(size for (other, _), size in by_class.items() if other == number)
        for name, share in [("train", 0.6), ("valid", 0.2), ("test", 0.2)]:
            assert abs(by_class[number, name] - total * share) < 1


def test_a_source_without_labels_does_not_undo_those_that_were_there(tmp_path):
    """A plain folder of videos knows no splits; giving it again must not wipe them."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").touch()
    plain = load_manifest(tmp_path / "v")
    labelled = Manifest((replace(plain.clips[0], split="train", label=0.4, label_T=-0.2),))
    merged = labelled.merged(plain).clips[0]
    assert (merged.split, merged.label, merged.label_T) == ("train", 0.4, -0.2)
    changed = labelled.merged(Manifest((replace(plain.clips[0], split="test", label=1.0),))).clips[0]
    assert (changed.split, changed.label, changed.label_T) == ("test", 1.0, -0.2)
