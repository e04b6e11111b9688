"""Remove the guards against OpenFace's behaviour, one at a time, and print which test notices.

    python tests/faults/openface_guards.py [WORD ...]

Each entry is one thing that the program does or needs, the guard for it, and the test that fails in a copy of the
product without the guard. WORDs select the entries that contain one of them.
Exits with 1 if a test passes without its guard.
"""

from __future__ import annotations

from guards import Guard, check

OPENFACE = "extractors/vision/openface"

CALLING = [
    Guard(
        "any one output flag switches the others off: all six are given",
        f"{OPENFACE}/program.py",
        '"-pose", "-aus", "-gaze")',
        '"-pose", "-aus")',
        "test_openface.py::test_all_714_columns_are_asked_for",
    ),
    Guard(
        'builds separate with "," or ", "',
        f"{OPENFACE}/table.py",
        "name.strip(): index",
        "name: index",
        "test_openface.py::test_both_separators_are_read",
    ),
    Guard(
        "columns are found by name, not by position",
        f"{OPENFACE}/table.py",
        "values=rows[:, [position[name] for name in NAMES]]",
        "values=rows[:, 5:714]",
        "test_openface_table.py::test_columns_are_found_by_name_whatever_their_order",
    ),
    Guard(
        "several inputs share one process and its models",
        f"{OPENFACE}/backend.py",
        "waiting = deque([self._clips] if self._clips else [])",
        "waiting = deque([clip] for clip in self._clips)",
        "test_openface.py::test_clips_of_one_call_get_their_own_rows",
    ),
    Guard(
        "images are read in the order of their names as text: zeros in front",
        f"{OPENFACE}/images.py",
        "{self.count:08d}",
        "{self.count}",
        "test_openface.py::test_images_are_read_in_the_order_of_their_numbers",
    ),
    Guard(
        "timestamps of folders are 0: the times are our own",
        f"{OPENFACE}/backend.py",
        "times=np.array(clip.times, np.float64)",
        "times=np.zeros(len(clip.times))",
        "test_openface.py::test_clips_of_one_call_get_their_own_rows",
    ),
    Guard(
        "equal names overwrite silently: each folder is numbered",
        f"{OPENFACE}/backend.py",
        "{self._count:06d}-",
        "",
        "test_openface.py::test_names_that_would_meet_in_one_file_stay_separate",
    ),
    Guard(
        "a name is cut at its dot: dots are replaced",
        f"{OPENFACE}/backend.py",
        "[^A-Za-z0-9_-]+",
        "[^A-Za-z0-9_.-]+",
        "test_openface.py::test_names_that_would_meet_in_one_file_stay_separate",
    ),
    Guard(
        "models are looked for beside argv[0]: the real absolute path",
        f"{OPENFACE}/program.py",
        "return Path(named).resolve() if",
        "return Path(named) if",
        "test_openface.py::test_the_program_is_called_by_its_real_absolute_path",
    ),
    Guard(
        "models are looked for in the working directory first: an empty one",
        f"{OPENFACE}/process.py",
        "cwd=folder,",
        "",
        "test_openface.py::test_it_runs_in_an_empty_folder",
    ),
]
FAILING = [
    Guard(
        "status 0 and no CSV: the CSV decides",
        f"{OPENFACE}/backend.py",
        'again += self._retry_or_fail(clip, Reason.OPENFACE_SHORT, "gave no table", ending, results)',
        "pass",
        "test_openface.py::test_status_0_without_a_table_is_a_failure",
    ),
    Guard(
        "rows are counted against images",
        f"{OPENFACE}/backend.py",
        "isinstance(table, Table) and len(table) == clip.images.count",
        "isinstance(table, Table)",
        "test_openface.py::test_fewer_rows_than_images_are_no_features",
    ),
    Guard(
        "the first input that cannot be opened ends the run: the others are run again",
        f"{OPENFACE}/backend.py",
        "return [*again, unopened[1:]] if len(unopened) > 1 else again",
        "return again",
        "test_openface.py::test_many_failures_in_one_run_cost_nobody_else",
    ),
    Guard(
        "a crash loses the rest: it is run again",
        f"{OPENFACE}/backend.py",
        "(list(clips[:index]), *alone, list(clips[index + 1 :]))",
        "(list(clips[:index]), *alone)",
        "test_openface.py::test_many_failures_in_one_run_cost_nobody_else",
    ),
    Guard(
        "what failed in company has a second try, alone",
        f"{OPENFACE}/backend.py",
        "TRIES = 2",
        "TRIES = 1",
        "test_openface.py::test_a_clip_that_could_not_be_opened_is_retried_alone",
    ),
    Guard(
        "the signal is reported",
        f"{OPENFACE}/process.py",
        'return f"was killed by {signal.Signals(number).name}"',
        'return "failed"',
        "test_openface.py::test_a_clip_that_crashes_it_twice_reports_the_signal",
    ),
    Guard(
        "and the last lines of its output",
        f"{OPENFACE}/process.py",
        'return " | ".join(lines[-count:]) or "no output"',
        'return "no output"',
        "test_openface.py::test_a_clip_that_crashes_it_twice_reports_the_signal",
    ),
    Guard(
        "images of about 24 pixels abort it: refused in advance",
        f"{OPENFACE}/images.py",
        "SMALLEST_SIDE = 32",
        "SMALLEST_SIDE = 1",
        "test_openface.py::test_a_tiny_image_is_refused_before_it_can_crash_the_run",
    ),
    Guard(
        "missing AU_predictors, detection_validation, mtcnn_detector: reported before any clip",
        f"{OPENFACE}/program.py",
        "missing = [name for name in NEEDED if not (folder / name).is_dir()]",
        "missing: list[str] = []",
        "test_openface_program.py::test_what_is_wrong_is_said_before_any_clip_is_run",
    ),
    Guard(
        "it can hang: its time grows with its images, and ends",
        f"{OPENFACE}/program.py",
        "return (START_FRAMES + frames) * each",
        "return 1e6",
        "test_openface.py::test_the_time_allowed_grows_with_the_images",
    ),
    Guard(
        "on a single processor it hangs: it gets a second one",
        f"{OPENFACE}/process.py",
        "if sys.argv[2]:",
        "if False:",
        "test_openface_processors.py::test_it_gets_a_second_processor_where_that_is_allowed",
    ),
    Guard(
        "its whole process group ends with its time",
        f"{OPENFACE}/process.py",
        "os.killpg(process.pid, signal.SIGKILL)",
        "process.kill()",
        "test_openface.py::test_a_clip_on_which_it_hangs_twice_is_a_timeout",
    ),
    Guard(
        "a killed run's CSV looks whole, and is not: used only if the program ended by itself",
        f"{OPENFACE}/backend.py",
        "if ending.well:",
        "if True:",
        "test_openface.py::test_a_table_is_taken_only_from_a_run_that_ended_by_itself",
    ),
    Guard(
        "a fresh output folder a call",
        f"{OPENFACE}/backend.py",
        'Path(fresh, "out"), Path(fresh, "cwd")',
        'Path(beside, "out"), Path(fresh, "cwd")',
        "test_openface.py::test_every_call_has_a_fresh_output_folder",
    ),
    Guard(
        "rows without success are garbage: 0, and not valid",
        f"{OPENFACE}/backend.py",
        "valid = table.success & np.array(clip.shown)",
        "valid = np.array(clip.shown)",
        "test_openface.py::test_rows_without_success_hold_zeros_and_are_not_valid",
    ),
    Guard(
        "names never go through a shell",
        f"{OPENFACE}/process.py",
        "*arguments],",
        '"/bin/sh", "-c", "exec " + " ".join(arguments)],',
        "test_openface.py::test_no_name_goes_through_a_shell",
    ),
    Guard(
        "a crash leaves no memory image in the scratch space",
        f"{OPENFACE}/process.py",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "pass",
        "test_openface.py::test_a_crash_leaves_no_memory_image",
    ),
    Guard(
        "a killed worker leaves no program behind",
        f"{OPENFACE}/process.py",
        "ctypes.CDLL(None).prctl(1, 9)",
        "pass",
        "test_openface.py::test_a_killed_worker_leaves_no_program_or_scratch",
    ),
    Guard(
        "crops are removed in any case",
        f"{OPENFACE}/backend.py",
        "            self._clips = []\n            self._scratch.close()",
        "            self._clips = []",
        "test_openface.py::test_small_clips_lie_in_memory_and_nothing_is_left",
    ),
    Guard(
        "a program that works on nothing is no clip's failure",
        f"{OPENFACE}/backend.py",
        "if not self._first and (problem := probe(self.program)):",
        'if problem := "":',
        "test_openface.py::test_a_program_that_works_on_no_image_is_no_clips_failure",
    ),
]


if __name__ == "__main__":
    check(CALLING + FAILING)
