"""What files say is printed on one line, of bounded length, and without codes that change the terminal."""

from __future__ import annotations

import json
import logging

import pytest

from triptych.pipeline.escaped import escaped, has_control, quoted, shown
from triptych.pipeline.terminal.lines import escape_warnings, print_json, print_line
from triptych.pipeline.terminal.tables import print_table

CODES = [
    "\x00",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\x9b",
    "\u061c",
    "\u200b",
    "\u2028",
    "\u202e",
    "\u2066",
    "\ud800",
]
PLAIN = ["a", "名", "é", "e\u0301", "😀", " ", "\\", "|", "\u3000"]


@pytest.mark.parametrize("code", CODES)
def test_codes_are_escaped_wherever_they_are_printed(code, capsys):
    text = f"名{code}b"
    print_line(text)
    print_table(("clip",), [(text,)])
    print_json({"clip": text})
    line, _, cell, document = capsys.readouterr().out.split("\n")[:4]
    assert line == cell == escaped(text) == f"名{repr(code)[1:-1]}b"
    assert shown(text) in quoted(text)
    assert code not in document
    assert json.loads(document) == {"clip": text}


@pytest.mark.parametrize("text", PLAIN)
def test_other_characters_stay(text, capsys):
    assert escaped(text) == shown(text) == text
    assert not has_control(text)
    print_json(text)
    assert capsys.readouterr().out == json.dumps(text, ensure_ascii=False) + "\n"


def test_long_text_is_cut_at_200_characters(capsys):
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 201) == "x" * 197 + "..."
    assert len(shown("\x1b" * 10**6)) == len(quoted("\x1b" * 10**6)) == len(quoted([1] * 10**5)) == 200
    print_table(("clip",), [("y" * 10**6,)])
    print_table(("what",), [("z" * 300,)], longest=None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "y" * 197 + "..."
    assert lines[3] == "z" * 300


@pytest.mark.parametrize("code", ["\n", "\x1b", "\x9b", "\u2028", "\u202e", "\u2069"])
def test_control_characters_and_codes_of_direction_are_found(code):
    assert has_control(f"a{code}b")


def test_logged_warnings_are_escaped(capsys, monkeypatch):
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    escape_warnings()
    record = logging.LogRecord("triptych", logging.WARNING, "", 1, "%s: not read", ("a\x1b[2Jb\nc",), None)
    assert logging.lastResort.format(record) == r"a\x1b[2Jb\nc: not read"
