"""Tables as people save them: their encoding, their cells, and where each record begins."""

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
    """Decode UTF-8, with or without its mark, or GB18030.

    Raises
    ------
    InputError
        The bytes are neither; the first that is not UTF-8 is named.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        first = error.start + len(content) - len(error.object)
        text = _decode_gb18030(content)
    if text is None:
        raise InputError(
            f"{where}: byte {first} (0x{content[first]:02X}) is not UTF-8, nor is the file GB18030; "
            "save it as UTF-8"
        )
    logger.info("%s: read as GB18030", where)
    return text


def _decode_gb18030(content: bytes) -> str | None:
    try:
        text = content.decode("gb18030").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    # Other encodings often pass as GB18030 too, but then land on code points that nobody writes.
    return None if {unicodedata.category(character) for character in set(text)} & {"Cn", "Co"} else text


def cells(source: Path, delimiter: str, mistakes: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins on; blank ones are left out, a broken one ends the reading."""
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
            mistakes.append(
                f"{source}:{line}: a quoted cell is not closed properly ({error}); "
                'a cell with quotes stands in quotes, those inside it doubled: "a ""b"" c"'
            )
            return
        if any(cell.strip() for cell in record):
            yield line, record


def _typed(column: str, cell: str) -> Any:
    """A cell as JSON would hold it; what cannot be read stays text, for the check to name."""
    if column in LABELS:
        cell = cell.strip()
        return float(cell) if _DECIMAL.fullmatch(cell) else cell or None
    if column == "split":
        return cell.strip() or None
    return cell or None if column in ("text", "root") else cell


def records(
    source: Path, header: Sequence[str], lines: Iterable[tuple[int, list[str]]], mistakes: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record as a place and the values by column, where its cells are as many as the header's."""
    for line, record in lines:
        place = f"{source}:{line}"
        if len(record) != len(header):
            mistakes.append(
                f"{place}: {len(record)} cells where there are {len(header)} columns; "
                "quote a cell that holds a comma or a line break"
            )
            continue
        pairs = zip(header, record, strict=True)
        yield place, {name: _typed(name, cell) for name, cell in pairs if name in COLUMNS}
