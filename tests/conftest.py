"""Shared test data, made once for all pytest-xdist workers, and the number of workers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

from triptych.extractors.model_cache import exported
from triptych.extractors.vision.facemesh import bundle
from triptych.pipeline.processes.threads import ONE_THREAD

MOST_WORKERS = 4  # each takes up to 2 GB of memory

# As in a run's worker processes; libraries read it when they are imported. Two threads in each of two processes on two
# cores are slower, and runs in this process (`jobs=0`) give the bits of worker processes only with one thread.
os.environ.update(ONE_THREAD)

# The locale and terminal of whoever runs the tests must not decide what the command line prints.
for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)
os.environ["TERM"] = "dumb"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker per usable core; psutil, which xdist asks, counts neither hyper-threads nor a container's limit."""
    given = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(given) if given else min(MOST_WORKERS, len(os.sched_getaffinity(0)))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let tests interrupt the programs that they start, even if a shell runs the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def copy_model(data: Path, folder: Path) -> None:
    """Copy the face landmarker's model file of the test data, as `bundle.fetch` puts it into the cache."""
    shutil.copy(data / "models" / bundle.NAME, folder / bundle.NAME)


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a separate cache of exported models for this test run, shared by the processes of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRIPTYCH_CACHE", str(folder / "model-cache"))
        if data := os.environ.get("TRIPTYCH_TEST_DATA"):  # else the first test that needs it fetches it
            exported("face-landmarker", {"sha256": bundle.SHA256}, lambda new: copy_model(Path(data), new))
        yield folder / "model-cache"


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile numba's kernels in one process first: its cache on disk breaks when two processes fill it at once."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    # librosa's kernels are compiled once for an environment; our own whenever their source has changed.
    marker = Path(sys.prefix) / f".compiled-librosa-{version('librosa')}-numba-{version('numba')}"
    with FileLock(tmp_path_factory.getbasetemp().parent / "numba.lock"):
        import numpy as np

        from triptych.extractors.audio.features import Audio
        from triptych.extractors.audio.stage import AudioSettings

        noise = np.random.default_rng(0).standard_normal(22050).astype(np.float32)
        for kernels in ("fast", "librosa"):
            if kernels == "fast" or not marker.exists():
                for first in ("log_f0", "zcr"):
                    Audio(AudioSettings(first=first, kernels=kernels), 22050).extract(noise)
        marker.touch()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real clips, labels and OpenFace output, named by TRIPTYCH_TEST_DATA."""
    folder = os.environ.get("TRIPTYCH_TEST_DATA")
    if not folder:
        pytest.skip("TRIPTYCH_TEST_DATA names no folder of test data")
    path = Path(folder)
    assert path.is_dir(), f"TRIPTYCH_TEST_DATA={folder} is no folder"
    return path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder on first use; workers of one session share it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / "made-once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not folder.exists():
                unfinished = folder.with_name(f"{name}.unfinished")  # left by a worker that failed here
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return make_once


@pytest.fixture(scope="session")
def small_bert(made_once) -> Path:
    """A BERT of two layers with random weights, on disk."""
    from triptych.pipeline.demo.bert import make_bert

    texts = ["我不想嫁给李茶，你这是嫁入豪门啊！有那么明显吗？"]
    return made_once("bert", lambda folder: make_bert(folder, texts=texts))


@pytest.fixture(scope="session")
def few_clips(made_once) -> Path:
    """Four clips of the demonstration."""
    from triptych.pipeline.demo.clips import make_clips

    return made_once("few-clips", lambda folder: make_clips(folder, count=4))


@pytest.fixture(scope="session")
def demo_clips(made_once) -> Path:
    """Twelve clips of the demonstration, with their ground truth."""
    from triptych.pipeline.demo.clips import make_clips

    return made_once("demo-clips", lambda folder: make_clips(folder, count=12))


@pytest.fixture(scope="session")
def demo_features(demo_clips: Path, small_bert: Path, made_once) -> Path:
    """All four stages of `demo_clips`."""
    pytest.importorskip("ai_edge_litert")
    from triptych.pipeline.demo.run import extract_demo

    return made_once("demo-features", lambda folder: extract_demo(demo_clips, small_bert, folder, jobs=0))
