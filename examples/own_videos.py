"""Extract features from a folder of your own videos, and print an overview of them.

    python examples/own_videos.py VIDEOS FEATURES

VIDEOS is any folder of video files; each may have a transcript with the same name and the ending .txt. This example
uses the stages that need no model from a hub: audio and faces. Add `text` if there are transcripts.
"""

from __future__ import annotations

import sys

import numpy as np

import triptych


def main(videos: str, features: str) -> None:
    """Extract two stages, list what failed and why, and print a line for each clip."""
    run = triptych.extract(videos, features, only=["audio", "faces"], progress=True)
    for stage, plan in run.plan.stages.items():
        for clip, line in plan.failed.items():
            print(f"{clip}: {stage} failed, {line.reason}: {line.detail}")
    store = triptych.open(features)
    for clip in store.complete_ids(["audio", "faces"]):
        audio, faces = store.read("audio", clip), store.read("faces", clip)
        voiced = audio.extras["voiced"]
        pitch = audio.values[voiced, audio.columns.index("log_f0")]
        hertz = np.exp(np.median(pitch)) if voiced.any() else float("nan")
        print(
            f"{clip}: {audio.times[-1]:.1f} s, voiced {voiced.mean():.0%}, median F0 {hertz:.0f} Hz, "
            f"face in {faces.valid.mean():.0%} of the frames"
        )


if __name__ == "__main__":
    main(*sys.argv[1:3])
