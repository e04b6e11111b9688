"""Dask clusters whose workers or scheduler are killed, stopped, cut off, or see another folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_processes import Cluster, assert_complete, many_clips, wait_until
from test_kill import descendants

from triptych.pipeline.errors import InputError
from triptych.pipeline.run import dask_cluster, dask_engine, dask_members
from triptych.pipeline.run.extraction import Extraction, prepare, run
from triptych.pipeline.run.recovery import WorkersDiedError

pytest.importorskip("distributed")
pytestmark = pytest.mark.long_faults

CLIPS = 40


@pytest.fixture(scope="module")
def clips(few_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_clips(few_clips, tmp_path_factory.mktemp("cluster") / "clips", CLIPS)


@pytest.fixture(scope="module")
def local(clips: Path) -> Path:
    """The features of a run on this machine."""
    run(prepare(clips, clips.parent / "local", only=["audio"]), jobs=0, group_size=1)
    return clips.parent / "local"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    started = Cluster(tmp_path / "cluster")
    yield started
    started.close()


class Running:
    """A run in a thread, which a test disturbs in the meantime."""

    def __init__(self, clips: Path, features: Path, cluster: Cluster) -> None:
        self.features, self._error = features, None
        self.result: Extraction | None = None
        self._thread = threading.Thread(target=self._run, args=(clips, cluster.address), daemon=True)
        self._thread.start()

    def _run(self, clips: Path, address: str) -> None:
        try:
            todo = prepare(clips, self.features, only=["audio"])
            self.result = run(todo, jobs=0, scheduler=address, group_size=1)
        except BaseException as error:
            self._error = error

    def wait_for_shards(self, count: int) -> None:
        wait_until(lambda: self._error or len(list((self.features / "audio").glob("*.h5"))) >= count)

    def end(self, seconds: float = 300) -> Extraction:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the run hangs"
        if self._error:
            raise self._error
        assert self.result is not None
        return self.result

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()


def start(
    clips: Path, tmp_path: Path, cluster: Cluster, workers: int = 3
) -> tuple[Running, list[subprocess.Popen]]:
    started = [cluster.worker() for _ in range(workers)]
    cluster.wait_for(workers)
    return Running(clips, tmp_path / "features", cluster), started


def assert_done(running: Running, clips: Path, local: Path) -> None:
    plan = running.end().plan.stages["audio"]
    assert (len(plan.done), len(plan.failed), len(plan.todo)) == (CLIPS, 0, 0)
    assert assert_complete(running.features, clips, local) == 0, "a clip is in two shards"
    assert not list(running.features.glob("*.token"))


@pytest.mark.parametrize("at", [1, 10])
def test_a_killed_worker_loses_nothing(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster, at: int
) -> None:
    running, workers = start(clips, tmp_path, cluster)
    running.wait_for_shards(at)
    workers[0].kill()
    assert not running.ended
    assert_done(running, clips, local)


def test_a_worker_whose_nanny_restarts_it_loses_nothing(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster
) -> None:
    nanny = cluster.worker("--nanny")
    cluster.worker()
    cluster.wait_for(2)
    running = Running(clips, tmp_path / "features", cluster)
    running.wait_for_shards(5)
    for pid in descendants(nanny.pid):
        os.kill(pid, signal.SIGKILL)
    assert_done(running, clips, local)


def test_a_stopped_worker_is_replaced_and_may_wake_up(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(dask_engine, "INACTIVE_SECONDS", 5.0)
    monkeypatch.setattr(dask_members, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(dask_engine, "ANSWER_SECONDS", 3.0)
    running, workers = start(clips, tmp_path, cluster)
    running.wait_for_shards(5)
    workers[0].send_signal(signal.SIGSTOP)
    try:
        running.end()
        assert "nothing was reported for 5 s, no answer from worker tcp://" in caplog.text
    finally:
        workers[0].send_signal(signal.SIGCONT)
    time.sleep(5)  # it finishes what it had
    assert_done(running, clips, local)
    again = prepare(clips, running.features, only=["audio"])
    assert not again.plan.work


def test_a_worker_that_is_stopped_for_a_while_works_again(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster
) -> None:
    running, workers = start(clips, tmp_path, cluster)
    running.wait_for_shards(3)
    workers[1].send_signal(signal.SIGSTOP)
    time.sleep(4)
    workers[1].send_signal(signal.SIGCONT)
    assert_done(running, clips, local)


def test_a_worker_that_was_stopped_before_the_start_is_named(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(dask_cluster, "ASK_SECONDS", 8.0)
    workers = [cluster.worker() for _ in range(3)]
    cluster.wait_for(3)
    workers[2].send_signal(signal.SIGSTOP)
    running = Running(clips, tmp_path / "features", cluster)
    assert_done(running, clips, local)
    assert "no answer within 8 s from worker tcp://127.0.0.1:" in caplog.text
    assert "going on with the other 2" in caplog.text


def test_only_stopped_workers_are_an_error(
    clips: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "ASK_SECONDS", 4.0)
    worker = cluster.worker()
    cluster.wait_for(1)
    worker.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="no worker answers within 4 s"):
        Running(clips, tmp_path / "features", cluster).end()


def test_workers_that_join_and_leave_are_used(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, (first,) = start(clips, tmp_path, cluster, workers=1)
    running.wait_for_shards(3)
    cluster.worker()
    cluster.wait_for(2)
    first.send_signal(signal.SIGTERM)
    assert_done(running, clips, local)


def command(clips: Path, features: Path, address: str) -> list[str]:
    words = ["extract", str(clips), "-o", str(features), "--only", "audio", "--group-size", "1"]
    return [sys.executable, "-m", "triptych.pipeline", *words, "--scheduler", address]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_lost_scheduler_ends_the_run_with_one_line(
    clips: Path, local: Path, tmp_path: Path, cluster: Cluster, number: signal.Signals
) -> None:
    """And the same command, with another scheduler, continues."""
    for _ in range(2):
        cluster.worker()
    cluster.wait_for(2)
    features = tmp_path / "features"
    process = subprocess.Popen(
        command(clips, features, cluster.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list((features / "audio").glob("*.h5"))) >= 3)
    cluster.scheduler.send_signal(number)
    out, err = process.communicate(timeout=150)
    lines = [line for line in err.splitlines() if " failed" not in line and "clips to" not in line]
    assert process.returncode == 1, err
    assert len(lines) == 2, err
    assert lines[0] == f"2 workers at {cluster.address}"
    assert lines[1].startswith(
        f"error: --scheduler {cluster.address}: it does not answer any more. Finished groups"
    )
    assert not out
    saved = len(list((features / "audio").glob("*.h5")))
    assert saved >= 3
    cluster.close()
    again = Cluster(tmp_path / "again")
    try:
        again.worker()
        again.wait_for(1)
        done = subprocess.run(command(clips, features, again.address), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        again.close()
    assert assert_complete(features, clips, local) == 0


def test_a_scheduler_that_was_never_there_is_one_line(clips: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(clips, tmp_path / "features", "tcp://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in done.stderr.splitlines() if "clips to" not in line]
    assert done.returncode == 2
    assert len(lines) == 1
    assert "cannot connect" in lines[0]
    assert "start a scheduler with `dask scheduler`" in lines[0]


def test_lost_workers_end_the_run_with_one_line(
    clips: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_members, "CONNECT_SECONDS", 6.0)
    running, workers = start(clips, tmp_path, cluster, workers=2)
    running.wait_for_shards(3)
    for worker in workers:
        worker.kill()
    with pytest.raises(WorkersDiedError, match="lost all its workers"):
        running.end()


# -- another folder at the path -------------------------------------------------------------------------


def in_a_mount_namespace(script: str, *words: str) -> tuple[str, ...]:
    return ("unshare", "-m", "bash", "-c", f'{script} && shift $0 && exec "$@"', str(len(words)), *words)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount")
def test_a_worker_with_another_folder_is_refused_by_name(
    clips: Path, tmp_path: Path, cluster: Cluster
) -> None:
    features, other = tmp_path / "features", tmp_path / "other"
    features.mkdir()
    other.mkdir()
    cluster.worker()
    cluster.wait_for(1)
    cluster.worker(prefix=in_a_mount_namespace('mount --bind "$1" "$2"', str(other), str(features)))
    try:
        cluster.wait_for(2)
    except TimeoutError:
        pytest.skip("no mount namespaces here")
    with pytest.raises(InputError) as error:
        run(prepare(clips, features, only=["audio"]), jobs=0, scheduler=cluster.address)
    (problem,) = error.value.problems
    assert problem.startswith("worker tcp://127.0.0.1:")
    assert f"has another folder at {features} than this run" in problem
    assert not list(features.rglob("*.h5"))
    assert not list(features.glob("*.token"))


# -- a worker that is cut off ---------------------------------------------------------------------------

NAMESPACE, OUTSIDE, INSIDE = "triptych-test", "triptych-o", "triptych-i"


def ip(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ip", *words], capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with a link to this one; its workers see the scheduler at 10.213.7.1."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and ip")
    if ip("netns", "add", NAMESPACE).returncode:
        pytest.skip("no network namespaces here")
    steps = [
        f"link add {OUTSIDE} type veth peer name {INSIDE} netns {NAMESPACE}",
        f"addr add 10.213.7.1/24 dev {OUTSIDE}",
        f"link set {OUTSIDE} up",
        f"-n {NAMESPACE} addr add 10.213.7.2/24 dev {INSIDE}",
        f"-n {NAMESPACE} link set {INSIDE} up",
        f"-n {NAMESPACE} link set lo up",
    ]
    try:
        if any(ip(*step.split()).returncode for step in steps):
            pytest.skip("no veth devices here")
        yield NAMESPACE
    finally:
        ip("link", "del", OUTSIDE)
        ip("netns", "del", NAMESPACE)


@pytest.mark.parametrize("seconds", [60])
def test_a_worker_that_is_cut_off_for_a_minute_loses_nothing(
    clips: Path, local: Path, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch, seconds: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(dask_engine, "INACTIVE_SECONDS", 10.0)
    cluster = Cluster(tmp_path / "cluster", host="10.213.7.1")
    try:
        cluster.worker("--host", "10.213.7.1")
        cluster.worker("--host", "10.213.7.2", prefix=("ip", "netns", "exec", namespace))
        cluster.wait_for(2)
        running = Running(clips, tmp_path / "features", cluster)
        running.wait_for_shards(4)
        ip("link", "set", OUTSIDE, "down")
        cut = time.monotonic()
        time.sleep(seconds)
        ip("link", "set", OUTSIDE, "up")
        assert_done(running, clips, local)
        print(f"cut off for {time.monotonic() - cut:.0f} s; {caplog.text}")
        time.sleep(5)  # the worker may still finish what it had
        assert assert_complete(running.features, clips, local) == 0
    finally:
        cluster.close()


# -- TLS ------------------------------------------------------------------------------------------------


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a certificate that it has signed, and another authority."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("ca", "other-ca"):
        words = ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(folder, "req", "-x509", *words, "-days", "2", "-subj", f"/CN={name}")
    words = ["-newkey", "rsa:2048", "-nodes", "-keyout", "node.key", "-out", "node.csr"]
    openssl(folder, "req", *words, "-subj", "/CN=localhost")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "node.pem", "-days", "2"]
    openssl(folder, "x509", "-req", "-in", "node.csr", *signed)
    return folder


def tls(folder: Path, authority: str = "ca.pem") -> dict[str, str]:
    prefix = "DASK_DISTRIBUTED__COMM__"
    names = {f"TLS__{role}__{part}" for role in ("SCHEDULER", "WORKER", "CLIENT") for part in ("CERT", "KEY")}
    files = {
        f"{prefix}{name}": str(folder / f"node.{'pem' if name.endswith('CERT') else 'key'}") for name in names
    }
    return {
        **files,
        f"{prefix}TLS__CA_FILE": str(folder / authority),
        f"{prefix}REQUIRE_ENCRYPTION": "True",
    }


def test_tls_from_dasks_own_configuration(
    few_clips: Path, clips: Path, tmp_path: Path, certificates: Path
) -> None:
    cluster = Cluster(tmp_path / "cluster", host="tls://127.0.0.1", **tls(certificates))
    try:
        cluster.worker()
        assert cluster.address.startswith("tls://")
        features = tmp_path / "features"
        outcomes: dict[str, Callable[[], dict[str, str]]] = {
            "no certificates": lambda: {},
            "of another authority": lambda: tls(certificates, "other-ca.pem"),
            "a missing file": lambda: tls(certificates, "missing.pem"),
            "right": lambda: tls(certificates),
        }
        ended = {
            name: subprocess.run(
                command(clips, features, cluster.address), capture_output=True, text=True,
                env={**os.environ, **environment()},
            )
            for name, environment in outcomes.items()
        }  # fmt: skip
        assert {name: done.returncode for name, done in ended.items()} == {
            "no certificates": 2,
            "of another authority": 2,
            "a missing file": 2,
            "right": 0,
        }, ended
        lines = {
            name: [line for line in done.stderr.splitlines() if "clips to" not in line]
            for name, done in ended.items()
        }
        for name in ("no certificates", "of another authority", "a missing file"):
            assert len(lines[name]) == 1, lines[name]
        assert (
            "names no certificates; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in lines["no certificates"][0]
        )
        assert "a certificate cannot be read" in lines["a missing file"][0]
        assert "certificate verify failed" in lines["of another authority"][0].lower()
        assert "1 worker at tls://" in ended["right"].stderr
    finally:
        cluster.close()
