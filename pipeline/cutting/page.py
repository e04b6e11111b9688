"""The cuts of a data set as one HTML page: a time line of each recording, and why each span is no clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from triptych.extractors.cutting.proposals import REMEDIES
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.cutting.cuts import Cut
from triptych.pipeline.escaped import escaped

PAGE = "cuts.html"


def write_page(cuts: Sequence[Cut], dataset: Path, table: str, path: Path | None = None) -> Path:
    """Write the page; it needs no network, and all texts in it are escaped.

    Parameters
    ----------
    table
        The name of the table of cuts in the data set's folder.
    path
        The file to write; by default ``cuts.html`` in that folder.
    """
    from jinja2 import Environment

    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True)
    recordings = [_recording(id, list(of)) for id, of in groupby(cuts, key=lambda cut: cut.recording)]
    page = environment.from_string(template).render(
        name=escaped(dataset.resolve().name),
        folder=escaped(str(dataset)),
        table=escaped(str(dataset / table)),
        clips=sum(cut.keep for cut in cuts),
        taken=clock(sum(cut.seconds for cut in cuts if cut.keep)),
        length=clock(sum(one["seconds"] for one in recordings)),
        reasons=_reasons(cuts),
        recordings=recordings,
    )
    path = path or dataset / PAGE
    write_whole(path, page.encode("utf-8", "replace"))
    return path


def by_reason(cuts: Sequence[Cut]) -> dict[str, tuple[int, float]]:
    """Return the number and the seconds of the spans that are left out, by reason; most seconds first."""
    sums: dict[str, tuple[int, float]] = {}
    for cut in cuts:
        if not cut.keep:
            spans, seconds = sums.get(cut.reason or "by hand", (0, 0.0))
            sums[cut.reason or "by hand"] = spans + 1, seconds + cut.seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def _reasons(cuts: Sequence[Cut]) -> list[Mapping[str, Any]]:
    return [
        {
            "reason": escaped(reason),
            "spans": spans,
            "seconds": f"{seconds:.0f}",
            "remedy": REMEDIES.get(reason, ""),
        }
        for reason, (spans, seconds) in by_reason(cuts).items()
    ]


def _recording(id: str, cuts: list[Cut]) -> dict[str, Any]:
    seconds = max(cut.end for cut in cuts)
    return {
        "id": escaped(id),
        "seconds": round(seconds, 2),
        "length": clock(seconds),
        "clips": sum(cut.keep for cut in cuts),
        "cuts": [_cut(cut) for cut in cuts],
    }


def _cut(cut: Cut) -> dict[str, Any]:
    what = "clip" if cut.keep else cut.reason or "left out by hand"
    return {
        "id": escaped(cut.id),
        "kind": "clip" if cut.keep else "no_speech" if cut.reason == "no_speech" else "out",
        "start": round(cut.start, 2),
        "width": round(cut.seconds, 2),
        "title": escaped(f"{cut.id}: {what}, {clock(cut.start)} to {clock(cut.end)}"),
        "from": clock(cut.start),
        "to": clock(cut.end),
        "keep": "yes" if cut.keep else "no",
        "reason": escaped(cut.reason),
        "detail": escaped(cut.detail),
        "score": "" if math.isnan(cut.score) else f"{cut.score:.2f}",
    }


def clock(seconds: float) -> str:
    """Return ``1:23.4`` or ``1:02:03.4``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    front = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{front}:{rest // 10:02d}.{rest % 10}"
