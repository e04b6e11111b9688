"""Manifests: forms, problems with their lines, equality, merging, and writing."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from manifest_cases import (
    ID,
    LABEL,
    MANIFESTS,
    NAME,
    NAN,
    TEXT,
    any_pace,
    clip,
    make_ch_sims,
    problem_of,
    problems_of,
    touch,
    write,
)

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.files import absolute
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import load_transcripts, write_manifest


@pytest.fixture(scope="module")
def ch_sims(test_data, tmp_path_factory) -> Path:
    return make_ch_sims(test_data, tmp_path_factory.mktemp("ch-sims"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("manifests")


# ---- manifest files


def test_csv_tsv_and_jsonl_forms_agree(tmp_path):
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


def test_json_text_may_contain_line_separators(tmp_path):
    touch(tmp_path, "a.mp4")
    file = write(tmp_path / "m.jsonl", '{"path": "a.mp4", "text": "a\u2028b\x85c"}\n')
    assert load_manifest(file).clips[0].text == "a\u2028b\x85c"


def test_id_comes_from_columns_or_file_name(tmp_path):
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
    assert ids == ["a", "v$_$b.c", "007", "v$_$0001", "v$_$2"]


def test_path_is_relative_to_the_root_column(tmp_path):
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


def test_recorded_root_can_be_replaced(tmp_path, caplog):
    touch(tmp_path, "v/1.mp4")
    file = write(tmp_path / "m.csv", "path,root\n/host/videos/v/1.mp4,/host/videos\nv/2.mp4,/host/videos\n")
    assert "folder /host/videos, the root of the paths, not found" in problem_of(file)
    assert [clip.root for clip in load_manifest(file, check_files=False).clips] == ["/host/videos"] * 2
    assert len(load_manifest(file, root=tmp_path).clips) == 2
    assert f"{file}:3: file {tmp_path}/v/2.mp4 not found" in caplog.text
    touch(tmp_path, "v/2.mp4")
    assert [clip.file for clip in load_manifest(file, root=tmp_path).clips] == [
        tmp_path / "v/1.mp4",
        tmp_path / "v/2.mp4",
    ]


def test_link_out_of_the_root_is_followed(tmp_path):
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
        ("id,path\nx,gone.mp4", "gone.mp4 not found"),
        ("id,path\nx,v", "/v not found"),
        ("id,path\nx,v\\1.mp4", "separate folders by '/'"),
        ("id,path\nx,", "path is empty"),
        ("id,path\n,v/1.mp4", "id is empty"),
        ("id,path\na/b,v/1.mp4", "an id must not contain '/'"),
        ("id,path\na\0,v/1.mp4", "contains NUL"),
        ("video_id,path\nv,v/1.mp4", "video_id and clip_id belong together"),
        ("id,video_id,clip_id,path\nv1,v,1,v/1.mp4", "differs from 'v$_$1'"),
        ("path,split\nv/1.mp4,val", "split = 'val': unknown; write valid"),
        ("path,split\nv/1.mp4,holdout", "write train, valid or test"),
        ("path,label\nv/1.mp4,1.01", "outside [-1, 1]"),
        ("path,label\nv/1.mp4,1e999", "outside [-1, 1]"),
        ("path,label\nv/1.mp4,inf", "not a number"),
        ("path,label\nv/1.mp4,NaN", "not a number"),
        ("path,label\nv/1.mp4,0_1", "not a number"),
        ("path,label\nv/1.mp4,０", "not a number"),
        ("path,label\nv/1.mp4,good", "not a number"),
        ("path,text\nv/1.mp4,a,b", "3 cells for 2 columns"),
        ('path,text\nv/1.mp4,"a" b', "not closed properly"),
        ('path,text\nv/1.mp4,"a', "not closed properly"),
    ],
)
def test_csv_problem_reports_its_line(tmp_path, row, part):
    touch(tmp_path, "v/1.mp4")
    file = write(tmp_path / "m.csv", row + "\n")
    problem = problem_of(file)
    assert problem.startswith(f"{file}:2: ")
    assert part in problem


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("m.csv", "", "has no clips"),
        ("m.csv", "path\n\n", "has no clips"),
        ("m.jsonl", "\n", "has no clips"),
        ("m.csv", "file,text\na.mp4,x\n", ":1: no column path among file, text"),
        ("m.csv", "path,text,text\na.mp4,x,y\n", ":1: column text is given twice"),
        ("m.txt", "path\na.mp4\n", "neither a folder, nor a media file, nor a manifest"),
        ("m.csv", b"path,text\na.mp4,\xff\n", "byte 16 (0xFF) is not UTF-8"),
    ],
)
def test_file_that_is_not_a_manifest_is_refused(tmp_path, name, content, part):
    touch(tmp_path, "a.mp4")
    assert part in problem_of(write(tmp_path / name, content))


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
        ('{"path": "a.mp4", "id": 1}', "not text; write it in quotes, so that 0001 keeps its zeros"),
        ('{"path": "a.mp4", "id": null}', "not text"),
        ('{"path": "a.mp4", "text": ["a"]}', "not text"),
        ('{"path": "a.mp4", "text": "\\ud800"}', "not valid UTF-8"),
        ('{"text": "a"}', "column path is missing"),
    ],
)
def test_jsonl_problem_reports_its_line(tmp_path, line, part):
    touch(tmp_path, "a.mp4", "b.mp4")
    file = write(tmp_path / "m.jsonl", '{"path": "b.mp4"}\n\n' + line + "\n")
    problem = problem_of(file)
    assert problem.startswith(f"{file}:3: ")
    assert part in problem


def test_missing_source_is_refused(tmp_path):
    assert "file or folder not found" in problem_of(tmp_path / "gone")
    assert "file or folder not found" in problem_of(tmp_path / "gone" / "m.csv")
    assert "file or folder not found" in problem_of(tmp_path / ("long" * 100))


def test_at_most_100_problems_are_listed(tmp_path):
    file = write(tmp_path / "m.csv", "path\n" + "".join(f"{n}.mp4\n" for n in range(250)))
    found = problems_of(file)
    assert len(found) == 101
    assert found[0].startswith(f"{file}:2: ")
    assert found[-1] == "... and 150 more problems"


def test_unknown_columns_give_a_warning(tmp_path, caplog):
    touch(tmp_path, "a.mp4")
    with caplog.at_level(logging.WARNING):
        load_manifest(write(tmp_path / "m.csv", "path,lable,text\na.mp4,1,x\n"))
    assert "'lable'" in caplog.text
    assert "'text'" not in caplog.text


def test_manifest_modules_do_not_import_numpy():
    code = (
        "import sys, triptych.pipeline.manifest.clips, triptych.pipeline.manifest.splits; "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=MANIFESTS.parent, check=False).returncode == 0


# ---- equality, merging, writing


def test_missing_labels_are_equal():
    assert clip() == clip(labels=(float("nan"),) * 4)
    assert hash(clip()) == hash(clip(labels=(float("nan"),) * 4))
    assert clip() != clip(labels=(0.0, NAN, NAN, NAN))
    assert clip() != clip(text="a")


def test_merged_row_replaces_the_old_one_in_place():
    old = Manifest((clip("a", text="old"), clip("b"), clip("c")))
    new = Manifest((clip("d"), clip("a", text="new")))
    merged = old.merged(new)
    assert [clip.id for clip in merged.clips] == ["a", "b", "c", "d"]
    assert merged.clips[0].text == "new"
    assert old.clips[0].text == "old"


DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "start": st.floats(0, 10),
        "end": st.floats(11, 1e5),
        "face": st.sampled_from(["0.25 0.5", "1 0"]),
        "text_source": st.sampled_from(["asr:a/b@1", "corrected"]),
        "text_confidence": st.floats(0, 1),
    },
)


@st.composite
def manifests(draw) -> Manifest:
    ids = draw(st.lists(ID, min_size=1, max_size=4, unique=True))
    return Manifest(
        tuple(
            clip(
                id,
                "/".join(draw(st.lists(NAME, min_size=1, max_size=3))),
                draw(TEXT).strip() or None,
                draw(st.sampled_from(["train", "valid", "test", None])),
                draw(st.tuples(LABEL, LABEL, LABEL, LABEL)),
                absolute("/" + draw(NAME)),
                **draw(DETAILS),
            )
            for id in ids
        )
    )


@any_pace
@given(manifests())
@example(Manifest((clip("x\u200d", "a\rb", 'x"y\r\nz', "train", (-0.0, 5e-324, 0.1 + 0.2, NAN)),)))
@example(Manifest((clip("\ufeff", "\ufeff", "\ufeff" * 3, root="/ "),)))
@example(Manifest((clip(text="长" * 200_000),)))
def test_written_manifest_reads_back_equal(folder, manifest):
    write_manifest(manifest, folder / "m.csv")
    assert load_manifest(folder / "m.csv", check_files=False) == manifest
    assert load_transcripts(folder / "m.csv") == {clip.id: clip.text for clip in manifest.clips}
    stream = io.StringIO()
    write_manifest(manifest, stream)
    assert stream.getvalue().encode() == (folder / "m.csv").read_bytes()


def test_manifest_of_real_sources_reads_back_equal(ch_sims, test_data, tmp_path):
    for source in [ch_sims, test_data / "clips", test_data / "clips" / "hard"]:
        manifest = load_manifest(source)
        write_manifest(manifest, tmp_path / "m.csv")
        assert load_manifest(tmp_path / "m.csv") == manifest


def test_transcripts_of_a_handwritten_manifest(tmp_path):
    file = write(tmp_path / "m.csv", "text,path\n hello ,a/1.mp4\n,a/2.mp4\n")
    assert load_transcripts(file) == {"a$_$1": "hello", "a$_$2": None}
    with pytest.raises(InputError, match=r"m\.csv:3: 1 cells"):
        load_transcripts(write(tmp_path / "m.csv", "text,path\nhello,a/1.mp4\nx\n"))


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.EIO, InputError, r"m\.csv: cannot be written \(Input/output error\); check"),
        (errno.ENOSPC, OSError, r"No space left on device: '.*m\.csv'"),  # no fault of the path
    ],
)
def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch, number, error, message):
    file = write(tmp_path / "m.csv", "as it was")

    def fail(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("triptych.pipeline.atomic.os.fsync", fail)
        with pytest.raises(error, match=message):
            write_manifest(Manifest((clip(),)), file)
    assert file.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [file]
    write_manifest(Manifest((clip(),)), file)
    assert file.read_text().startswith("id,path,text,split,label,label_T,label_A,label_V,root\n")


@pytest.mark.parametrize(("name", "part"), [("m.jsonl", "ends in .csv"), ("gone/m.csv", "cannot be written")])
def test_unwritable_manifest_is_refused(tmp_path, name, part):
    with pytest.raises(InputError, match=part):
        write_manifest(Manifest((clip(),)), tmp_path / name)


def test_merging_a_source_without_labels_keeps_the_old_ones(tmp_path):
    """A plain folder of videos has no splits; reading it again must not remove them."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").touch()
    plain = load_manifest(tmp_path / "v")
    labelled = Manifest((replace(plain.clips[0], split="train", label=0.4, label_T=-0.2),))
    merged = labelled.merged(plain).clips[0]
    assert (merged.split, merged.label, merged.label_T) == ("train", 0.4, -0.2)
    changed = labelled.merged(Manifest((replace(plain.clips[0], split="test", label=1.0),))).clips[0]
    assert (changed.split, changed.label, changed.label_T) == ("test", 1.0, -0.2)


# ---- hostile ids


@pytest.mark.parametrize(
    "code", ["\n", "\r", "\t", "\x1b[2J", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\u2069"]
)
def test_an_id_with_codes_is_refused_with_its_row(tmp_path, code):
    shown = repr(f"a{code}b")
    for name, row in [
        ("id", {"id": f"a{code}b", "path": "a.mp4"}),
        ("clip_id", {"video_id": "v", "clip_id": f"a{code}b", "path": "a.mp4"}),
    ]:
        problem = problem_of(write(tmp_path / "m.jsonl", json.dumps(row)), check_files=False)
        assert problem.startswith(f"{tmp_path / 'm.jsonl'}:1: {name} = {shown}: an id must not contain")
        assert problem.isprintable()
    touch(tmp_path / "clips", f"a{code}b.mp4")
    problem = problem_of(tmp_path / "clips")
    assert problem.endswith("rename the file, or name the clip in a column id")
    assert problem.isprintable()


def test_a_file_with_codes_in_its_name_is_read_under_an_id(tmp_path):
    touch(tmp_path, "a\x1b[2Jb.mp4")
    row = {"id": "ab", "path": "a\x1b[2Jb.mp4"}
    assert load_manifest(write(tmp_path / "m.jsonl", json.dumps(row))).clips[0].id == "ab"


def test_long_values_are_cut_in_messages(tmp_path):
    rows = [{"id": "x" * 10**6, "path": "a.mp4"}] * 2 + [{"path": "../" + "y" * 10**6}]
    problems = problems_of(write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows))), check_files=False)
    assert len(problems) == 2
    assert max(map(len, problems)) < 500


def test_a_manifest_says_whose_transcripts_it_has(tmp_path):
    from click.testing import CliRunner

    from triptych.pipeline.cli.main import cli

    touch(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    table = write(
        tmp_path / "m.csv",
        "id,path,text,text_source,text_confidence\n1,1.mp4,a,asr:m@1,0.5\n2,2.mp4,b,,\n3,3.mp4,c,corrected,\n",
    )
    printed = CliRunner().invoke(cli, ["manifest", str(table), "-o", str(tmp_path / "out.csv")])
    assert printed.stderr.splitlines()[-1] == "transcripts: 1 asr:m@1, 1 by a person, 1 corrected"
    assert (tmp_path / "out.csv").read_text().splitlines()[1].endswith(",asr:m@1,0.5")
