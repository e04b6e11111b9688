"""Decoding of CSV and TSV tables: encoding, cells, and the line that each record starts on."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from triptych.pipeline.errors import InputError

logger = logging.getLogger(__name__)

LABELS = ("label", "label_T", "label_A", "label_V")
COLUMNS = ("id", "path", "text", "split", *LABELS, "root", "video_id", "clip_id")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def decode(content: bytes, where: str) -> str:
    """Decode UTF-8, with or without a byte order mark, or GB18030.

    Raises
    ------
    InputError
        The bytes are neither; the message gives the first byte that is not UTF-8.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        first = error.start + len(content) - len(error.object)
        text = _decode_gb18030(content)
    if text is None:
        raise InputError(
            f"{where}: byte {first} (0x{content[first]:02X}) is not UTF-8, and the file is not GB18030 either; "
            "save it as UTF-8"
        )
    logger.info("%s: read as GB18030", where)
    return text


def _decode_gb18030(content: bytes) -> str | None:
    try:
        text = content.decode("gb18030").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    # Text in other encodings often decodes as GB18030, but then contains unassigned or private code points.
    return None if {unicodedata.category(character) for character in set(text)} & {"Cn", "Co"} else text


def cells(source: Path, delimiter: str, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Read each record with the line that it starts on; blank records are skipped, an invalid one is the last."""
    content = decode(source.read_bytes(), str(source))
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # a transcript may be long
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(
                f"{source}:{line}: a quoted cell is not closed properly ({error}); "
                'put a cell that contains quotes in quotes, and double the inner ones: "a ""b"" c"'
            )
            return
        if any(cell.strip() for cell in record):
            yield line, record


def _typed(column: str, cell: str) -> Any:
    """A cell with the type it has in JSON; an invalid label stays text, for the later check to report."""
    if column in LABELS:
        cell = cell.strip()
        return float(cell) if _DECIMAL.fullmatch(cell) else cell or None
    if column == "split":
        return cell.strip() or None
    return cell or None if column in ("text", "root") else cell


def records(
    source: Path, header: Sequence[str], lines: Iterable[tuple[int, list[str]]], problems: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read each record as its origin, ``file:line``, and its values by column; skip one of another length."""
    for line, record in lines:
        origin = f"{source}:{line}"
        if len(record) != len(header):
            problems.append(
                f"{origin}: {len(record)} cells for {len(header)} columns; "
                "quote a cell that contains a comma or a line break"
            )
            continue
        pairs = zip(header, record, strict=True)
        yield origin, {name: _typed(name, cell) for name, cell in pairs if name in COLUMNS}
