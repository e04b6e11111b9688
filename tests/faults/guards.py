"""Mutation checks: remove one guard of the product at a time from a copy, and see whether its test fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
TESTS_FAILED = 1  # pytest's exit code; any other one means that the test did not run


@dataclass(frozen=True)
class Guard:
    """A piece of code that prevents a problem, and the test that should fail without it.

    Attributes
    ----------
    why
        The problem.
    module
        Path of the file from the root of the repository.
    guard, without
        A text that the file has exactly once; what to write instead.
    test
        Node id, from the folder of tests.
    """

    why: str
    module: str
    guard: str
    without: str
    test: str


def run_in_a_copy(tests: Sequence[str], guard: Guard | None = None) -> tuple[int, str]:
    """Run tests on a copy of the product, without the guard if one is given; pytest's exit code and last line."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "triptych")
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "triptych-demo", "build", "__pycache__")
        )
        if guard:
            path = copy / guard.module
            text = path.read_text(encoding="utf-8")
            if (count := text.count(guard.guard)) != 1:
                sys.exit(f"{guard.module} has this guard {count} times: {guard.guard}")
            path.write_text(text.replace(guard.guard, guard.without), encoding="utf-8")
        # As a wheel lays the packages out: they come before those of an editable install.
        for name in ("pipeline", "extractors"):
            shutil.copytree(copy / name, copy / "triptych" / name)
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", ""]
        ran = subprocess.run(
            command + [f"tests/{test}" for test in dict.fromkeys(tests)],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return ran.returncode, (ran.stdout.strip().splitlines() or ["no output"])[-1]


def check(guards: Sequence[Guard]) -> None:
    """Print for each guard whether its test fails without it; exit with 1 if one does not."""
    wanted = [each for each in guards if not sys.argv[1:] or any(word in each.why for word in sys.argv[1:])]
    code, last = run_in_a_copy([guard.test for guard in wanted])
    print(f"with all guards: {last}", flush=True)
    if code != 0:
        sys.exit(1)
    missed = 0
    for guard in wanted:
        code, last = run_in_a_copy([guard.test], guard)
        missed += code != TESTS_FAILED
        result = "noticed" if code == TESTS_FAILED else "NOT NOTICED"
        print(f"{result}: {guard.why}\n    {guard.test}\n    {last}", flush=True)
    sys.exit(1 if missed else 0)
