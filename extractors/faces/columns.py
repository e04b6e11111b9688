"""Names and units of the columns of a face track. No numpy."""

from __future__ import annotations

from triptych.extractors.stage import Columns

# Left and right are the image's, not the person's: the order in which MTCNN gives them.
FACE_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
FACE_COLUMNS: Columns = (
    *((name, "pixel") for name in ("x0", "y0", "x1", "y1")),
    ("score", "probability"),
    *((f"{point}_{axis}", "pixel") for point in FACE_POINTS for axis in "xy"),
)
