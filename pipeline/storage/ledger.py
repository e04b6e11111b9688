"""The ledger: one JSON line per clip and stage, with its outcome. No numpy.

Every run appends to its own file, ``ledger/<run>.jsonl``, so that several machines never write to one file. The ledger
only explains results; the shards decide whether features exist.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple, Self, get_args

FOLDER = "ledger"
BLOCK = 1 << 23  # bytes
Outcome = Literal["done", "failed", "absent"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class LedgerLine:
    """The outcome of one stage of one clip.

    Attributes
    ----------
    clip_id, stage
        The clip and the stage.
    outcome
        ``done``; ``failed``; or ``absent``: there was nothing to make features from, which is no failure.
    reason
        One of `triptych.extractors.base.Reason`; empty when done.
    detail
        A sentence for the user: the error, or a note on the result.
    seconds
        The time that the stage took.
    fingerprint, digest
        The stage's settings and the clip's content at that time: the line applies only to these.
    at
        Time of the outcome, ISO 8601 with a time zone.
    """

    clip_id: str
    stage: str
    outcome: Outcome
    reason: str
    detail: str
    seconds: float
    fingerprint: str
    digest: str
    at: str = field(default_factory=_now)


class LedgerKey(NamedTuple):
    """The clip, stage, fingerprint and digest that a line applies to."""

    clip_id: str
    stage: str
    fingerprint: str
    digest: str

    @classmethod
    def of(cls, line: LedgerLine) -> LedgerKey:
        """Give the key of a line."""
        return cls(line.clip_id, line.stage, line.fingerprint, line.digest)


class LedgerWriter:
    """Appends the lines of one run; a context manager.

    Parameters
    ----------
    folder
        The feature folder. The run's file appears with its first line.

    Attributes
    ----------
    run
        The run's id: the time in UTC, so that names sort by it, and a random end.
    path
        The run's file.
    """

    def __init__(self, folder: Path) -> None:
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
        self.path = folder / FOLDER / f"{self.run}.jsonl"
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, line: LedgerLine) -> None:
        """Append a line in one system call, so that a kill can truncate only the last line.

        Raises
        ------
        OSError
            The folder cannot be written, or the disk is full.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        # A lone surrogate, as in a file name of unknown encoding, is written as a JSON escape.
        data = (json.dumps(asdict(line), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_ledger(folder: Path) -> dict[LedgerKey, LedgerLine]:
    """Read all runs; return the newest line for each clip, stage, fingerprint and digest.

    Truncated and invalid lines are skipped; unknown fields are ignored.

    Parameters
    ----------
    folder
        The feature folder.
    """
    return _newest(line for block in _blocks(folder) for line in block.split(b"\n"))


def read_remarks(folder: Path) -> dict[LedgerKey, LedgerLine]:
    """Return the lines of `read_ledger` that explain something: failures, absences, and results with a note.

    Nearly all lines only record that a stage was done. They are recognised by a part of them and not parsed, which
    takes a tenth of the time, nor are they in memory.
    """
    found = _newest(line for block in _blocks(folder) for line in block.split(b"\n") if _PLAIN not in line)
    if found:  # a later line may record that the stage was done after all
        clips = {_start(key) for key in found}
        plain = (
            line
            for block in _blocks(folder)
            for line in block.split(b"\n")
            if (end := line.find(_PLAIN)) >= 0 and line[:end] in clips
        )
        found = _newest(plain, found)
    return {key: line for key, line in found.items() if line.outcome != "done" or line.detail}


# In a line of `LedgerWriter`, and never within one of its texts, where each quotation mark has a backslash.
_PLAIN = b'"outcome": "done", "reason": "", "detail": "", '


def _start(key: LedgerKey) -> bytes:
    """Return the first bytes of the lines of a clip and stage."""
    texts = {"clip_id": key.clip_id, "stage": key.stage, "": ""}
    return json.dumps(texts, ensure_ascii=False).encode("utf-8", "backslashreplace").removesuffix(b'"": ""}')


def _newest(
    lines: Iterable[bytes], before: Mapping[LedgerKey, LedgerLine] = MappingProxyType({})
) -> dict[LedgerKey, LedgerLine]:
    """Parse lines; return the newest for each key, of these and of those that were found before."""
    newest = {key: (datetime.fromisoformat(line.at), line) for key, line in before.items()}
    for data in lines:
        try:
            moment, line = _parse(json.loads(data))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
        key = LedgerKey.of(line)
        if key not in newest or moment >= newest[key][0]:
            newest[key] = moment, line
    return {key: line for key, (_, line) in newest.items()}


def _blocks(folder: Path) -> Iterator[bytes]:
    """Yield the content of all runs in blocks of whole lines, since a ledger may be larger than memory."""
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        rest = b""
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                yield whole + newline
        yield rest


def _parse(record: dict[str, Any]) -> tuple[datetime, LedgerLine]:
    line = LedgerLine(**{field.name: record[field.name] for field in fields(LedgerLine)})
    texts = (line.clip_id, line.stage, line.reason, line.detail, line.fingerprint, line.digest, line.at)
    moment = datetime.fromisoformat(line.at)
    if line.outcome not in get_args(Outcome) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a ledger line")
    if not math.isfinite(line.seconds) or moment.tzinfo is None:
        raise ValueError("not a ledger line")
    return moment, line
