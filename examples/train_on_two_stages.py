"""Train on two further stages: `speech` as the audio stream and `appearance` as the vision stream.

    python examples/train_on_two_stages.py CLIPS FEATURES RUN [SECTION.NAME=VALUE ...]

CLIPS has labels and splits, as a folder in CH-SIMS layout. The models come from the hub, or from folders:
`speech.model=FOLDER appearance.model=FOLDER text.model=FOLDER`.
"""

from __future__ import annotations

import sys

import triptych

STREAMS = {"audio": "speech", "vision": "appearance"}


def main(clips: str, features: str, run: str, *settings: str) -> None:
    """Extract the three stages, train LMF on them with two seeds, and print its scores."""
    chosen = dict(setting.split("=", 1) for setting in settings)
    stages = ["text", *STREAMS.values()]
    extracted = triptych.extract(clips, features, only=stages, settings=chosen, progress=True)
    print(extracted)
    trained = triptych.train(features, "lmf", run, seeds=[1, 12], streams=STREAMS)
    print(trained)
    for task, metrics in trained.results["metrics"].items():
        print(task, {name: round(scores["mean"], 3) for name, scores in metrics.items()})
    predicted = triptych.predict(trained, features)
    print(f"{predicted[0].clip_id}: {predicted[0].values}")


if __name__ == "__main__":
    main(*sys.argv[1:])
