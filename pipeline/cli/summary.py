"""What `extract`, its dry run and `status` print about a feature folder: tables, or one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages as registered
from triptych.extractors.remedies import REMEDIES
from triptych.extractors.stage import Input
from triptych.pipeline.escaped import shown
from triptych.pipeline.run.extraction import Extraction, without_transcripts
from triptych.pipeline.run.plan import StagePlan, Why
from triptych.pipeline.stages.stored import foreign_stages
from triptych.pipeline.terminal.lines import print_json, print_line
from triptych.pipeline.terminal.tables import print_table

FEW = 10  # clips that are named for each reason; `status -v` and JSON name all


def print_dry_run(todo: Extraction, as_json: bool) -> None:
    """Print how many clips each stage would process, and why."""
    counts = {
        name: {str(why): list(plan.todo.values()).count(why) for why in Why}
        for name, plan in todo.plan.stages.items()
    }
    if as_json:
        print_json({name: {"to do": counts[name], **_tally(plan)} for name, plan in todo.plan.stages.items()})
        return
    _print_part(todo)
    for problem in todo.missing:
        print_line(f"warning: a run would stop: {problem}", err=True)
    print_table(
        ("stage", "to do", *map(str, Why), "done", "absent", "failed"),
        [
            (name, len(plan.todo), *counts[name].values(), *_tally(plan).values())
            for name, plan in todo.plan.stages.items()
        ],
    )


def print_result(todo: Extraction, result: Extraction, as_json: bool) -> None:
    """Print what a run made, the state afterwards, and each failure with its reason."""
    before = {name: set(plan.todo) for name, plan in todo.plan.stages.items()}
    stages = {
        name: {"made": len(before[name].intersection(plan.done)), **_tally(plan), "missing": len(plan.todo)}
        for name, plan in result.plan.stages.items()
    }
    if as_json:
        part = {"partition": str(result.partition)} if result.partition else {}
        about = {"event": "result", "features": str(result.folder), **part}
        print_json({**about, "stages": stages, **_exceptions(result)})
        return
    _print_part(result)
    print_table(
        ("stage", "extracted", "done", "absent", "failed", "missing", "notes"),
        [(name, *counts.values(), len(result.plan.stages[name].notes)) for name, counts in stages.items()],
    )
    _print_exceptions(result, FEW)
    if not todo.plan.work:
        again = (
            " except failed ones; --retry-failed tries those again" if _exceptions(result)["failures"] else ""
        )
        print_line(f"nothing to do: all features {_of_part(result)}are there{again}")


def _print_part(extraction: Extraction) -> None:
    """Print which part of the source a table is about, where it is a part."""
    if extraction.partition:
        print_line(
            f"part {extraction.partition}: {len(extraction.clips or ())} of "
            f"{_clips(len(extraction.given.clips))}; the table is about these"
        )


def _of_part(extraction: Extraction) -> str:
    return f"of part {extraction.partition} " if extraction.partition else ""


def print_failed(result: Extraction) -> None:
    """Print on stderr how many clips failed, and for which reasons: all that a quiet run prints of its result."""
    failures = _exceptions(result)["failures"]
    if not failures:
        return
    reasons = ", ".join(f"{reason} {len(clips)}" for reason, clips in _by_reason(failures).items())
    count = _clips(len({failure["clip"] for failure in failures}))
    print_line(f"error: {count} failed ({reasons}); `triptych status {result.folder}` names them", err=True)


def print_status(found: Extraction, as_json: bool, verbose: bool) -> None:
    """Print which features of a folder are done, missing and failed; if verbose, every clip that is named."""
    stages = {
        name: {**_tally(plan), "missing": len(plan.todo), "fingerprint": found.fingerprints[name]}
        for name, plan in found.plan.stages.items()
    }
    foreign = foreign_stages(found.folder)
    if as_json:
        document = {"clips": len(found.manifest.clips), "stages": stages, **_exceptions(found)}
        print_json({**document, "not_installed": list(foreign)})
        return
    print_line(f"{len(found.manifest.clips)} clips in {found.folder}")
    print_table(
        ("stage", "done", "absent", "failed", "missing", "notes", "fingerprint"),
        [
            (
                name,
                *list(row.values())[:-1],
                len(found.plan.stages[name].notes),
                str(row["fingerprint"])[:8],
            )
            for name, row in stages.items()
        ],
    )
    for name in foreign:
        print_line(
            f"stage {name} is not installed; its features stay in the folder. Install its package to use them"
        )
    _print_exceptions(found, None if verbose else FEW)
    if verbose:
        _print_notes(found)


def _tally(plan: StagePlan) -> dict[str, int]:
    return {"done": len(plan.done), "absent": len(plan.absent), "failed": len(plan.failed)}


def _exceptions(extraction: Extraction) -> dict[str, Any]:
    stages = extraction.plan.stages
    failures = [
        {"clip": clip, "stage": stage, "reason": line.reason, "detail": line.detail}
        for stage, plan in stages.items()
        for clip, line in plan.failed.items()
    ]
    return {
        "failures": failures,
        "remedies": {
            reason: REMEDIES[Reason(reason)]
            for reason in sorted({failure["reason"] for failure in failures} & set(Reason))
        },
        "absent": {stage: plan.absent for stage, plan in stages.items() if plan.absent},
        "notes": [
            {"clip": clip, "stage": stage, "note": note}
            for stage, plan in stages.items()
            for clip, note in plan.notes.items()
        ],
        "damaged": list(extraction.damaged),
        "moved": dict(extraction.moved),
        "vanished": list(extraction.vanished),
    }


def _print_exceptions(extraction: Extraction, at_most: int | None) -> None:
    exceptions = _exceptions(extraction)
    for stage, clips in exceptions["absent"].items():
        if without_transcripts(stage, extraction.manifest):
            print_line(f"no clip has a transcript: {stage} is skipped")
            continue
        missing = "transcript" if Input.TEXT in registered()[stage].reads else "frames"
        print_line(f"no {missing}, so no {stage}: {_named(clips, at_most)}{_more(len(clips), at_most)}")
    for reason, failures in _by_reason(exceptions["failures"]).items():
        print_line()
        remedy = exceptions["remedies"].get(reason)
        print_line(f"{reason}: {_clips(len(failures))} failed.{f' {remedy}.' if remedy else ''}")
        print_table(("clip", "stages", "detail"), failures[:at_most])
        if more := _more(len(failures), at_most):
            print_line(f"{more.strip()}: `triptych status -v {extraction.folder}`")
    for shard in exceptions["damaged"]:
        print_line(f"damaged: {shard}")
    if moved := [f"{path} is {clip}" for clip, path in extraction.moved.items()]:
        print_line(
            f"{_clips(len(moved))} moved or renamed; their features stay valid: "
            f"{_named(moved, at_most)}{_more(len(moved), at_most)}"
        )
    if gone := extraction.vanished:
        print_line(
            f"{_clips(len(gone))} no longer in the source, left out of the data set: {_named(gone, at_most)}"
            f"{_more(len(gone), at_most)}. `triptych prune {extraction.folder}` removes their features"
        )
    noted = {note["clip"] for note in exceptions["notes"]}
    if noted and at_most is not None:
        print_line(f"{_clips(len(noted))} with notes: `triptych status -v {extraction.folder}` lists them")


def _print_notes(extraction: Extraction) -> None:
    """Print one line for each clip and note, with the stages that have it."""
    stages: dict[tuple[str, str], list[str]] = {}
    for entry in _exceptions(extraction)["notes"]:
        stages.setdefault((entry["clip"], entry["note"]), []).append(entry["stage"])
    if stages:
        print_line()
        rows = [(clip, ", ".join(names), note) for (clip, note), names in sorted(stages.items())]
        print_table(("clip", "stages", "note"), rows)


def _by_reason(failures: Sequence[dict[str, str]]) -> dict[str, list[tuple[str, str, str]]]:
    """Group failures by reason, the most frequent first; one row for each clip, with its stages."""
    groups: dict[str, dict[str, list[dict[str, str]]]] = {}
    for failure in failures:
        groups.setdefault(failure["reason"], {}).setdefault(failure["clip"], []).append(failure)
    return {
        reason: [
            (clip, ", ".join(one["stage"] for one in of_clip), of_clip[0]["detail"])
            for clip, of_clip in clips.items()
        ]
        for reason, clips in sorted(groups.items(), key=lambda group: -len(group[1]))
    }


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def _named(names: Sequence[str], at_most: int | None) -> str:
    return ", ".join(map(shown, names[:at_most]))


def _more(count: int, at_most: int | None) -> str:
    return f" and {count - at_most} more" if at_most is not None and count > at_most else ""
