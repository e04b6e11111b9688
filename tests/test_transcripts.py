"""Transcripts beside clips, and data sets in their published layouts, and several sources."""

from __future__ import annotations

import math
import os
import unicodedata
from pathlib import Path

import pytest
from manifest_cases import problem_of, problems_of, touch, write

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.groups import assign_grouped_splits, read_groups
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.transcripts import TimedText, timed_transcript

SRT = (
    "1\r\n00:00:00,500 --> 00:00:02,000\r\n<i>今天</i>的晚饭\r\n真好吃\r\n\r\n"
    "2\r\n00:01:02,000 --> 00:01:03,250\r\n我很开心\r\n"
)
VTT = (
    "WEBVTT\n\nNOTE a remark\n\n00:00.500 --> 00:02.000 align:start\n<v Anna>今天的晚饭\n真好吃\n\n"
    "intro\n01:02.000 --> 01:03.250\n我很开心\n"
)
LRC = "[ti:晚饭]\n[00:00.50]今天的晚饭 真好吃\n[01:02.00]我很开心\n"
TEXT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 64
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 64
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 2
            text = "今天的晚饭 真好吃"
        intervals [3]:
            xmin = 2
            xmax = 62
            text = ""
        intervals [4]:
            xmin = 62
            xmax = 63.25
            text = "我""很""开心"
"""
SHORT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
64
<exists>
1
"IntervalTier"
"words"
0
64
2
0.5
2
"今天的晚饭 真好吃"
62
63.25
"我很开心"
"""
WHOLE = "今天的晚饭 真好吃 我很开心"


@pytest.mark.parametrize(
    ("ending", "content"),
    [(".srt", SRT), (".vtt", VTT), (".lrc", LRC), (".TextGrid", SHORT_GRID), (".SRT", SRT.replace("\r", ""))],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_timed_text_is_joined(tmp_path, ending, content, encoding):
    touch(tmp_path, "a.mp4")
    write(tmp_path / f"a{ending}", content.encode(encoding))
    assert load_manifest(tmp_path).clips[0].text == WHOLE


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("a.TextGrid", SHORT_GRID)])
def test_times_can_be_read_for_alignment(tmp_path, name, content):
    file = write(tmp_path / name, content)
    assert timed_transcript(file) == [
        TimedText(0.5, 2.0, "今天的晚饭 真好吃"),
        TimedText(62.0, 63.25, "我很开心"),
    ]


def test_lyrics_end_where_the_next_line_begins(tmp_path):
    one, two = timed_transcript(write(tmp_path / "a.lrc", LRC))
    assert one == TimedText(0.5, 62.0, "今天的晚饭 真好吃")
    assert two[0] == 62.0
    assert math.isnan(two.end)


def test_long_text_grid_with_doubled_quotes(tmp_path):
    assert timed_transcript(write(tmp_path / "a.TextGrid", TEXT_GRID)) == [
        TimedText(0.5, 2.0, "今天的晚饭 真好吃"),
        TimedText(62.0, 63.25, '我"很"开心'),
    ]


@pytest.mark.parametrize("ending", [".srt", ".vtt", ".lrc", ".TextGrid"])
def test_timed_text_without_times_is_refused(tmp_path, ending):
    touch(tmp_path, "a.mp4")
    file = write(tmp_path / f"a{ending}", "只有文字\n")
    assert problem_of(tmp_path).startswith(f"{file}: no text with times found")
    write(file, "")
    assert load_manifest(tmp_path).clips[0].text is None


def test_plain_text_comes_before_timed_text(tmp_path):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.srt", SRT)
    write(tmp_path / "a.txt", "很好")
    assert load_manifest(tmp_path).clips[0].text == "很好"


CUES = "1\n00:00:00,000 --> 00:00:01,000\n{}2\n00:00:01,000 --> 00:00:02,000\nend\n"


@pytest.mark.parametrize(
    ("ending", "content", "text"),
    [
        (".srt", CUES.format("\nafter an empty line\n\n"), "after an empty line end"),
        (".srt", CUES.format("no empty line\n"), "no empty line end"),
        (".srt", CUES.format("42\n\n"), "42 end"),
        (".srt", CUES.format("5 < 6 and 7 > 3, <b>not</b> {\\an8}less\n\n"), "5 < 6 and 7 > 3, not less end"),
        (".srt", CUES.format("x\n\n").replace(",000", ""), "x end"),
        (
            ".vtt",
            "WEBVTT\n\n00:00.000 --> 00:01.000\n<v Bob>Tom &amp; Jerry &lt;3&nbsp;ok</v>\n",
            "Tom & Jerry <3 ok",
        ),
        (
            ".vtt",
            "WEBVTT\n\nNOTE\n00:00.000 --> 00:01.000\nno\n\nSTYLE\n::cue {}\n\n1:00.0 --> 1:01.0\nyes\n",
            "yes",
        ),
        (
            ".vtt",
            "WEBVTT\nKind: captions\n\n00:00.000 --> 00:02.000\n \nhello<00:00.500><c> big</c>\n\n"
            "00:02.000 --> 00:02.010\nhello big\n \n\n"
            "00:02.010 --> 00:04.000\nhello big\nworld<00:03.000><c> now</c>\n",
            "hello big world now",
        ),
        (".vtt", "WEBVTT - no cues\n", None),
        (".TextGrid", TEXT_GRID.replace("今天的晚饭 真好吃", "").replace('我""很""开心', " "), None),
        (".TextGrid", SHORT_GRID.replace("\n0.5\n", "\n1e-05\n"), WHOLE),
        (
            ".TextGrid",
            SHORT_GRID.replace("<exists>\n1", "<exists>\n2")
            + '"TextTier"\n"events"\n0\n64\n1\n0.5\n"click"\n',
            WHOLE,
        ),
        (
            ".TextGrid",
            SHORT_GRID.replace("words", "phones").replace("<exists>\n1", "<exists>\n2")
            + '"IntervalTier"\n"Words"\n0\n64\n1\n0\n64\n"the words"\n',
            "the words",
        ),
    ],
)
def test_transcripts_as_programs_write_them(tmp_path, ending, content, text):
    touch(tmp_path, "a.mp4")
    write(tmp_path / f"a{ending}", content)
    assert load_manifest(tmp_path).clips[0].text == text


def test_text_grid_that_ends_early_is_refused(tmp_path):
    touch(tmp_path, "a.mp4")
    write(tmp_path / "a.TextGrid", TEXT_GRID[: TEXT_GRID.index("intervals [4]")])
    assert "a.TextGrid: no text with times found" in problem_of(tmp_path)


def test_empty_transcript_hides_no_other(tmp_path):
    touch(tmp_path, "a.mp4", "a.txt")
    write(tmp_path / "a.srt", SRT)
    assert load_manifest(tmp_path).clips[0].text == WHOLE


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_table_without_a_column_of_text_takes_the_transcripts_beside_the_clips(tmp_path, name):
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    write(tmp_path / "v" / "a.srt", SRT)
    rows = {
        "m.csv": "path,label\nv/a.mp4,1\nv/b.mp4,0\n",
        "m.jsonl": '{"path": "v/a.mp4"}\n{"path": "v/b.mp4"}\n',
    }
    table = write(tmp_path / name, rows[name])
    assert [clip.text for clip in load_manifest(table).clips] == [WHOLE, None]
    write(table, rows[name].replace("label", "text").replace('b.mp4"', 'b.mp4", "text": "0"'))
    assert load_manifest(table).clips[1].text == "0"
    assert load_manifest(table).clips[0].text == (None if name == "m.jsonl" else "1")
    write(tmp_path / "v" / "a.srt", "no times")
    write(table, rows[name])
    assert "a.srt: no text with times found" in problem_of(table)


@pytest.mark.parametrize("name", ["a.en.srt", "A.srt", "text/a.srt"])
def test_transcripts_that_match_no_clip_are_reported(tmp_path, caplog, name):
    touch(tmp_path, "a.mp4")
    write(tmp_path / name, SRT)
    load_manifest(tmp_path)
    (record,) = caplog.records
    assert "1 files are not read as transcripts: the name of a transcript" in record.getMessage()
    assert name in record.getMessage()
    write(tmp_path / "a.txt", "很好")
    caplog.clear()
    load_manifest(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(("clip", "transcript"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_in_any_form_of_unicode(tmp_path, clip, transcript):
    touch(tmp_path, unicodedata.normalize(clip, "café") + ".mp4")
    write(tmp_path / (unicodedata.normalize(transcript, "café") + ".txt"), "很好")
    assert load_manifest(tmp_path).clips[0].text == "很好"


# ---- several sources


def test_files_and_patterns_are_sources(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4", "b.mkv", "more/c.mp4", "more/d.wav", "more/e.mp4")
    write(tmp_path / "more" / "d.txt", "很好")
    assert [clip.id for clip in load_manifest(tmp_path / "a.mp4").clips] == ["a"]
    both = load_manifest([tmp_path / "a.mp4", tmp_path / "more" / "*.mp4", tmp_path / "more" / "d.wav"]).clips
    assert [clip.id for clip in both] == ["a", "more$_$c", "more$_$e", "more$_$d"]
    assert both[-1].text == "很好"
    monkeypatch.chdir(tmp_path)
    assert [clip.id for clip in load_manifest([Path("**/*.mp4")]).clips] == ["a", "more$_$c", "more$_$e"]


def test_folders_tables_and_files_together(tmp_path):
    touch(tmp_path, "one/v/1.mp4", "two/2.mp4", "three/3.mp4")
    table = write(tmp_path / "two" / "m.csv", "path,text\n2.mp4,好\n")
    found = load_manifest([tmp_path / "one", table, tmp_path / "three" / "3.mp4"]).clips
    assert [(clip.id, clip.text) for clip in found] == [("v$_$1", None), ("2", "好"), ("three$_$3", None)]
    assert all(clip.file.is_file() for clip in found)


def test_every_missing_source_is_named(tmp_path):
    touch(tmp_path, "a.mp4")
    found = problems_of([tmp_path / "a.mp4", tmp_path / "gone.mp4", tmp_path / "*.avi"])
    assert [problem.split(":")[0] for problem in found] == [f"{tmp_path}/gone.mp4", f"{tmp_path}/*.avi"]
    assert "as a pattern it matches nothing" in found[1]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    touch(tmp_path, "a[1].mp4", "a1.mp4")
    assert [clip.id for clip in load_manifest([tmp_path / "a[1].mp4"]).clips] == ["a[1]"]


def test_a_fifo_among_clips_is_listed_and_stops_nothing(tmp_path):
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    assert [clip.id for clip in load_manifest(tmp_path).clips] == ["a", "b"]


def test_each_file_is_one_clip(tmp_path, monkeypatch):
    touch(tmp_path, "clips/a.mp4", "clips/v/b.mp4", "more/c.mp4")
    monkeypatch.chdir(tmp_path)

    def ids(*sources: str | Path) -> list[str]:
        return [clip.id for clip in load_manifest(list(map(Path, sources))).clips]

    assert ids("clips/a.mp4", tmp_path / "clips" / "a.mp4", "clips/../clips/a.mp4", "clips/*.mp4") == ["a"]
    assert ids("clips", "clips/a.mp4", "clips/v", "clips/**/*.mp4") == ["a", "v$_$b"]
    assert ids("clips", "clips/a.mp4", "more") == ["clips$_$a", "v$_$b", "more$_$c"]
    write(tmp_path / "m.csv", "id,path\nx,clips/a.mp4\n")
    assert ids("clips", "m.csv") == ["v$_$b", "x"]


def test_what_a_pattern_matches_besides_clips_is_left_out(tmp_path, caplog):
    touch(tmp_path, "a.mp4", "b.MP4", ".c.mp4", "Thumbs.db", "notes.md")
    write(tmp_path / "a.txt", "很好")
    everything = sorted(entry for entry in tmp_path.iterdir() if not entry.name.startswith("."))
    assert [clip.text for clip in load_manifest([tmp_path / "*"]).clips] == ["很好", None]
    assert "2 files are neither clips nor tables and are left out: 'Thumbs.db', 'notes.md'" in caplog.text
    assert problem_of(everything).startswith(f"{tmp_path}/notes.md: neither a folder")
    everything.remove(tmp_path / "notes.md")
    assert len(load_manifest(everything).clips) == 2
    touch(tmp_path, "a.docx", "other.txt")
    found = problems_of([tmp_path / name for name in ("a.mp4", "other.txt", "notes.md")])
    assert [problem.split(":")[0] for problem in found] == [f"{tmp_path}/other.txt", f"{tmp_path}/notes.md"]
    assert "no clip, table or folder" in problem_of(tmp_path / "*.txt")


def test_tables_of_clips_in_a_folder_are_reported(tmp_path, caplog):
    touch(tmp_path, "a.mp4")
    table = write(tmp_path / "clips.csv", "path,text\na.mp4,很好\n")
    write(tmp_path / "results.csv", "name,value\nx,1\n")
    assert load_manifest(tmp_path).clips[0].text is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{table}: not read")
    caplog.clear()
    assert [clip.text for clip in load_manifest([tmp_path, table]).clips] == ["很好"]
    assert not caplog.records


# ---- layouts


MELD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
)
MELD_ROW = '1,"Oh, really?",{},joy,{},{},{},8,21,"00:16:16,059","00:16:21,731"\n'


def test_meld_tables_and_videos(tmp_path, caplog):
    write(
        tmp_path / "train_sent_emo.csv",
        MELD + MELD_ROW.format("Ross", "positive", 0, 0) + MELD_ROW.format("Ross", "neutral", 0, 1),
    )
    write(tmp_path / "dev_sent_emo.csv", MELD + MELD_ROW.format("Joey", "negative", 0, 0))
    touch(
        tmp_path,
        "train_splits/dia0_utt0.mp4",
        "train_splits/dia0_utt1.mp4",
        "dev_splits_complete/dia0_utt0.mp4",
    )
    found = load_manifest(tmp_path).clips
    assert [(clip.id, clip.path, clip.split, clip.label) for clip in found] == [
        ("dev_dia0$_$utt0", "dev_splits_complete/dia0_utt0.mp4", "valid", -1.0),
        ("train_dia0$_$utt0", "train_splits/dia0_utt0.mp4", "train", 1.0),
        ("train_dia0$_$utt1", "train_splits/dia0_utt1.mp4", "train", 0.0),
    ]
    assert found[1].text == "Oh, really?"
    assert len(load_manifest(tmp_path / "train_sent_emo.csv").clips) == 2
    (tmp_path / "train_splits" / "dia0_utt1.mp4").unlink()
    assert load_manifest(tmp_path).clips == found
    assert "train_sent_emo.csv:3: video dia0_utt1.* not found" in caplog.text


def test_meld_table_in_a_folder_of_its_split(tmp_path, caplog):
    write(tmp_path / "train" / "train_sent_emo.csv", MELD + MELD_ROW.format("Ross", "positive", 0, "1.0"))
    write(tmp_path / "dev_sent_emo.csv", MELD + MELD_ROW.format("Joey", "", 0, 0))
    touch(
        tmp_path,
        "train/train_splits/dia0_utt1.mp4",
        "dev_splits_complete/dia0_utt0.mp4",
        "dev_splits_complete/._dia0_utt0.mp4",
        "test_splits/dia0_utt0.mp4",
    )
    found = load_manifest(tmp_path).clips
    assert [(clip.path, clip.split) for clip in found] == [
        ("dev_splits_complete/dia0_utt0.mp4", "valid"),
        ("train/train_splits/dia0_utt1.mp4", "train"),
    ]
    assert math.isnan(found[0].label)
    assert "1 videos have no row in dev_sent_emo.csv, train_sent_emo.csv and are left out" in caplog.text
    assert "'test_splits/dia0_utt0.mp4'" in caplog.text


def test_melds_apostrophes_are_read(tmp_path):
    row = MELD_ROW.format("Ross", "neutral", 0, 0).replace("Oh, really?", "I\x92m \x96 fine\x85")
    write(tmp_path / "dev_sent_emo.csv", MELD + row)
    touch(tmp_path, "dia0_utt0.mp4")
    assert load_manifest(tmp_path).clips[0].text == "I\u2019m \u2013 fine\u2026"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1,too,few\n", "3 cells for 11 columns"),
        (
            MELD_ROW.format("Ross", "happy", 0, 1),
            "sentiment = 'happy': unknown; write one of positive, neutral",
        ),
        (MELD_ROW.format("Ross", "neutral", "", ""), "Dialogue_ID and Utterance_ID must be whole numbers"),
        (
            MELD_ROW.format("Ross", "neutral", 0, 0),
            "dev_splits/dia0_utt0.mp4 and devtest/dia0_utt0.mkv both fit",
        ),
    ],
)
def test_meld_rows_that_are_wrong_are_refused(tmp_path, row, problem):
    table = write(tmp_path / "dev_sent_emo.csv", MELD + row)
    touch(tmp_path, "dev_splits/dia0_utt0.mp4", "devtest/dia0_utt0.mkv", "dev_splits/dia0_utt1.mp4")
    assert problem_of(tmp_path).startswith(f"{table}:2: {problem}")


def test_meld_is_split_by_dialogue_or_speaker(tmp_path):
    rows = [(who, number) for number in range(6) for who in ("Ross", "Joey", "Rachel")]
    for kind in ("train", "dev"):
        content = [MELD_ROW.format(who, "neutral", number, index) for index, (who, number) in enumerate(rows)]
        write(tmp_path / f"{kind}_sent_emo.csv", MELD + "".join(content))
        touch(
            tmp_path, *(f"{kind}_splits/dia{number}_utt{index}.mp4" for index, (_, number) in enumerate(rows))
        )
    manifest = load_manifest(tmp_path)
    for by, count in (("Speaker", 3), ("video", 12)):
        groups = read_groups([tmp_path], manifest, by)
        done = assign_grouped_splits(manifest.without_splits(), groups, (1, 1, 1), 0)
        assert len(set(groups.values())) == count
        assert len({(groups[clip.id], clip.split) for clip in done.clips}) == count


def test_a_folder_with_a_manifest_named_label(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "label.csv", "path,text\na.mp4,好\n")
    assert [clip.text for clip in load_manifest(tmp_path).clips] == ["好"]


# ---- splits by group


def grouped(tmp_path: Path, groups: int, clips: int) -> Path:
    rows = ["path,label,Speaker"]
    for group in range(groups):
        for number in range(clips):
            touch(tmp_path, f"video{group}/{number}.mp4")
            rows.append(f"video{group}/{number}.mp4,{(number % 5 - 2) / 2},{'ab'[group % 2]}{group // 2}")
    return write(tmp_path / "m.csv", "\n".join(rows) + "\n")


@pytest.mark.parametrize("by", ["video", "speaker"])
def test_a_group_stays_in_one_split(tmp_path, by):
    source = grouped(tmp_path, 20, 7)
    manifest = load_manifest(source)
    groups = read_groups([source], manifest, by)
    split = assign_grouped_splits(manifest, groups, (6, 2, 2), seed=0)
    of_group = {}
    for clip in split.clips:
        of_group.setdefault(groups[clip.id], set()).add(clip.split)
    assert all(len(splits) == 1 for splits in of_group.values())
    counts = [sum(clip.split == name for clip in split.clips) for name in ("train", "valid", "test")]
    assert counts == [84, 28, 28]
    assert assign_grouped_splits(manifest, groups, (6, 2, 2), seed=0) == split
    assert assign_grouped_splits(manifest, groups, (6, 2, 2), seed=1) != split


@pytest.mark.parametrize("ratios", [(6, 2, 2), (1, 0, 1), (1, 0, 0), (70, 15, 15)])
@pytest.mark.parametrize("groups", [3, 4, 12])
def test_few_clips_of_each_class_can_be_grouped(tmp_path, recwarn, groups, ratios):
    source = grouped(tmp_path, groups, 2)
    manifest = load_manifest(source)
    split = assign_grouped_splits(manifest, read_groups([source], manifest, "video"), ratios, 0)
    given = {clip.split for clip in split.clips}
    assert given == {name for name, ratio in zip(("train", "valid", "test"), ratios, strict=True) if ratio}
    assert len({(clip.id.partition("$_$")[0], clip.split) for clip in split.clips}) == groups
    assert not recwarn.list


def test_groups_that_cannot_be_formed_are_refused(tmp_path):
    source = grouped(tmp_path, 2, 3)
    manifest = load_manifest(source)
    with pytest.raises(InputError, match="no column actor among path, label, Speaker"):
        read_groups([source], manifest, "actor")
    with pytest.raises(InputError, match="2 groups for 3 splits"):
        assign_grouped_splits(manifest, read_groups([source], manifest, "video"), (6, 2, 2), 0)
    with pytest.raises(InputError, match="needs a table"):
        read_groups([tmp_path], manifest, "speaker")
    done = assign_grouped_splits(manifest, read_groups([source], manifest, "video"), (1, 0, 1), 0)
    with pytest.raises(InputError, match="--anew"):
        assign_grouped_splits(done, read_groups([source], manifest, "video"), (1, 0, 1), 0)
