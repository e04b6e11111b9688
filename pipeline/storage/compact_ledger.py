"""Merge the files of a ledger into one, without a change of what `read_ledger` returns. No numpy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from triptych.pipeline.atomic import remove_stale_temporaries, replacing
from triptych.pipeline.storage.ledger import (
    FOLDER,
    LedgerKey,
    LedgerLine,
    LedgerWriter,
    Outcome,
    read_ledger,
)


@dataclass(frozen=True)
class CompactedLedger:
    """The files and lines of a ledger, before and after."""

    files_before: int
    files_after: int
    lines_before: int
    lines_after: int


def compact_ledger(folder: Path, *, dry_run: bool = False) -> CompactedLedger:
    """Write the newest line for each clip, stage, fingerprint and digest to one file, and remove the others.

    Lines are copied byte by byte, with fields of later versions. Lines that only a later version understands are
    copied too; truncated lines are not. Links and folders are left alone. One file stays as it is.

    Parameters
    ----------
    folder
        The feature folder; nothing else may write to its ledger meanwhile.
    dry_run
        Only count.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full; the ledger is as before.
    """
    if not dry_run:
        remove_stale_temporaries(folder / FOLDER)
    paths = sorted((folder / FOLDER).glob("*.jsonl"))
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    stamps = {path: _stamp(path) for path in files}
    chosen, before = _choose(files, read_ledger(folder))
    if len(files) < 2:
        return CompactedLedger(len(paths), len(paths), before, before)
    done = CompactedLedger(len(paths), len(paths) - len(files) + 1, before, len(chosen))
    if dry_run:
        return done
    # Its name is the last one, so at equal times its lines count, which are those that counted before.
    new = LedgerWriter(folder).path
    with replacing(new) as temporary, temporary.open("wb") as file:
        file.writelines(line + b"\n" for line in chosen)
    # In order of their names: of two lines of one time the later file's counts, and must not be removed first.
    for path in files:
        if _stamp(path) == stamps[path]:
            path.unlink()
    return done


def _choose(files: Iterable[Path], newest: Mapping[LedgerKey, LedgerLine]) -> tuple[list[bytes], int]:
    """Return the lines to be written, in the order in which the ledger is read, and how many lines there are."""
    current_lines: dict[LedgerKey, bytes] = {}
    foreign: list[bytes] = []
    count = 0
    for path in files:
        for data in filter(None, path.read_bytes().split(b"\n")):
            count += 1
            try:
                record = json.loads(data)
                line = LedgerLine(**{field.name: record[field.name] for field in fields(LedgerLine)})
                known = line.outcome in get_args(Outcome)
                current = newest.get(LedgerKey.of(line)) if known else None
            except (ValueError, RecursionError):  # truncated
                continue
            except (TypeError, KeyError, OverflowError):
                known, current = False, None
            if current is not None and line == current:
                current_lines[LedgerKey.of(line)] = data
            elif not known and isinstance(record, dict):
                foreign.append(data)
    return [current_lines[key] for key in newest if key in current_lines] + foreign, count


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
