"""The command compact."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triptych.pipeline.cli.help import Command
from triptych.pipeline.cli.options import AS_JSON, DAMAGED, FEATURES
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.stored import STORED, stored_recipe
from triptych.pipeline.terminal.lines import print_json, print_line
from triptych.pipeline.terminal.tables import print_table

if TYPE_CHECKING:
    from triptych.pipeline.storage.compact import Compacted
    from triptych.pipeline.storage.compact_ledger import CompactedLedger


@click.command(
    cls=Command,
    examples=("triptych compact features/ --dry-run", "triptych compact features/ --size 512"),
)
@FEATURES
@click.option(
    "--size",
    type=click.IntRange(min=1),
    default=256,
    metavar="MIB",
    help="Size of a merged shard [MiB]. Shards of at least half of it stay as they are.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be merged; change nothing.")
@AS_JSON
def compact(features: Path, size: int, dry_run: bool, json: bool) -> None:
    """Merge small shards and ledger files into larger ones.

    What the store reads does not change. It is safe to interrupt: the same command continues. A program that has the
    folder open must open it again. Damaged shards are left alone; exit code 4 if there are some.
    """
    from triptych.pipeline.run.lock import only_run
    from triptych.pipeline.storage.compact import compact as merge
    from triptych.pipeline.storage.compact_ledger import compact_ledger

    if stored_recipe(features) is None:
        raise InputError(
            f"{features}: not a feature folder ({STORED} is missing). Make one with `triptych extract`"
        )
    with nullcontext() if dry_run else only_run(features, wait=False):
        stages, damaged = merge(features, size * 2**20, dry_run=dry_run)
        ledger = compact_ledger(features, dry_run=dry_run)
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "stages": {stage: asdict(one) for stage, one in stages.items()},
                "ledger": asdict(ledger),
                "damaged": [str(path.relative_to(features)) for path in damaged],
            }
        )
    else:
        _print(stages, ledger, [path.relative_to(features) for path in damaged])
    if damaged:
        sys.exit(DAMAGED)


def _print(stages: Mapping[str, Compacted], ledger: CompactedLedger, damaged: Collection[Path]) -> None:
    print_table(
        ("stage", "shards before", "shards after", "MiB before", "MiB after"),
        [
            (
                stage,
                one.shards_before,
                one.shards_after,
                one.bytes_before / 2**20,
                None if one.bytes_after is None else one.bytes_after / 2**20,
            )
            for stage, one in stages.items()
        ],
    )
    print_line(
        f"ledger: {ledger.files_before} -> {ledger.files_after} files, "
        f"{ledger.lines_before} -> {ledger.lines_after} lines"
    )
    for path in damaged:
        print_line(f"damaged, left alone: {path}")
