"""Where the shared test data is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let the programs that tests start be interrupted, also where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give this run a cache of exported models of its own, which the processes of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRIPTYCH_CACHE", str(folder / "model-cache"))
        yield folder / "model-cache"


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
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, on disk."""
    from triptych.pipeline.demo.bert import make_bert

    folder = tmp_path_factory.mktemp("models") / "bert"
    make_bert(folder, texts=["我不想嫁给李茶，你这是嫁入豪门啊！有那么明显吗？"])
    return folder


@pytest.fixture(scope="session")
def demo_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's 48 clips, with the truth about them."""
    from triptych.pipeline.demo.clips import make_clips

    folder = tmp_path_factory.mktemp("demo") / "clips"
    make_clips(folder)
    return folder


@pytest.fixture(scope="session")
def demo_features(demo_clips: Path, small_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four stages of the demonstration's clips."""
    pytest.importorskip("mediapipe")
    from triptych.pipeline.demo.run import extract_demo

    folder = tmp_path_factory.mktemp("demo-features") / "features"
    extract_demo(demo_clips, small_bert, folder, jobs=2)
    return folder
