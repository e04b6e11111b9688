"""Tables as people have them: encodings, delimiters, Excel, names of columns, ids without zeros, ranges of labels."""

from __future__ import annotations

import contextlib
import csv
import datetime
import logging
from pathlib import Path

import pytest
from manifest_cases import problem_of, problems_of, touch, write

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.encoding import decode
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest

HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
ROW = "v,0001,{},0.2,0,0,0,Positive,train"


def table(folder: Path, content: str, encoding: str = "utf-8", name: str = "label.csv") -> Path:
    touch(folder, "Raw/v/0001.mp4")
    write(folder / name, content.encode(encoding))
    return folder


# ---- encodings


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("euc_kr", "오늘 저녁은 정말 맛있어요", "EUC-KR"),
        ("cp949", "좋아요", "EUC-KR"),
        ("shift_jis", "今日の晩ご飯はとても美味しい", "Shift_JIS"),
        ("euc_jp", "今日の晩ご飯はとても美味しい", "EUC-JP"),
        ("big5", "我不想嫁給李茶", "Big5"),
        ("cp1252", "I don’t know, café", "Windows-1252"),
        ("cp1252", "größe", "Windows-1252"),
        ("cp1251", "Сегодня хороший день", "Windows-1251"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path, encoding, text, name):
    problem = problem_of(table(tmp_path, f"{HEADER}\n{ROW.format(text)}\n", encoding))
    assert problem.startswith(f"{tmp_path}/label.csv: byte ")
    assert f"probably {name}" in problem
    assert "Save it as UTF-8" in problem


@pytest.mark.parametrize("which", ["euckr", "sjis"])
def test_shared_tables_in_other_encodings_are_refused(test_data, which):
    assert "probably" in problem_of(test_data / "inputs" / "04-euckr-sjis" / which)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_table_is_read_in_encodings_of_chinese(tmp_path, encoding):
    (clip,) = load_manifest(table(tmp_path, f"{HEADER}\n{ROW.format('我不想嫁给李茶')}\n", encoding)).clips
    assert (clip.text, clip.split, clip.label) == ("我不想嫁给李茶", "train", 0.2)


def test_every_sentence_of_ch_sims_alone_is_recognised_as_gb18030(test_data):
    with (test_data / "labels" / "ch_sims_label.csv").open(encoding="utf-8-sig", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    assert len(texts) == 2281
    assert [decode(text.encode("gb18030"), "x") for text in texts] == texts


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_sentences_of_ch_sims_alone_are_recognised_as_utf16(test_data, encoding):
    """Without a mark and without ASCII characters, which a short transcript may be."""
    with (test_data / "labels" / "ch_sims_label.csv").open(encoding="utf-8-sig", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    wrong = 0
    for text in texts:
        with contextlib.suppress(InputError):
            wrong += decode(text.encode(encoding), "x") != text
    assert wrong <= 7  # of 2,281, such as 住嘴, which is OO4V in ASCII


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-32", "UTF-32 is not read"), ("iso2022_jp", "probably ISO-2022-JP")],
)
def test_rare_encodings_are_refused_by_name(encoding, name):
    with pytest.raises(InputError, match=f"x: .*{name}"):
        decode("今日の晩ご飯".encode(encoding), "x")


def test_control_characters_of_windows_stay(tmp_path):
    for text in ("It\x92s ", "don\x92t I\x92m", "\x93no\x94"):
        assert decode(text.encode(), "x") == text


def test_western_words_are_not_taken_for_utf16():
    with pytest.raises(InputError, match="probably Windows-1252"):
        decode("garçon".encode("cp1252"), "x")


def test_kana_is_not_taken_for_utf16():
    with pytest.raises(InputError, match="probably Shift_JIS"):
        decode("こんにちは".encode("shift_jis"), "x")


def test_half_a_utf16_file_is_refused(tmp_path):
    (tmp_path / "Raw").mkdir()
    write(tmp_path / "label.csv", f"{HEADER}\n".encode("utf-16")[:-1])
    assert "not UTF-16" in problem_of(tmp_path)


# ---- forms


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["label.csv", "Label.csv", "meta.csv", "META.CSV", "labels.csv"])
def test_table_of_labels_by_any_name_and_delimiter(tmp_path, delimiter, name):
    content = f"{HEADER}\n{ROW.format('很好')}\n".replace(",", delimiter)
    (clip,) = load_manifest(table(tmp_path, content, name=name)).clips
    assert (clip.id, clip.text, clip.split, clip.label) == ("v$_$0001", "很好", "train", 0.2)


def test_shared_folder_with_meta_csv(test_data):
    (clip,) = load_manifest(test_data / "inputs" / "01-meta-csv").clips
    assert (clip.id, clip.text, clip.split, clip.label) == ("v$_$00000", "你好", "train", 0.2)


def test_column_names_are_read_in_any_case(tmp_path):
    content = (
        "Video_ID,CLIP_ID,Text,Label,label_t,LABEL_A,label_v,Annotation,MODE\n" + ROW.format("好") + "\n"
    )
    (clip,) = load_manifest(table(tmp_path, content)).clips
    assert (clip.text, clip.split, clip.label, clip.label_T) == ("好", "train", 0.2, 0.0)


def test_semicolons_and_decimal_commas(tmp_path):
    touch(tmp_path, "a.mp4")
    (clip,) = load_manifest(write(tmp_path / "m.csv", "path;text;label\na.mp4;x, y;-0,8\n")).clips
    assert (clip.text, clip.label) == ("x, y", -0.8)


def test_excels_own_line_of_the_delimiter_is_read(tmp_path):
    touch(tmp_path, "a.mp4")
    file = write(tmp_path / "m.csv", "sep=;\r\npath;label\r\na.mp4;5x\r\n")
    problem = problem_of(file)
    assert problem.startswith(f"{file}:3: ")
    write(file, "sep=;\r\npath;label\r\na.mp4;0,5\r\n")
    assert load_manifest(file).clips[0].label == 0.5


def test_two_tables_of_labels_are_refused(tmp_path):
    table(tmp_path, f"{HEADER}\n")
    write(tmp_path / "meta.csv", f"{HEADER}\n")
    assert "label.csv and meta.csv are both tables of labels" in problem_of(tmp_path)


# ---- Excel


def workbook(file: Path, rows: list[list[object]]) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)
    return file


def test_excel_tables_with_numbers_for_ids(tmp_path, caplog):
    touch(tmp_path, "Raw/video_1/0001.mp4", "Raw/video_1/0010.mp4")
    rows = [
        HEADER.split(","),
        ["video_1", 1, "我不想", -0.8, None, 0, 1, "Negative", "train", None],
        [],
        ["video_1", 10.0, None, 1, None, None, None, None, "test"],
    ]
    workbook(tmp_path / "label.xlsx", rows)
    with caplog.at_level(logging.WARNING):
        one, two = load_manifest(tmp_path).clips
    assert (one.id, one.text, one.label, one.label_V) == ("video_1$_$0001", "我不想", -0.8, 1.0)
    assert (two.id, two.text, two.split) == ("video_1$_$0010", None, "test")
    assert "2 ids without their zeros" in caplog.text


def test_excel_problem_names_its_row(tmp_path):
    touch(tmp_path, "a.mp4")
    file = workbook(tmp_path / "m.xlsx", [["path", "label"], ["a.mp4", "much"]])
    assert problem_of(file).startswith(f"{file}:2: label = 'much': not a number")


def test_excel_cells_that_nobody_wrote_are_refused(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    day = datetime.datetime(2024, 1, 2)
    rows = [["id", "path", "label", "day"], [day, "a.mp4", 0.5, day], ["b", "b.mp4", "=1/4", "=A1"]]
    file = workbook(tmp_path / "m.xlsx", rows)
    one, two = problems_of(file)
    assert one.startswith(
        f"{file}:2: id is a date to Excel (2024-01-02 00:00:00); give the column the format Text"
    )
    assert two.startswith(f"{file}:3: label is a formula without a saved value")


def test_excel_sheet_with_known_columns_is_read(tmp_path, caplog):
    from openpyxl import load_workbook

    touch(tmp_path, "a.mp4")
    file = workbook(tmp_path / "m.xlsx", [["About these data"]])
    book = load_workbook(file)
    book.create_sheet("empty")
    book.create_sheet("clips").append(["Path", "Text"])
    book["clips"].append(["a.mp4", "很好"])
    book.save(file)
    assert [clip.text for clip in load_manifest(file).clips] == ["很好"]
    assert "only the sheet 'clips' is read, not 'Sheet'" in caplog.text


def test_ids_that_a_spreadsheet_shortened_are_refused(tmp_path):
    touch(tmp_path, "a.mp4")
    file = write(tmp_path / "m.csv", "id,path\n1.23457E+12,a.mp4\n")
    assert problem_of(file).startswith(f"{file}:2: id = '1.23457E+12': shortened by a spreadsheet")


@pytest.mark.parametrize("content", [b"", b"path\na.mp4\n", b"PK\x03\x04 cut"])
def test_file_that_is_no_workbook_is_refused(tmp_path, content):
    assert "not a readable Excel file" in problem_of(write(tmp_path / "m.xlsx", content))


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    file = workbook(tmp_path / "m.xlsx", [["path"]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert "pip install 'triptych[xlsx]'" in problem_of(file)


# ---- ids


@pytest.mark.parametrize(("video", "clip"), [("0001", "1"), ("1", "1.0"), ("1.0", "0001"), ("01", "01")])
def test_ids_without_their_zeros_are_matched(tmp_path, caplog, video, clip):
    touch(tmp_path, "Raw/0001/0001.mp4")
    write(tmp_path / "label.csv", f"{HEADER}\n{video},{clip},好,,,,,,\n")
    with caplog.at_level(logging.WARNING):
        (found,) = load_manifest(tmp_path).clips
    assert (found.id, found.path) == ("0001$_$0001", "Raw/0001/0001.mp4")
    assert "1 ids without their zeros" in caplog.text


def test_an_id_that_fits_two_videos_is_refused(tmp_path):
    touch(tmp_path, "Raw/v/01.mp4", "Raw/v/001.mp4")
    write(tmp_path / "label.csv", f"{HEADER}\nv,1,好,,,,,,\n")
    assert "v/001 and v/01 are; write the zeros" in problem_of(tmp_path)


# ---- ranges of labels


def mosi(folder: Path, labels: list[float]) -> Path:
    touch(folder, *(f"{number}.mp4" for number in range(len(labels))))
    rows = "".join(f"{number}.mp4,{label}\n" for number, label in enumerate(labels))
    return write(folder / "m.csv", "path,label\n" + rows)


def test_labels_of_mosi_are_stored_as_they_are(tmp_path, caplog):
    file = mosi(tmp_path, [-3, -2.4, 1.6, 2.8, 0, 1.2, 0.4])
    with caplog.at_level(logging.WARNING):
        found = load_manifest(file)
    assert found.label_range == (-3, 3)
    assert found.clips[1].label == -2.4
    assert "--label-range" in caplog.text
    write_manifest(found, tmp_path / "written.csv")
    assert load_manifest(tmp_path / "written.csv") == found


def test_a_few_labels_beyond_the_range_are_errors(tmp_path):
    problem = problem_of(mosi(tmp_path, [0.1, 0.2, 2.5]))
    assert "label = 2.5: outside [-1, 1]" in problem
    assert "--label-range LOW HIGH" in problem
    assert load_manifest(tmp_path / "m.csv", label_range=(-5, 5)).label_range == (-5, 5)


def test_labels_beyond_every_known_range_need_the_option(tmp_path):
    file = mosi(tmp_path, [1, 2, 3, 4, 5, 4, 3])
    with pytest.raises(InputError):
        load_manifest(file)
    assert load_manifest(file, label_range=(1, 5)).clips[0].label == 1


@pytest.mark.parametrize("cell", ["3 -3", "wide", "1", "nan 3", "0 inf"])
def test_a_range_that_is_none_is_refused(tmp_path, cell):
    touch(tmp_path, "a.mp4")
    problem = problem_of(write(tmp_path / "m.csv", f"path,label_range\na.mp4,{cell}\n"))
    assert f":2: label_range = '{cell}': expected two rising numbers" in problem


def test_a_manifest_has_one_range(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    problem = problem_of(write(tmp_path / "m.csv", "path,label_range\na.mp4,-3 3\nb.mp4,0 1\n"))
    assert ":3: label_range 0 1 differs from -3 3 at " in problem


@pytest.mark.parametrize("stated", [True, False])
def test_tables_of_two_ranges_are_not_read_together(tmp_path, stated):
    touch(tmp_path, *(f"{number}.mp4" for number in range(8)))
    wide = [f"{number}.mp4,{number - 3}{',-3 3' * stated}" for number in range(7)]
    wide[3] = wide[3].replace(",0", ",2.5", 1)
    mosi = write(tmp_path / "mosi.csv", "\n".join([f"path,label{',label_range' * stated}", *wide]) + "\n")
    sims = write(tmp_path / "sims.csv", "path,label\n7.mp4,0.5\n")
    problem = problem_of([mosi, sims])
    assert problem.startswith(f"{sims}: label_range -1 1 differs from -3 3 at {mosi}")
    assert load_manifest([mosi, sims], label_range=(-3, 3)).label_range == (-3, 3)
    write(sims, "path,text\n7.mp4,很好\n")
    assert load_manifest([mosi, sims]).label_range == (-3, 3)


def test_labels_of_two_ranges_are_not_merged(tmp_path):
    wide = load_manifest(mosi(tmp_path / "wide", [-3, -2.4, 1.6, 2.8, 2, 1.2, 0.4]))
    narrow = load_manifest(mosi(tmp_path / "narrow", [0.5]))
    with pytest.raises(InputError, match="labels from -1 1 cannot be added to labels from -3 3"):
        wide.merged(narrow)
    touch(tmp_path, "plain/v/x.mp4")
    plain = load_manifest(tmp_path / "plain")
    assert wide.merged(plain).label_range == plain.merged(wide).label_range == (-3, 3)
