"""Processes that are interrupted, killed, stopped or out of memory, and disks that are full."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_engine import group
from test_extraction import extract
from test_kill import alive, descendants
from test_storage import assert_equal, undisturbed  # noqa: F401 - a fixture

from triptych.extractors.base import ExtractionError, Reason
from triptych.pipeline.cli.main import INTERRUPTED
from triptych.pipeline.processes import memory
from triptych.pipeline.processes.signals import SIGNALS
from triptych.pipeline.run import local_engine as engine
from triptych.pipeline.run.events import StageStarted
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.run.reasons import as_error
from triptych.pipeline.run.recovery import WorkersDiedError, time_limit
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.storage.ledger import LedgerLine

SECONDS_TO_END = 2.0


def command(clips: Path, features: Path, *more: str) -> list[str]:
    words = ["extract", str(clips), "-o", str(features), "--only", "audio", "-j", "2", "--group-size", "1"]
    return [sys.executable, "-m", "triptych.pipeline", *words, *more]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[str], number: signal.Signals, whole_group: bool) -> str:
    """Send a signal; check that it ends the run and its processes in time. What the run printed on stderr."""
    started = descendants(process.pid)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    sent = time.monotonic()
    while alive(started | {process.pid}):
        assert time.monotonic() < sent + SECONDS_TO_END, "it or its children are still running"
        time.sleep(0.02)
    _, printed = process.communicate(timeout=10)
    return printed


def without_progress(printed: str) -> str:
    return "\n".join(
        line for line in printed.splitlines() if " failed" not in line and "clips to" not in line
    )


def assert_one_line(printed: str) -> None:
    assert without_progress(printed) == INTERRUPTED


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


# -- signals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [
        (signal.SIGINT, True, 130),  # as a terminal does
        (signal.SIGTERM, False, 143),
        (signal.SIGHUP, True, 129),
    ],
)
def test_a_signal_ends_a_run_with_one_line(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
    number: signal.Signals,
    whole_group: bool,
    code: int,
) -> None:
    features = tmp_path / "features"
    process = start(command(few_clips, features))
    # A tracker of semaphores and two workers, of which one may still be importing.
    wait_for(lambda: len(descendants(process.pid)) >= 3, process)
    printed = interrupt(process, number, whole_group)
    assert process.returncode == code
    assert_one_line(printed)
    extract(few_clips, features, only=["audio"])
    assert_equal(features, undisturbed)


@pytest.mark.long_faults
def test_signals_at_random_moments(few_clips: Path, undisturbed: Path, tmp_path: Path) -> None:  # noqa: F811
    features, draw = tmp_path / "features", random.Random(5)
    for _ in range(20):
        number = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process = start(command(few_clips, features))
        wait_for((features / "recipe.json").exists, process)
        try:
            process.wait(draw.uniform(0, 8))
        except subprocess.TimeoutExpired:
            printed = interrupt(process, number, draw.random() < 0.5)
            if process.returncode != 0:  # it may just have finished
                assert process.returncode == 128 + number
                assert_one_line(printed)
        process.communicate()
        extract(few_clips, features, only=["audio"])
        assert_equal(features, undisturbed)
        shutil.rmtree(features)


def test_an_ignored_hangup_stays_ignored() -> None:
    script = (
        "import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from triptych.pipeline.processes.signals import end_on_signals\n"
        "end_on_signals('x'); os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "goes on\n"


BLOCKED = """
import os, psutil
from pathlib import Path
from triptych.pipeline.processes.pool import worker_pool
from triptych.pipeline.processes.signals import terminal_signals_blocked

def nothing(): ...

def unreachable(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(fields["SigBlk"], 16) | int(fields["SigIgn"], 16)) & 0b11  # SIGHUP and SIGINT

with worker_pool(2, nothing) as pool:
    with terminal_signals_blocked():
        pool.submit(nothing)
    print([unreachable(each.pid) for each in psutil.Process().children()])
"""


def test_a_terminals_signals_reach_no_process_of_the_pool() -> None:
    """A tracker that a hangup ends prints a warning, and a worker that a Ctrl-C ends while it starts a traceback."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[3, 3, 3, 3]\n", "")


STUCK = """
import os, signal, time
from triptych.pipeline.processes.signals import end_if_interrupted, end_on_signals

class Stuck:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)  # an exit that is raised here is not carried out
        time.sleep(0.01)

end_on_signals("interrupted")
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
stuck = Stuck()
del stuck
time.sleep(600)
"""


def test_a_signal_in_a_destructor_ends_the_process_too() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    deadline = time.monotonic() + SECONDS_TO_END
    while alive({int(done.stdout)}):
        assert time.monotonic() < deadline


POOL = """
import os, time
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.processes.pool import worker_pool

with worker_pool(2, end_with, os.getpid()) as pool:
    pool.submit(time.sleep, 600)
    workers = list(pool._processes)
    pool._work_ids.put(10**6)  # as in the race: loky's thread looks for a task that the shutdown has removed
print(*workers)
"""


def test_the_pool_ends_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    workers = {int(word) for word in done.stdout.split()}
    assert len(workers) == 2
    assert not alive(workers)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


# -- workers --------------------------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process that does what a clip's name says: `killed-N` is killed the first N times."""

    def work(task: GroupTask, progress: Path) -> list[LedgerLine]:
        import os
        import resource
        import signal
        from pathlib import Path

        from triptych.pipeline.run.events import ClipFinished, StageStarted, to_line
        from triptych.pipeline.storage.ledger import LedgerLine

        lines = []
        with progress.open("ab", buffering=0) as stream:
            for item in task.clips:
                name = item.clip.id
                stream.write(to_line(StageStarted((name,), "audio"), os.getpid()))
                counter = Path(task.folder) / name
                times = len(counter.read_bytes()) if counter.exists() else 0
                counter.write_bytes(b"x" * (times + 1))
                if name.startswith("killed") and times < int(name.partition("-")[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
                if name.startswith("large"):
                    resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))
                    bytearray(2**34)
                stream.write(to_line(ClipFinished(name, 1, 0), os.getpid()))
                lines.append(LedgerLine(name, "audio", "done", "", "", 0.0, "f", "d"))
        return lines

    monkeypatch.setattr(engine, "run_reported", work)


def results(tasks: list[GroupTask], **options: float) -> dict[str, str]:
    found = [line for lines in engine.run_groups(tasks, 2, lambda event: None, **options) for line in lines]
    assert len({line.clip_id for line in found}) == len(found)
    return {line.clip_id: line.reason for line in found}


@pytest.mark.usefixtures("worker")
def test_two_kills_give_up_no_healthy_clip(tmp_path: Path) -> None:
    tasks = [group(tmp_path, "a", "killed-2"), group(tmp_path, "b", "killed-9")]
    assert results(tasks) == {"a": "", "b": "", "killed-2": "", "killed-9": "worker_killed"}
    assert len((tmp_path / "killed-9").read_bytes()) == 3, "in a group, alone, and again"


@pytest.mark.usefixtures("worker")
def test_a_clip_that_exceeds_the_memory_limit_is_out_of_memory(tmp_path: Path) -> None:
    assert results([group(tmp_path, "a", "large", "b"), group(tmp_path, "c")]) == {
        "a": "",
        "b": "",
        "c": "",
        "large": "out_of_memory",
    }


@pytest.mark.usefixtures("worker")
def test_a_worker_killed_for_memory_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "memory.events"

    def count() -> int:  # as the kernel counts: with each kill
        kills = tmp_path / "killed-9"
        events.write_text(f"low 0\noom 3\noom_kill {len(kills.read_bytes()) if kills.exists() else 0}\n")
        return memory.oom_kills()

    monkeypatch.setattr(memory, "CGROUP", events)
    monkeypatch.setattr(engine, "oom_kills", count)
    assert results([group(tmp_path, "killed-9")]) == {"killed-9": "out_of_memory"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_errors_of_memory_have_their_reason(error: Exception) -> None:
    assert as_error(error).reason == Reason.OUT_OF_MEMORY


def test_a_full_disk_is_no_clips_failure() -> None:
    with pytest.raises(OSError, match="No space left"):
        as_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/x"))
    assert isinstance(as_error(OSError(errno.EIO, "Input/output error")), ExtractionError)


def test_the_time_limit_is_by_clip_and_its_length() -> None:
    one, many = StageStarted(("a",), "audio", 10.0), StageStarted(tuple(map(str, range(64))), "audio", 320.0)
    assert time_limit(one, None) == 600 + 30 * 10
    assert time_limit(many, None) == 600 + 30 * 320
    assert time_limit(one, 5.0) == 5
    assert time_limit(many, 5.0) == 64 * 5
    assert time_limit(many, 1800.0) == 600 + 30 * 320, "not 64 times 1,800 s"
    assert time_limit(one, 7200.0) == 7200


@pytest.mark.long_faults
def test_a_stopped_worker_is_ended_and_its_clip_run_again(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    features = tmp_path / "features"
    (tmp_path / "tmp").mkdir()
    words = command(few_clips, features, "-j", "1", "--clip-timeout", "20")
    process = start(["env", f"TMPDIR={tmp_path / 'tmp'}", *words])
    started = b"StageStarted"
    wait_for(lambda: any(started in p.read_bytes() for p in tmp_path.glob("tmp/*/progress")), process)
    (stopped,) = (pid for pid in descendants(process.pid) if b"resource_tracker" not in cmdline(pid))
    os.kill(stopped, signal.SIGSTOP)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert_equal(features, undisturbed)


def test_workers_that_never_start_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(task: GroupTask, progress: Path) -> list[LedgerLine]:
        import time

        time.sleep(600)
        return []

    monkeypatch.setattr(engine, "run_reported", stuck)
    monkeypatch.setattr(engine, "START_SECONDS", 3.0)
    with pytest.raises(WorkersDiedError, match="nothing for 3 s"):
        results([group(tmp_path, "a"), group(tmp_path, "b")])


@pytest.mark.long_faults
def test_workers_killed_at_random_fail_no_clip(few_clips: Path, undisturbed: Path, tmp_path: Path) -> None:  # noqa: F811
    features, draw = tmp_path / "features", random.Random(8)
    for _ in range(15):
        process = start(command(few_clips, features))
        wait_for((features / "recipe.json").exists, process)
        for _ in range(2):
            time.sleep(draw.uniform(1, 5))
            workers = [pid for pid in descendants(process.pid) if b"resource_tracker" not in cmdline(pid)]
            if workers:
                os.kill(draw.choice(workers), signal.SIGKILL)
        _, printed = process.communicate(timeout=120)
        if process.returncode:  # it was killed before its first clip
            assert "worker processes exit before they start a clip" in printed
            assert "Traceback" not in printed
        assert not extract(few_clips, features, only=["audio"]).plan.stages["audio"].failed
        assert_equal(features, undisturbed)
        shutil.rmtree(features)


# -- clocks and clips -----------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_loses_nothing(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Files, ledger and index of a run are in the future of the next one."""
    features, clips = tmp_path / "features", tmp_path / "clips"
    shutil.copytree(few_clips, clips)
    (victim,) = clips.glob("Raw/*/0001.mp4")
    whole = victim.read_bytes()
    victim.write_bytes(b"broken")
    assert len(extract(clips, features, only=["audio"]).plan.stages["audio"].failed) == 1
    future = time.time() + 3e7
    for file in features.rglob("*"):
        os.utime(file, (future, future))
    for file in (features / "ledger").glob("*.jsonl"):
        file.write_text(file.read_text().replace('"at": "20', '"at": "21'))
    victim.write_bytes(whole)
    os.utime(victim, (future, future))
    found = extract(clips, features, only=["audio"])
    assert not found.plan.stages["audio"].failed
    assert not extract(clips, features, only=["audio"]).plan.work
    assert_equal(features, undisturbed)


def test_a_clip_that_is_replaced_meanwhile_is_made_by_the_next_run(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    features, clips = tmp_path / "features", tmp_path / "clips"
    shutil.copytree(few_clips, clips)
    (victim, *_), other = sorted(clips.glob("Raw/*/*.mp4")), tmp_path / "other.mp4"
    whole = victim.read_bytes()
    shutil.copy(sorted(clips.glob("Raw/*/*.mp4"))[1], victim)
    todo = prepare(clips, features, only=["audio"])
    other.write_bytes(whole)
    other.replace(victim)  # after the plan, before it is read
    found = run(todo, jobs=0).plan.stages["audio"]
    assert len(found.done) == 3
    assert len(found.todo) + len(found.failed) == 1
    assert len(extract(clips, features, only=["audio"]).plan.stages["audio"].done) == 4
    assert_equal(features, undisturbed)


# -- disks ----------------------------------------------------------------------------------------------

# In a mount namespace: a small disk, a run that fills it, then a larger disk and the same run.
FULL = """
set -e
mount -t tmpfs -o size=$1 none "$2"
shift
disk=$1
shift
set +e
"$@" >"$disk.out" 2>"$disk.err"
echo $? >"$disk.code"
mount -o remount,size=1g "$disk"
"$@" >"$disk.again" 2>&1
echo $? >>"$disk.code"
cp -r "$disk" "$disk.copy"
"""


def on_a_full_disk(disk: Path, size: str, words: list[str]) -> tuple[list[int], str]:
    """Run a command whose output is on a small disk, and again with space; exit codes, and the first one's stderr."""
    disk.mkdir()
    script = ["unshare", "-rm", "bash", "-c", FULL, "bash", size, str(disk), *words]
    ran = subprocess.run(script, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"no mount namespaces here: {ran.stderr.strip()}")
    codes = [int(line) for line in Path(f"{disk}.code").read_text().split()]
    return codes, Path(f"{disk}.err").read_text()


@pytest.mark.parametrize("size", [pytest.param("8k", marks=pytest.mark.long_faults), "120k"])
def test_a_full_disk_ends_an_extraction_with_one_line(
    few_clips: Path,
    undisturbed: Path,  # noqa: F811
    tmp_path: Path,
    size: str,
) -> None:
    disk = tmp_path / "disk"
    codes, printed = on_a_full_disk(disk, size, command(few_clips, disk / "f", "-j", "1"))
    assert codes == [1, 0], printed
    error = without_progress(printed)
    assert error.startswith(f"error: {disk}/f")
    assert error.count("\n") == 0
    assert "No space left on device. Free some space there; finished work is saved" in error
    assert_equal(Path(f"{disk}.copy") / "f", undisturbed)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a read-only mount")
def test_a_read_only_output_is_one_line(few_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    script = 'mount -t tmpfs -o ro none "$1" || exit 99; shift; exec "$@"'
    words = command(few_clips, tmp_path / "f")
    ran = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script, "bash", str(tmp_path / "f"), *words],
        capture_output=True,
        text=True,
    )
    if ran.returncode == 99 or "unshare" in ran.stderr:
        pytest.skip("no mount namespaces here")
    assert ran.returncode == 1
    assert without_progress(ran.stderr) == f"error: {tmp_path}/f/text: Read-only file system"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_work_does_not_change_the_exit_code(number: int) -> None:
    code = (
        "import os, sys\n"
        "class Late:\n"  # deleted when Python has already given signals back to the system
        f"    def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, {int(number)})\n"
        "late = Late()\n"
        "from triptych.pipeline.cli.main import main\n"
        "sys.argv = ['triptych', '--version']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
