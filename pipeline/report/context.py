"""The texts, numbers and rows that the report's template shows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from triptych.pipeline.escaped import escaped, has_control
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.disagreement import disagreement, label_array
from triptych.pipeline.report.coverage import Group, Made, coverage, groups, made
from triptych.pipeline.report.distributions import Histogram, histogram, label_bins
from triptych.pipeline.report.gather import ClipFacts
from triptych.pipeline.report.outliers import Finding
from triptych.pipeline.run.extraction import Extraction
from triptych.pipeline.stages.stored import foreign_stages, stored_recipe

OUTLIERS = 50  # clips that the list names
TASKS = {"M": "whole clip", "T": "text", "A": "audio", "V": "video"}
FIELDS = (
    "id", "split", "text", "path", "seconds", "tokens", "audio", "vision", "valid", "confidence", "voiced",
    "label", "labels", "score", "states", "letters",
)  # fmt: skip
_STATES = {"a": "absent", "f": "failed", "m": "missing"}

Ranking = Sequence[tuple[ClipFacts, tuple[Finding, ...]]]


def context(
    found: Extraction,
    facts: Sequence[ClipFacts],
    ranking: Ranking,
    listed: Sequence[ClipFacts],
    drawn: Collection[int],
    stripped: Collection[int],
) -> dict[str, Any]:
    """Return what the template shows, but for what is embedded.

    Parameters
    ----------
    facts, listed
        All clips; those of the table.
    drawn, stripped
        Numbers of the clips with curves, and with frames.
    """
    rows = coverage(found)
    places = {one.number: place for place, one in enumerate(listed)}
    return {
        "folder": escaped(found.folder.resolve().name),
        "lead": _lead(found),
        "tiles": _tiles(found, facts, ranking),
        "remarks": _remarks(found),
        "coverage": rows,
        "splits": list(rows[0].by_split) if rows else [],
        "groups": [_shown_group(group) for group in groups(found)],
        "histograms": _histograms(facts),
        "labels": _labels(found.manifest),
        "outliers": [_outlier(entry, places) for entry in ranking[:OUTLIERS]],
        "outlier_hint": _outlier_hint(ranking, len(stripped)),
        "clip_hints": _clip_hints(facts, listed, len(drawn)),
        "settings": _settings(found),
        "made": [_shown_made(one) for one in made(found)],
        "data": _table(found, ranking, listed, stripped),
    }


def count(number: int, what: str = "clip") -> str:
    """Return a number with its noun, such as ``1 clip`` or ``2,281 clips``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _lead(found: Extraction) -> str:
    stages = ", ".join(found.plan.stages) or "no stage"
    stored = stored_recipe(found.folder) or {"recipe": {}}
    origin = stored["recipe"].get("imported")
    source = f" Imported from {escaped(str(origin.get('file')))}." if isinstance(origin, dict) else ""
    return f"{count(len(found.manifest.clips))}, stages {stages}.{source}"


def _tiles(found: Extraction, facts: Sequence[ClipFacts], ranking: Ranking) -> list[dict[str, Any]]:
    plans = found.plan.stages.values()
    failed = {clip for plan in plans for clip in plan.failed}
    noted = {clip for plan in plans for clip in plan.notes}
    seconds = sum(one.seconds for one in facts if not math.isnan(one.seconds))
    complete = sum(set(one.states) <= {"d"} for one in facts) if found.plan.stages else 0
    length = f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
    tiles = [
        ("clips", f"{len(facts):,}", False),
        ("length", length if seconds else "–", False),
        ("with all stages", f"{complete:,}", False),
        ("failed in a stage", f"{len(failed):,}", bool(failed)),
        ("with notes", f"{len(noted):,}", False),
        ("outliers", f"{len(ranking):,}", False),
    ]
    return [{"name": name, "value": value, "alert": alert} for name, value, alert in tiles]


def _remarks(found: Extraction) -> list[str]:
    """Return what a reader must know before all else."""
    remarks = []
    if found.damaged:
        remarks.append(
            f"{count(len(found.damaged), 'shard')} damaged; the clips in them count as missing, and the next "
            f"`triptych extract` makes them again: {escaped('; '.join(found.damaged[:3]))}"
        )
    if found.vanished:
        remarks.append(
            f"{count(len(found.vanished))} with features are not in the manifest any more and not in this report"
        )
    if foreign := foreign_stages(found.folder):
        remarks.append(f"stages that are not installed, so not shown: {escaped(', '.join(foreign))}")
    return remarks


def _shown_group(group: Group) -> dict[str, Any]:
    clips = [
        {"id": escaped(clip), "stages": ", ".join(stages), "detail": escaped(detail)}
        for clip, (stages, detail) in group.clips.items()
    ]
    return {
        "kind": group.kind,
        "title": escaped(group.title),
        "remedy": group.remedy,
        "clips": clips,
        "count": group.count,
    }


def _histograms(facts: Sequence[ClipFacts]) -> list[Histogram]:
    def rows(number: int) -> float:
        return float(number) if number >= 0 else math.nan

    drawn = [
        histogram("clip length", "s", (one.seconds for one in facts)),
        histogram("rows with a face", "%", (one.valid for one in facts), share=True),
        histogram("mean confidence of face rows", "", (one.confidence for one in facts), share=True),
        histogram("voiced share of audio rows", "%", (one.voiced for one in facts), share=True),
        histogram("tokens", "", (rows(one.tokens) for one in facts)),
        histogram("audio rows", "", (rows(one.audio_rows) for one in facts)),
        histogram("vision rows", "", (rows(one.vision_rows) for one in facts)),
    ]
    return [one for one in drawn if one is not None]


def _labels(manifest: Manifest) -> dict[str, Any] | None:
    """Return the label histograms and D_ij of the labels scaled to -1 to 1; None without labels."""
    if not manifest.has_labels:
        return None
    low, high = manifest.label_range
    labels = label_array(manifest.clips)
    annotations = []
    for (task, about), column in zip(TASKS.items(), labels.T, strict=True):
        known = [float(label) for label in column if not math.isnan(label)]
        if known:
            mean = sum(known) / len(known)
            counts = label_bins(known, low, high)
            annotations.append(
                {"name": task, "about": about, "counts": counts, "mean": mean, "count": len(known)}
            )
    differences = disagreement(labels) * (2 / (high - low)) ** 2
    largest = max((float(d) for row in differences for d in row if not math.isnan(d)), default=0.0)
    matrix = [[_cell(float(value), largest) for value in row] for row in differences]
    return {
        "low": f"{low:g}", "high": f"{high:g}", "annotations": annotations, "tasks": list(TASKS), "matrix": matrix,
    }  # fmt: skip


def _cell(value: float, largest: float) -> dict[str, Any] | None:
    if math.isnan(value):
        return None
    return {"value": value, "shade": round(3 * value / largest) if largest else 0}


def _outlier(entry: tuple[ClipFacts, tuple[Finding, ...]], places: dict[int, int]) -> dict[str, Any]:
    one, findings = entry
    return {
        "place": places[one.number],
        "id": escaped(one.clip.id),
        "score": findings[0].score,
        "texts": [finding.text for finding in findings],
    }


def _outlier_hint(ranking: Ranking, stripped: int) -> str:
    shown = (
        f"the worst {OUTLIERS} of {count(len(ranking))}; the table of clips can show all"
        if len(ranking) > OUTLIERS
        else count(len(ranking))
    )
    frames = (
        f"{count(stripped)} of this report, these first, show frames with the landmarks drawn."
        if stripped
        else "No media file with frames was found where the manifest names it, so no frames are shown."
    )
    return (
        f"{shown[0].upper()}{shown[1:]}. First the clips whose rows do not span the media file; then unusual values. "
        f"A score of 1 is the limit. Open a clip for its curves. {frames}"
    )


def _clip_hints(facts: Sequence[ClipFacts], listed: Sequence[ClipFacts], drawn: int) -> list[str]:
    hints = ["A column's title sorts; a clip's name opens its curves."]
    if len(listed) < len(facts):
        hints.append(
            f"The table lists {len(listed):,} of {count(len(facts))}: all outliers first, and an even sample of the "
            "others. Counts and distributions above cover all clips."
        )
    if drawn < len(listed):
        hints.append(
            f"{count(drawn)} of {len(listed):,} have curves here: the outliers first, then an even sample, as far as "
            "rows and the file's size allow."
        )
    return hints


def _settings(found: Extraction) -> list[tuple[str, str]]:
    """Return the settings of the folder's stages, and of the media files, as `recipe.json` records them."""
    recipe = (stored_recipe(found.folder) or {"recipe": {}})["recipe"]
    sections = ("media", "imported", *found.plan.stages)
    return [
        (escaped(f"{section}.{name}"), escaped(str(value)))
        for section in sections
        if isinstance(recipe.get(section), dict)
        for name, value in recipe[section].items()
    ]


def _shown_made(one: Made) -> dict[str, Any]:
    facts = {**one.software, **one.attributes}
    return {
        "stage": one.stage,
        "shards": one.shards,
        "first": one.first,
        "last": one.last,
        "facts": [(escaped(name), [escaped(value) for value in values]) for name, values in facts.items()],
    }


def _table(
    found: Extraction, ranking: Ranking, listed: Sequence[ClipFacts], stripped: Collection[int]
) -> dict[str, Any]:
    """Return the rows of the table of clips, and why a clip shows no curves or no frames."""
    scores = {one.number: findings[0].score for one, findings in ranking}
    stages = tuple(found.plan.stages)
    unstripped = {place: _no_frames(one) for place, one in enumerate(listed) if one.number not in stripped}
    return {
        "fields": FIELDS,
        "clips": [_row(one, scores.get(one.number), stages) for one in listed],
        "unstripped": unstripped,
        "unseried": "No curves of this clip are in the report: it has no rows with named columns and times, or the "
        "file would become too large.",
    }


def _no_frames(one: ClipFacts) -> str:
    if math.isnan(one.media.container):
        return "No frames are shown: the media file is not where the manifest names it, or states no length."
    return "No frames are shown: only some clips, the worst first, have them in this report."


def _row(one: ClipFacts, score: float | None, stages: Sequence[str]) -> list[Any]:
    clip = one.clip
    undone = [
        f"{stage} {_STATES[letter]}"
        for stage, letter in zip(stages, one.states, strict=True)
        if letter != "d"
    ]
    return [
        escaped(clip.id), clip.split or "", transcript(clip.text or ""), escaped(clip.path),
        _rounded(one.seconds, 3), _counted(one.tokens), _counted(one.audio_rows), _counted(one.vision_rows),
        _rounded(one.valid, 4), _rounded(one.confidence, 4), _rounded(one.voiced, 4), _rounded(clip.label, 4),
        _named_labels(clip), None if score is None else _rounded(score, 2), ", ".join(undone), one.states,
    ]  # fmt: skip


def transcript(text: str) -> str:
    """Return a transcript as the page shows it: as it is, unless codes in it change how other text is shown."""
    return escaped(text) if has_control(text) or not text.isprintable() else text


def _named_labels(clip: Clip) -> str:
    labels = zip(TASKS, (clip.label, clip.label_T, clip.label_A, clip.label_V), strict=True)
    return " ".join(f"{task} {label:g}" for task, label in labels if not math.isnan(label))


def _rounded(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _counted(number: int) -> int | None:
    return number if number >= 0 else None
