"""The spans that recordings are divided into: a table that a person can edit."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import escaped, quoted
from triptych.pipeline.manifest.tables import cells, fitted

COLUMNS = ("recording", "id", "start", "end", "keep", "reason", "detail", "face", "speech", "score")
NEEDED = ("recording", "start", "end", "keep")
SAME = 0.25  # a span whose ends moved by less is the same clip [s]
_YES, _NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0", "")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)")
_ID = re.compile(r"[^\s/\\:*?\"<>|$]+")


@dataclass(frozen=True)
class Cut:
    """A span of a recording: a clip, or a candidate that is left out.

    Attributes
    ----------
    recording
        The recording's id.
    id
        The clip's id within the recording, such as ``0012``. Spans that are left out have one too, so that a person who
        overrules one changes the id of no other.
    start, end
        On the recording's clock [s].
    keep
        Whether it becomes a clip.
    reason, detail
        Why it is left out, as `CutReason` and as a sentence; empty for a clip.
    face
        Centre of the speaker's face, ``X Y``, as shares of the frame's width and height; empty where only one face is
        seen, or none.
    speech
        Share of its time with speech; NaN where a person added the span.
    score
        How well mouth and sound go together; NaN where that was not measured.
    """

    recording: str
    id: str
    start: float
    end: float
    keep: bool
    reason: str = ""
    detail: str = ""
    face: str = ""
    speech: float = math.nan
    score: float = math.nan

    @property
    def clip_id(self) -> str:
        """The id of its clip in the data set's manifest."""
        return f"{self.recording}$_${self.id}"

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


def write_cuts(cuts: Iterable[Cut], path: Path) -> None:
    """Write the table, by recording and time; it appears complete or not at all."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for cut in cuts:
        numbers = (_number(cut.speech, 2), _number(cut.score, 2))
        span = (f"{cut.start:.3f}", f"{cut.end:.3f}", "yes" if cut.keep else "no")
        rows.writerow((cut.recording, cut.id, *span, cut.reason, cut.detail, cut.face, *numbers))
    # The mark makes Excel read UTF-8.
    write_whole(path, text.getvalue().encode("utf-8-sig", "surrogateescape"))


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def read_cuts(path: Path, seconds: Mapping[str, float] | None) -> list[Cut]:
    """Read a table that a person may have edited, and check it.

    The columns ``recording``, ``start``, ``end`` and ``keep`` are needed; others may be missing. Times are seconds or
    ``h:mm:ss``. A row without an id gets the next free one.

    Parameters
    ----------
    seconds
        The length of each recording, by its id; None to leave recordings and ends unchecked.

    Raises
    ------
    InputError
        Every problem, with its line and the remedy.
    """
    problems: list[str] = []
    try:
        lines = list(cells(path, problems))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); name a table that `triptych cut` wrote"
        ) from error
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if missing := [name for name in NEEDED if name not in header]:
        raise InputError(
            [*problems, f"{path}: no column {', '.join(missing)}; the columns are {', '.join(COLUMNS)}"]
        )
    found: list[Cut] = []
    where: dict[str, int] = {}
    for line, record in lines[1:]:
        origin = f"{path}:{line}"
        if (whole := fitted(record, len(header), origin, problems)) is None:
            continue
        cut, wrong = _read(dict(zip(header, whole, strict=True)), seconds)
        if cut.id and cut.clip_id in where:
            wrong.append(f"id {quoted(cut.id)} is that of line {where[cut.clip_id]}; empty it for a new one")
        where[cut.clip_id] = line
        problems += [f"{origin}: {problem}" for problem in wrong]
        found.append(cut)
    if problems:
        raise InputError([escaped(problem) for problem in problems])
    return sorted(_with_ids(found), key=lambda cut: (cut.recording, cut.start, cut.end))


def _read(row: Mapping[str, str], seconds: Mapping[str, float] | None) -> tuple[Cut, list[str]]:
    """Read one row, and what is wrong with it."""
    wrong: list[str] = []
    recording, id = row["recording"].strip(), row.get("id", "").strip()
    length = math.inf if seconds is None else seconds.get(recording, math.inf)
    if seconds is not None and recording not in seconds:
        wrong.append(f"recording {quoted(recording)} is not in the data set; name one of its recordings")
    if id and not _ID.fullmatch(id):
        wrong.append(f"id = {quoted(id)}: write letters and digits, as in a file's name")
    start, end = _time(row, "start", wrong), _time(row, "end", wrong)
    if not start < end and not wrong:
        wrong.append(f"start {start:g} is not before end {end:g}")
    if end > length + 0.05:
        wrong.append(f"end {end:g} is after the recording's end at {length:.3f} s")
    answer = row["keep"].strip().lower()
    if answer not in _YES + _NO:
        wrong.append(f"keep = {quoted(answer)}: write yes or no")
    keep = answer in _YES
    cut = Cut(recording, id, start, min(end, length), keep)
    # What a person overruled is no longer a reason.
    reason, detail = ("", "") if keep else (row.get(name, "").strip() for name in ("reason", "detail"))
    speech, score = _share(row, "speech"), _share(row, "score")
    return replace(
        cut, reason=reason, detail=detail, speech=speech, score=score, face=_face(row, wrong)
    ), wrong


def _time(row: Mapping[str, str], name: str, wrong: list[str]) -> float:
    match = _CLOCK.fullmatch(row[name].strip())
    if match is None:
        wrong.append(f"{name} = {quoted(row[name])}: write seconds, such as 83.25, or 1:23.25")
        return math.nan
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest.replace(",", "."))


def _face(row: Mapping[str, str], wrong: list[str]) -> str:
    text = " ".join(row.get("face", "").replace(",", ".").split())
    if not text:
        return ""
    try:
        x, y = map(float, text.split())
        valid = 0 <= x <= 1 and 0 <= y <= 1
    except ValueError:
        valid = False
    if not valid:
        wrong.append(
            f"face = {quoted(text)}: write two shares of the frame's width and height, such as 0.3 0.4"
        )
    return text


def _share(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row.get(name, "").replace(",", "."))
    except ValueError:
        return math.nan


def _with_ids(cuts: Sequence[Cut]) -> Iterator[Cut]:
    """Give rows without an id the next free number of their recording."""
    last = {cut.recording: 0 for cut in cuts}
    for cut in cuts:
        last[cut.recording] = max(last[cut.recording], int(cut.id) if cut.id.isdecimal() else 0)
    for cut in cuts:
        if not cut.id:
            last[cut.recording] += 1
            cut = replace(cut, id=f"{last[cut.recording]:04d}")
        yield cut


def numbered(cuts: Sequence[Cut], before: Sequence[Cut] = ()) -> list[Cut]:
    """Give proposed spans their ids: those of the same spans in the table before, and new numbers in order of time.

    Parameters
    ----------
    cuts
        Proposed spans of one recording or of several, without ids.
    before
        The table that these replace.
    """
    free = [cut for cut in before if cut.id]
    used = [replace(cut, keep=False) for cut in free]  # numbers that were given are not given again
    ordered = sorted(cuts, key=lambda cut: (cut.recording, cut.start, cut.end))
    known = {}
    for cut in ordered:
        near = [old for old in free if old.recording == cut.recording and _same(old, cut)]
        if near:
            best = min(near, key=lambda old: abs(old.start - cut.start) + abs(old.end - cut.end))
            free.remove(best)
            known[cut.recording, cut.start, cut.end] = best.id
    named = [replace(cut, id=known.get((cut.recording, cut.start, cut.end), "")) for cut in ordered]
    taken = {cut.clip_id for cut in named if cut.id}
    return list(_with_ids([*named, *(old for old in used if old.clip_id not in taken)]))[: len(named)]


def _same(a: Cut, b: Cut) -> bool:
    return abs(a.start - b.start) < SAME and abs(a.end - b.end) < SAME
