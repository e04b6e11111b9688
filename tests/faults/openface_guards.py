"""Take out the wrapper's guards against OpenFace's ways, one at a time, and show which test notices.

    python tests/faults/openface_guards.py [WORD ...]

Each line is one thing that the program does (or needs), the guard that meets it, and the test that fails in a
copy of the tree from which that guard has been taken. WORDs choose the lines that hold one of them.
Ends with status 1 if a test passes without its guard.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
SECONDS = 300


@dataclass(frozen=True)
class Guard:
    """A piece of the wrapper, what to put in its place, and the test that should then fail."""

    why: str
    module: str
    guard: str
    without: str
    test: str


CALLING = [
    Guard(
        "any one output flag switches the others off: all six are given",
        "program",
        '"-pose", "-aus", "-gaze")',
        '"-pose", "-aus")',
        "test_openface.py::test_all_714_columns_are_asked_for",
    ),
    Guard(
        'builds separate with "," or ", "',
        "table",
        "name.strip(): index",
        "name: index",
        "test_openface.py::test_both_separators_are_read",
    ),
    Guard(
        "columns are found by name, not by place",
        "table",
        "values=rows[:, [position[name] for name in NAMES]]",
        "values=rows[:, 5:714]",
        "test_openface_table.py::test_columns_are_found_by_name_whatever_their_order",
    ),
    Guard(
        "several inputs share one process and its models",
        "backend",
        "waiting = deque([self._clips] if self._clips else [])",
        "waiting = deque([clip] for clip in self._clips)",
        "test_openface.py::test_clips_of_one_call_get_their_own_rows",
    ),
    Guard(
        "images are read in the order of their names as text: zeros in front",
        "images",
        "{self.count:08d}",
        "{self.count}",
        "test_openface.py::test_images_are_read_in_the_order_of_their_numbers",
    ),
    Guard(
        "timestamps of folders are 0: the times are our own",
        "backend",
        "times=np.array(clip.times, np.float64)",
        "times=np.zeros(len(clip.times))",
        "test_openface.py::test_clips_of_one_call_get_their_own_rows",
    ),
    Guard(
        "equal names overwrite silently: each folder is numbered",
        "backend",
        "{self._count:06d}-",
        "",
        "test_openface.py::test_names_that_would_meet_in_one_file_stay_separate",
    ),
    Guard(
        "a name is cut at its dot: dots are replaced",
        "backend",
        "[^A-Za-z0-9_-]+",
        "[^A-Za-z0-9_.-]+",
        "test_openface.py::test_names_that_would_meet_in_one_file_stay_separate",
    ),
    Guard(
        "models are looked for beside argv[0]: the real absolute path",
        "program",
        "return Path(named).resolve() if",
        "return Path(named) if",
        "test_openface.py::test_the_program_is_called_by_its_real_absolute_path",
    ),
    Guard(
        "models are looked for in the working directory first: an empty one",
        "process",
        "cwd=folder,",
        "",
        "test_openface.py::test_it_runs_in_an_empty_folder",
    ),
]
FAILING = [
    Guard(
        "status 0 and no CSV: judged by the CSV",
        "backend",
        'again += self._retry_or_fail(clip, Reason.OPENFACE_SHORT, "gave no table", ending, results)',
        "pass",
        "test_openface.py::test_status_0_without_a_table_is_a_failure",
    ),
    Guard(
        "rows are counted against images",
        "backend",
        "isinstance(table, Table) and len(table) == clip.images.count",
        "isinstance(table, Table)",
        "test_openface.py::test_fewer_rows_than_images_are_no_features",
    ),
    Guard(
        "the first input that cannot be opened ends the run: the others are run again",
        "backend",
        "return [*again, unopened[1:]] if len(unopened) > 1 else again",
        "return again",
        "test_openface.py::test_many_failures_in_one_run_cost_nobody_else",
    ),
    Guard(
        "a crash loses the rest: it is run again",
        "backend",
        "(list(clips[:at]), *alone, list(clips[at + 1 :]))",
        "(list(clips[:at]), *alone)",
        "test_openface.py::test_many_failures_in_one_run_cost_nobody_else",
    ),
    Guard(
        "what failed in company has a second try, alone",
        "backend",
        "TRIES = 2",
        "TRIES = 1",
        "test_openface.py::test_a_clip_that_could_not_be_opened_is_retried_alone",
    ),
    Guard(
        "the signal is told",
        "process",
        'return f"was killed by {signal.Signals(number).name}"',
        'return "failed"',
        "test_openface.py::test_a_clip_that_crashes_it_twice_fails_with_signal_and_output",
    ),
    Guard(
        "and its last words",
        "process",
        'return " | ".join(lines[-count:]) or "no output"',
        'return "no output"',
        "test_openface.py::test_a_clip_that_crashes_it_twice_fails_with_signal_and_output",
    ),
    Guard(
        "images of about 24 pixels abort it: refused before",
        "images",
        "SMALLEST_SIDE = 32",
        "SMALLEST_SIDE = 1",
        "test_openface.py::test_a_tiny_image_is_refused_before_it_can_crash_the_run",
    ),
    Guard(
        "missing AU_predictors, detection_validation, mtcnn_detector: said before any clip",
        "program",
        "missing = [name for name in NEEDED if not (folder / name).is_dir()]",
        "missing: list[str] = []",
        "test_openface_program.py::test_what_is_wrong_is_said_before_any_clip_is_run",
    ),
    Guard(
        "it can hang: its time grows with its images, and ends",
        "program",
        "return (START_FRAMES + frames) * each",
        "return 1e6",
        "test_openface.py::test_the_time_allowed_grows_with_the_images",
    ),
    Guard(
        "its whole process group ends with its time",
        "process",
        "os.killpg(process.pid, signal.SIGKILL)",
        "process.kill()",
        "test_openface.py::test_a_clip_on_which_it_hangs_twice_is_a_timeout",
    ),
    Guard(
        "a killed run's CSV looks whole, and is not: taken only after an end by itself",
        "backend",
        "if ending.well:",
        "if True:",
        "test_openface.py::test_a_table_is_taken_only_from_a_run_that_ended_by_itself",
    ),
    Guard(
        "a fresh output folder a call",
        "backend",
        'Path(fresh, "out"), Path(fresh, "cwd")',
        'Path(beside, "out"), Path(fresh, "cwd")',
        "test_openface.py::test_every_call_has_a_fresh_output_folder",
    ),
    Guard(
        "rows without success are garbage: 0, and not valid",
        "backend",
        "valid = table.success & np.array(clip.shown)",
        "valid = np.array(clip.shown)",
        "test_openface.py::test_rows_without_success_hold_zeros_and_are_not_valid",
    ),
    Guard(
        "names never go through a shell",
        "process",
        "*arguments],",
        '"/bin/sh", "-c", "exec " + " ".join(arguments)],',
        "test_openface.py::test_no_name_goes_through_a_shell",
    ),
    Guard(
        "a crash leaves no memory image in the scratch space",
        "process",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "pass",
        "test_openface.py::test_a_crash_leaves_no_memory_image",
    ),
    Guard(
        "a killed worker leaves no program behind",
        "process",
        "ctypes.CDLL(None).prctl(1, 9)",
        "pass",
        "test_openface.py::test_a_killed_worker_leaves_no_program_and_stale_scratch_goes",
    ),
    Guard(
        "crops are removed whatever happens",
        "backend",
        "            self._clips = []\n            self._scratch.close()",
        "            self._clips = []",
        "test_openface.py::test_small_clips_lie_in_memory_and_nothing_is_left",
    ),
    Guard(
        "a program that works on nothing is no clip's failure",
        "backend",
        "if not self._first_output and (problem := probe(self.program)):",
        'if problem := "":',
        "test_openface.py::test_a_program_that_works_on_no_image_is_no_clips_failure",
    ),
]


def run_in_a_copy(tests: list[str], guard: Guard | None = None) -> tuple[int, str]:
    """Run tests in a copy of the tree, without the guard where one is given; pytest's status and last line."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "triptych")
        shutil.copytree(HOUSE, copy, ignore=shutil.ignore_patterns(".*", "triptych-demo", "__pycache__"))
        if guard:
            path = copy / "extractors" / "openface" / f"{guard.module}.py"
            text = path.read_text()
            if text.count(guard.guard) != 1:
                sys.exit(f"{path.name} holds this guard {text.count(guard.guard)} times: {guard.guard}")
            path.write_text(text.replace(guard.guard, guard.without))
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            + [f"tests/{test}" for test in dict.fromkeys(tests)],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return ran.returncode, (ran.stdout.strip().splitlines() or ["no output"])[-1]


def main() -> None:
    words = sys.argv[1:]
    guards = [each for each in CALLING + FAILING if not words or any(word in each.why for word in words)]
    status, told = run_in_a_copy([guard.test for guard in guards])
    print(f"with all guards in place: {told}", flush=True)
    if status != 0:
        sys.exit(1)
    unnoticed = 0
    for guard in guards:
        status, told = run_in_a_copy([guard.test], guard)
        # 1: tests failed; anything else would be a test that did not run.
        unnoticed += status != 1
        word = "noticed" if status == 1 else "NOT NOTICED"
        print(f"{word}: {guard.why}\n    {guard.test}\n    {told}", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
