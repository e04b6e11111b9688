"""MediaPipe's Face Landmarker over a video's frames: the other half of face_landmarker.py, in MediaPipe's environment.

    PYTHON tests/bench/mp_landmarker.py MODEL VIDEO POINTS.npz

Stores the points in pixels, shape (T, 478, 3), NaN without a face, and the CPU seconds of detection alone.
"""

from __future__ import annotations

import sys
import time

import av
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main(model: str, video: str, out: str) -> None:
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=model),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        num_faces=1,
    )
    points, spent, last = [], 0.0, -1
    with vision.FaceLandmarker.create_from_options(options) as landmarker, av.open(video) as container:
        for decoded in container.decode(video=0):
            image = np.ascontiguousarray(decoded.to_ndarray(format="rgb24"))
            height, width = image.shape[:2]
            last = max(last + 1, round(1000 * float(decoded.time or 0)))  # milliseconds, ascending
            before = time.process_time()
            shown = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            found = landmarker.detect_for_video(shown, last).face_landmarks
            spent += time.process_time() - before
            face = (
                [(point.x * width, point.y * height, point.z * width) for point in found[0]]
                if found
                else None
            )
            points.append(np.full((478, 3), np.nan) if face is None else np.array(face))
    np.savez(out, points=np.array(points, np.float32), spent=spent)


if __name__ == "__main__":
    main(*sys.argv[1:])
