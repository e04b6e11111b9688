"""Write the report of a feature folder: one HTML file that needs nothing else.

Every text goes through jinja2's escaping or into JSON whose angle brackets are escaped, and the page writes texts as
text only. A policy in the page forbids the network, and every script but the two that it names by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from triptych.pipeline import __version__
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.report.context import context
from triptych.pipeline.report.gather import ClipFacts, measure_all
from triptych.pipeline.report.outliers import Finding, ranked
from triptych.pipeline.report.series import clip_series
from triptych.pipeline.run.extraction import Extraction, survey
from triptych.pipeline.storage.store import FeatureStore

STRIPS = 50  # clips with frames: the worst, and others where fewer are unusual
LISTED = 20_000  # clips in the table
SERIES_BYTES = 15 * 2**20  # of all curves together
SECTIONS = (
    ("coverage", "Coverage"),
    ("failures", "Failures"),
    ("distributions", "Distributions"),
    ("labels", "Labels"),
    ("outliers", "Outliers"),
    ("clips", "Clips"),
    ("settings", "Settings"),
)
_BOKEH = ("bokeh.min.js", "bokeh-api.min.js")
_HERE = Path(__file__).parent

Ranking = list[tuple[ClipFacts, tuple[Finding, ...]]]


@dataclass(frozen=True)
class Written:
    """What a report holds, for the line that the command prints."""

    path: Path
    clips: int
    listed: int
    series: int
    strips: int
    size: int


def write_report(
    folder: Path, output: Path, watch: Callable[[int, int], None] = lambda done, of: None
) -> Written:
    """Write the report of a feature folder.

    Parameters
    ----------
    folder
        A feature folder.
    output
        The HTML file; it is replaced if it exists.
    watch
        Called with the number of clips that were measured, and of all.

    Raises
    ------
    InputError
        The folder is no feature folder, or the output's folder does not exist.
    """
    if not output.parent.is_dir() or output.is_dir():
        raise InputError(f"{output}: cannot be written there. Name a file in a folder that exists after -o")
    found = survey(folder)
    store = FeatureStore(folder)
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1
        watch(counted, len(found.manifest.clips))

    facts = measure_all(found, store, count)
    ranking = ranked(facts)
    listed = _listed(facts, ranking)
    inside = {one.number for one in listed}
    wanted = _by_need(listed, [entry for entry in ranking if entry[0].number in inside])
    series, strips = _series(store, wanted), _strips(found, store, wanted[:STRIPS])
    places = {one.number: place for place, one in enumerate(listed)}
    page = _page(
        context(found, facts, ranking, listed, set(series), set(strips)),
        [(places[number], text) for number, text in series.items()],
        [(places[number], text) for number, text in strips.items()],
    )
    content = page.encode("utf-8", "backslashreplace")
    write_whole(output, content)
    return Written(output, len(facts), len(listed), len(series), len(strips), len(content))


def _listed(facts: Sequence[ClipFacts], ranking: Ranking) -> list[ClipFacts]:
    """Return the clips of the table in the manifest's order: all, or the worst and an even sample of the others."""
    if len(facts) <= LISTED:
        return list(facts)
    return sorted(_by_need(facts, ranking)[:LISTED], key=lambda one: one.number)


def _by_need(facts: Sequence[ClipFacts], ranking: Ranking) -> list[ClipFacts]:
    """Return clips with findings, worst first, then the others so that any first n of them are an even sample."""
    worst = [one for one, _ in ranking]
    known = {one.number for one in worst}
    others = [one for one in facts if one.number not in known]
    golden = (math.sqrt(5) - 1) / 2
    even = sorted(range(len(others)), key=lambda place: place * golden % 1.0)
    return [*worst, *(others[place] for place in even)]


def _series(store: FeatureStore, wanted: Sequence[ClipFacts]) -> dict[int, str]:
    """Return the curves of clips by number, in the given order, until the file has enough of them."""
    texts: dict[int, str] = {}
    size = 0
    for one in wanted:
        if text := clip_series(store, one.clip.id):
            size += len(text)
            if size > SERIES_BYTES:
                break
            texts[one.number] = text
    return texts


def _strips(found: Extraction, store: FeatureStore, wanted: Sequence[ClipFacts]) -> dict[int, str]:
    """Return the strips of clips by number: the times of their frames, a bar, and a JPEG in base64."""
    from triptych.pipeline.report.strips import strip

    notes = found.plan.stages["vision"].notes if "vision" in found.plan.stages else {}
    strips = {}
    for one in wanted:
        if drawn := strip(store, one.clip, notes.get(one.clip.id, "")):
            image, times = drawn
            strips[one.number] = f"{', '.join(f'{time:.2f}' for time in times)}|{image}"
    return strips


# -- the page --------------------------------------------------------------------------------------------


def _page(
    content: dict[str, Any], series: Sequence[tuple[int, str]], strips: Sequence[tuple[int, str]]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = "\n".join((_HERE / name).read_text("utf-8") for name in ("template_curves.js", "template.js"))
    library = bokeh_code()
    return environment.get_template("template.html").render(
        **{**content, "data": as_json(content["data"])},
        series=series,
        strips=strips,
        policy=policy(script, library),
        version=__version__,
        bokeh_version=version("bokeh"),
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        sections=SECTIONS,
        style=Markup((_HERE / "template.css").read_text("utf-8")),
        script=Markup(script),
        bokeh=packed(library),
    )


def policy(*scripts: str) -> str:
    """Return a content security policy that allows these scripts, styles, images within the page, and nothing else."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def bokeh_code() -> str:
    """Read BokehJS from the installed package; it needs no other file.

    Raises
    ------
    InputError
        The package is not installed.
    """
    spec = find_spec("bokeh")
    if spec is None or spec.origin is None:
        raise InputError(
            "the package bokeh, which draws the curves, is not installed. Run `pip install bokeh`"
        )
    folder = Path(spec.origin).parent / "server" / "static" / "js"
    code = ";\n".join((folder / name).read_text("utf-8") for name in _BOKEH)
    return code.replace("\r\n", "\n")


def packed(text: str) -> str:
    """Compress a text as the page inflates it: deflate without a header, in base64."""
    compressor = zlib.compressobj(9, wbits=-15)
    return base64.b64encode(compressor.compress(text.encode()) + compressor.flush()).decode("ascii")


def as_json(document: Any) -> Markup:
    """Return JSON that no text in it can end: angle brackets and ampersands are written as escapes."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
