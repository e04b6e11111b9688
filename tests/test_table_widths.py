"""Tables fit the terminal: wrapped sentences, names shortened in the middle, two cells for a Chinese character."""

from __future__ import annotations

import sys

import click
import pytest
from rich.cells import cell_len

from triptych.pipeline.cli.trainer import print_metrics
from triptych.pipeline.terminal.tables import elided, print_table, wrapped

ID = "video_0001/clips/" + "很长的名字" * 12 + "/0042"
DETAIL = "clips/a.mp4: the file is shorter than its container states, 2.8 of 5.0 s decoded; 请检查文件。"


@pytest.fixture
def terminal(monkeypatch):
    """Make stdout pass for a terminal of a given width."""

    def of(columns):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return of


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_rows_fit_the_terminal_and_sentences_stay_whole(columns, terminal, capsys):
    terminal(columns)
    print_table(("clip", "stages", "detail"), [(ID, "faces, vision", DETAIL), ("b", "audio", "short")])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert lines[1].startswith("video_0001")
    assert "…" in lines[1]
    assert lines[-1].split() == ["b", "audio", "short"]
    starts = {line.index("detail") for line in lines if "detail" in line}
    assert len(starts) == 1
    for word in DETAIL.split():
        assert any(word in line for line in lines), word


def test_elsewhere_nothing_is_cut(capsys):
    print_table(("clip", "stages", "detail"), [(ID, "faces, vision", DETAIL)])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split("  ")[0] == ID
    assert line.endswith(DETAIL)


def test_columns_are_aligned_by_cells(capsys):
    print_table(("clip", "n"), [("名字", 1), ("abcd", 22), ("ab", 333)])
    lines = capsys.readouterr().out.splitlines()
    assert {cell_len(line) for line in lines} == {4 + 2 + 3}


@pytest.mark.parametrize("width", range(2, 30))
def test_a_name_is_shortened_in_the_middle(width):
    for name in ("a" * 10 + "b" * 10, "名" * 10 + "字" * 10, "ab"):
        short = elided(name, width)
        assert cell_len(short) <= width
        if cell_len(name) <= width:
            assert short == name
        else:
            assert short.count("…") == 1
            assert name.startswith(short.split("…")[0])
            assert name.endswith(short.split("…")[1])
            assert cell_len(short) >= width - 2


def test_a_word_that_is_too_long_is_divided():
    assert wrapped("ab " + "名" * 5 + " c", 4) == ["ab", "名名", "名名", "名 c"]


@pytest.mark.parametrize("seeds", [1, 5, 30])
def test_metrics_of_many_seeds_fit(seeds, terminal, capsys):
    terminal(80)
    numbers = [1, 12, 123, 1234, 12345, *range(4_000_000_000, 4_000_000_030)][:seeds]
    spread = {"seeds": {str(seed): -0.12345 for seed in numbers}, "mean": -0.5, "std": 0.25}
    print_metrics({"M": {"Acc-2 (no zeros)": spread}}, tuple(numbers))
    header, row = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(cell_len(header), cell_len(row)) <= 80
    assert header.split()[:4] == ["task", "metric", "mean", "std"]
    assert row.split()[-1] == "-0.123"
