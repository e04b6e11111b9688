"""What `extract`, its dry run and `status` print about a feature folder: tables, or one JSON document."""

from __future__ import annotations

import json
from typing import Any

import click

from triptych.pipeline.run.extraction import Extraction
from triptych.pipeline.run.plan import StagePlan, Why
from triptych.pipeline.stages.recipe import foreign_stages
from triptych.pipeline.terminal.tables import print_table

NAMED_AT_MOST = 5  # absent clips that are named below a table; JSON names all


def print_dry_run(todo: Extraction, as_json: bool) -> None:
    """Print how many clips each stage would process, and why."""
    counts = {
        name: {str(why): list(plan.todo.values()).count(why) for why in Why}
        for name, plan in todo.plan.stages.items()
    }
    if as_json:
        _print_json(
            {name: {"to do": counts[name], **_tally(plan)} for name, plan in todo.plan.stages.items()}
        )
        return
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
        _print_json({"features": str(result.folder), "stages": stages, **_exceptions(result)})
        return
    print_table(
        ("stage", "extracted", "done", "absent", "failed", "missing"),
        [(name, *counts.values()) for name, counts in stages.items()],
    )
    _print_exceptions(result)
    if not todo.plan.work:
        again = (
            " except failed ones; --retry-failed tries those again" if _exceptions(result)["failures"] else ""
        )
        click.echo(f"nothing to do: all features are there{again}")


def print_status(found: Extraction, as_json: bool) -> None:
    """Print which features of a folder are done, missing and failed."""
    stages = {
        name: {**_tally(plan), "missing": len(plan.todo), "fingerprint": found.fingerprints[name]}
        for name, plan in found.plan.stages.items()
    }
    foreign = foreign_stages(found.folder)
    if as_json:
        document = {"clips": len(found.manifest.clips), "stages": stages, **_exceptions(found)}
        _print_json({**document, "not_installed": list(foreign)})
        return
    click.echo(f"{len(found.manifest.clips)} clips in {found.folder}")
    print_table(
        ("stage", "done", "absent", "failed", "missing", "fingerprint"),
        [(name, *list(row.values())[:-1], str(row["fingerprint"])[:8]) for name, row in stages.items()],
    )
    for name in foreign:
        click.echo(
            f"stage {name} is not installed; its features stay in the folder. Install its package to use them"
        )
    _print_exceptions(found)


def _tally(plan: StagePlan) -> dict[str, int]:
    return {"done": len(plan.done), "absent": len(plan.absent), "failed": len(plan.failed)}


def _exceptions(extraction: Extraction) -> dict[str, Any]:
    stages = extraction.plan.stages
    return {
        "failures": [
            {"clip": clip, "stage": stage, "reason": line.reason, "detail": line.detail}
            for stage, plan in stages.items()
            for clip, line in plan.failed.items()
        ],
        "absent": {stage: plan.absent for stage, plan in stages.items() if plan.absent},
        "damaged": list(extraction.damaged),
    }


def _print_exceptions(extraction: Extraction) -> None:
    exceptions = _exceptions(extraction)
    for stage, clips in exceptions["absent"].items():
        more = f" and {len(clips) - NAMED_AT_MOST} more" if len(clips) > NAMED_AT_MOST else ""
        click.echo(f"no transcript, so no {stage}: {', '.join(clips[:NAMED_AT_MOST])}{more}")
    if exceptions["failures"]:
        click.echo()
        print_table(
            ("failed clip", "stage", "reason", "detail"),
            [tuple(failure.values()) for failure in exceptions["failures"]],
        )
    for shard in exceptions["damaged"]:
        click.echo(f"damaged: {shard}")


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))
