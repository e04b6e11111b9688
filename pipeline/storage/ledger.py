"""The ledger: one JSON line per clip and stage, with its outcome. No numpy.

Every run appends to a file of its own, ``ledger/<run>.jsonl``, so that several machines never write to one
file. The ledger explains; whether features exist, the shards alone decide.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, get_args

FOLDER = "ledger"
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
        A sentence for a person: the error, or what a user should know of the result.
    seconds
        The time that it took.
    fingerprint, digest
        The stage's settings and the clip's content at that time: the line applies to these alone.
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
    """What a line applies to."""

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
        The run's id: begins with the time in UTC, so that names sort by it, and ends at random.
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
        """Append a line by one system call, so that a kill can cut off the last line only.

        Raises
        ------
        OSError
            The folder cannot be written, or the disk is full.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        # A lone surrogate, as in a file name of unknown encoding, is written as JSON's escape of it.
        data = (json.dumps(asdict(line), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_ledger(folder: Path) -> dict[LedgerKey, LedgerLine]:
    """Read the newest line on every clip, stage, fingerprint and digest, by its time, across all runs.

    Lines that are cut off, or are no ledger lines, are skipped; unknown fields are ignored.

    Parameters
    ----------
    folder
        The feature folder.
    """
    newest: dict[LedgerKey, tuple[datetime, LedgerLine]] = {}
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        for moment, line in _read_lines(path):
            key = LedgerKey.of(line)
            if key not in newest or moment >= newest[key][0]:
                newest[key] = moment, line
    return {key: line for key, (_, line) in newest.items()}


def _read_lines(path: Path) -> Iterator[tuple[datetime, LedgerLine]]:
    for data in path.read_bytes().split(b"\n"):
        try:
            yield _parse(json.loads(data))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue


def _parse(record: dict[str, Any]) -> tuple[datetime, LedgerLine]:
    line = LedgerLine(**{field.name: record[field.name] for field in fields(LedgerLine)})
    words = (line.clip_id, line.stage, line.reason, line.detail, line.fingerprint, line.digest, line.at)
    moment = datetime.fromisoformat(line.at)
    if line.outcome not in get_args(Outcome) or not all(isinstance(word, str) for word in words):
        raise ValueError("not a ledger line")
    if not math.isfinite(line.seconds) or moment.tzinfo is None:
        raise ValueError("not a ledger line")
    return moment, line
