"""Compare the CPU time of all four stages with that of a plain implementation, clip by clip.

    python tests/bench/all_stages.py CLIPS [--limit 8] [--model BERT_FOLDER] [--ffmpeg PROGRAM]

Ours is all that a worker does for one clip, shards included. The plain implementation computes the same features with
the same libraries, called as their documentation shows: ffmpeg writes PNG and WAV files; librosa reads the sound; BERT
(transformers) is called once per sentence; facenet-pytorch's MTCNN and then the Face Landmarker's two networks process
one frame after the other; both compute the 709 columns from its points with the same code. Models are loaded before.
Both run in turns in one process with one thread; ffmpeg's CPU time is counted. By default the model is a BERT of
bert-base's size with random weights.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import torch
from bert_base import make_bert_base
from by_files import find_ffmpeg, stored_frames, write_files
from facenet_pytorch import MTCNN, extract_face
from PIL import Image
from transformers import AutoModel, AutoTokenizer
from turns import Turns, line, summary

from triptych.extractors.vision.facemesh.backend import columns
from triptych.extractors.vision.facemesh.bundle import model_file
from triptych.extractors.vision.facemesh.networks import FaceNetworks
from triptych.extractors.vision.facemesh.pose import Camera
from triptych.extractors.vision.facemesh.region import Region
from triptych.pipeline.run.extraction import prepare
from triptych.pipeline.run.group import run_group
from triptych.pipeline.run.task import GroupTask

SIDE = 224


class Plain:
    """The plain implementation, its models loaded."""

    def __init__(self, ffmpeg: str, model: str) -> None:
        self.ffmpeg = ffmpeg
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.bert = AutoModel.from_pretrained(model).eval()
        self.mtcnn = MTCNN(image_size=SIDE, margin=0)
        self.networks = FaceNetworks(model_file())

    def extract(self, clip: Path, text: str, folder: Path) -> None:
        write_files(self.ffmpeg, clip, folder)
        with torch.no_grad():
            self.bert(**self.tokenizer(text, return_tensors="pt"))
        sound, rate = librosa.load(folder / "sound.wav", sr=22050)
        librosa.pyin(sound, fmin=60, fmax=500, sr=rate)
        librosa.feature.mfcc(y=sound, sr=rate)
        librosa.feature.chroma_cqt(y=sound, sr=rate)
        meshes, shapes = [], []
        whole = Region(SIDE / 2, SIDE / 2, 1.2 * SIDE, 0.0)  # about the crop, upright
        for pixels in stored_frames(folder):
            frame = Image.fromarray(pixels)
            boxes, _, _ = self.mtcnn.detect(frame, landmarks=True)
            if boxes is None:
                continue
            face = extract_face(frame, boxes[0], SIDE).permute(1, 2, 0).byte().numpy()
            points, presence = self.networks.landmarks(whole.cut(np.ascontiguousarray(face)))
            if presence >= 0.5:
                meshes.append(whole.place(points).astype(np.float32))
                shapes.append(self.networks.blendshapes(meshes[-1]))
        if meshes:
            mesh = np.stack(meshes)
            columns(mesh, mesh, np.stack(shapes), Camera.of_image(SIDE, SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--limit", type=int, help="so many clips, evenly from among them all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", help="a BERT-like model's folder")
    parser.add_argument("--ffmpeg", help="the program; by default PATH's, or imageio-ffmpeg's")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    ffmpeg = find_ffmpeg(arguments.ffmpeg)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model or str(folder / "bert")
        if arguments.model is None:
            make_bert_base(folder / "bert")
        chosen = [f"text.model={model}", "vision.backend=facemesh"]
        extraction = prepare(arguments.clips, folder / "features", assignments=chosen)
        every = extraction.plan.work
        step = max(1, len(every) // (arguments.limit or len(every)))
        work = every[::step][: arguments.limit]
        plain, made = Plain(ffmpeg, model), folder / "made"
        for stage in extraction.fingerprints:
            (made / stage).mkdir(parents=True)
        task = GroupTask(made, extraction.recipe, extraction.fingerprints, work, 512 * 2**20)

        def ours(item) -> None:
            run_group(replace(task, clips=(item,)), lambda event: None)

        ours(work[0])  # models, compiled kernels
        costs = []
        for item in work:
            turns = Turns()
            for _ in range(arguments.rounds):
                turns.take(
                    lambda item=item: ours(item),
                    lambda item=item: plain.extract(item.clip.file, item.clip.text or "。", folder / "files"),
                    ours_a_round=2,
                )
            costs.append(turns.medians())
            print(f"{line(*costs[-1])}  {item.clip.id}", flush=True)
    print(f"pipeline: {summary(costs)}")


if __name__ == "__main__":
    main()
