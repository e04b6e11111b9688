"""Lines and JSON on the terminal. Whatever a file says is printed through here or `tables`, with codes escaped."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import click

from triptych.pipeline.escaped import escaped, is_hidden

_NOT_ASCII = re.compile(r"[\x7f-\U0010ffff]")


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print one line; codes that change the terminal, and line breaks, are escaped."""
    click.echo(escaped(text), err=err)


def print_json(document: Any) -> None:
    """Print JSON on one line; characters without a shape are written as JSON's escapes."""
    click.echo(_NOT_ASCII.sub(_as_json_escape, json.dumps(document, ensure_ascii=False)))


def _as_json_escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1] if is_hidden(match.group()) else match.group()


class _Escaped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def escape_warnings() -> None:
    """Escape the messages that modules log, which Python prints on stderr where a program sets up nothing else."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Escaped())
