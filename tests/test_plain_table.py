"""The quick reading of plain tables gives what the complete reading gives, or leaves the table to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_cases import any_pace, touch

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest import loading
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.plain_table import read_plain_table
from triptych.pipeline.manifest.writing import is_written, write_manifest

HEADERS = (
    "id,path,text,split,label,label_T,label_A,label_V",
    "path,text",
    "ID,Path,Text,mode,label",
    "video_id,clip_id,path,text,label",
    "id,path,text,label_range,label",
    "path,text,root",
    "id,path,text,start,end,face",
    "path,text,end,text_source,text_confidence",
    "id,path,label",
    "id,path,text,id",
    "id;path;text",
)
CELLS = {
    "id": ["a", "b", "c", "", "a/b", "1.2E+12", "\u202ex", " a"],
    "video_id": ["v", "w", ""],
    "clip_id": ["1", "2", "3"],
    "path": [
        "v/1.mp4",
        "v/2.mp4",
        "w/3.mp4",
        "v//1.mp4",
        "./v/1.mp4",
        "../v/1.mp4",
        "v/none.mp4",
        "/v/1.mp4",
        "",
    ],
    "text": ["words", "字", "", " spaces ", '"a, b"', '"a\nb"', "\x07"],
    "split": ["train", "VALID", "", "dev"],
    "mode": ["test"],
    "label": ["0.5", "-1", "", "2", "2.5", "-2.9", "1e-3", "0,5", "x", "nan"],
    "label_range": ["-3 3", "-1 1", "", "wide"],
    "root": ["", "elsewhere", "."],
    "start": ["0.5", "", "2", "-1", "1e9", "x", "0,5"],
    "end": ["3", "2.5", "", "1", "inf", "nan"],
    "face": ["0.3 0.4", "", "0 1.", "2 0", "0.3,0.4"],
    "text_source": ["asr:m@1", "", "corrected", "\u202ex"],
    "text_confidence": ["0.5", "", "1", "1.5"],
}


def complete(file: Path, **options: object) -> Manifest | str:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "read_plain_table", lambda *_: None)
        try:
            return load_manifest(file, **options)
        except InputError as error:
            return str(error)


@st.composite
def tables(draw: st.DrawFn) -> str:
    header = draw(st.sampled_from(HEADERS))
    comma = ";" if ";" in header else ","
    lines = [header]
    for number in range(draw(st.integers(0, 4))):
        usual = draw(st.integers(0, 3)) > 0  # so that many tables are plain
        cells = []
        for name in header.lower().split(comma):
            values = CELLS.get(name) or CELLS["label"][:3]
            cells.append(values[number % 3 % len(values)] if usual else draw(st.sampled_from(values)))
        lines.append(comma.join(cells) + draw(st.sampled_from(["", "", "", ",", "\n", ",x"])))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n,\n"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    touch(folder, "v/1.mp4", "v/2.mp4", "w/3.mp4", "elsewhere/v/1.mp4")
    return folder


@any_pace
@given(
    table=tables(), encoding=st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"]), check=st.booleans()
)
def test_what_it_reads_is_what_the_complete_reading_gives(
    folder: Path, table: str, encoding: str, check: bool
) -> None:
    file = folder / "table.csv"
    file.write_text(table, encoding=encoding, newline="")
    found = read_plain_table(file, None, check, None)
    if found is not None:
        assert found == complete(file, check_files=check)


PLAIN = (
    (
        "id,path,text,split,label,label_T,label_A,label_V",
        "a,v/1.mp4,字,train,0.5,,-1,1e-3",
        "b,v/2.mp4,,VALID,,,,",
    ),
    ("path,text", "v/1.mp4,words", "", "w/3.mp4, spaces "),
    ("ID,Path,Text,mode,label", 'a,v/1.mp4,"a, ""b""",test,0.5'),
    ("video_id,clip_id,path,text,label", "v,1,v/1.mp4,one,-1", "v,2,v/2.mp4,two,1"),
    ("id,path,text,label_range,label", "a,v/1.mp4,x,-3 3,2.5", "b,v/2.mp4,y,-3 3,"),
    ("path,text,root", "v/1.mp4,x,elsewhere", "v/2.mp4,y,"),
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("lines", PLAIN, ids=[lines[0] for lines in PLAIN])
def test_plain_tables_are_read(folder: Path, lines: tuple[str, ...], end: str) -> None:
    file = folder / "table.csv"
    file.write_text(end.join([*lines, ""]), encoding="utf-8", newline="")
    found = read_plain_table(file, None, True, None)
    assert found is not None
    assert found == complete(file)


def test_a_manifest_is_compared_byte_by_byte(folder: Path, tmp_path: Path) -> None:
    touch(tmp_path, "v/1.mp4", "v/2.mp4")
    manifest = load_manifest(tmp_path)
    file = tmp_path / "manifest.csv"
    assert not is_written(manifest, file)
    write_manifest(manifest, file)
    assert is_written(manifest, file)
    for content in (
        file.read_bytes()[:-1],
        file.read_bytes() + b"\n",
        file.read_bytes().replace(b"v/2", b"v/3"),
    ):
        file.write_bytes(content)
        assert not is_written(manifest, file)
