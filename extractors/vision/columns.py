"""Names, units and groups of OpenFace's 709 columns. No numpy."""

from __future__ import annotations

from triptych.extractors.stage import Columns

AU_NAMES = {
    "01": "inner brow raiser",
    "02": "outer brow raiser",
    "04": "brow lowerer",
    "05": "upper lid raiser",
    "06": "cheek raiser",
    "07": "lid tightener",
    "09": "nose wrinkler",
    "10": "upper lip raiser",
    "12": "lip corner puller",
    "14": "dimpler",
    "15": "lip corner depressor",
    "17": "chin raiser",
    "20": "lip stretcher",
    "23": "lip tightener",
    "25": "lips part",
    "26": "jaw drop",
    "28": "lip suck",
    "45": "blink",
}
AU_PRESENCES = tuple(AU_NAMES)
AU_INTENSITIES = tuple(unit for unit in AU_NAMES if unit != "28")  # OpenFace has no intensity of it


def _vision_groups() -> dict[str, Columns]:
    eye, face = range(56), range(68)
    return {
        "gaze": (
            *((f"gaze_{side}_{axis}", "") for side in (0, 1) for axis in "xyz"),
            *((f"gaze_angle_{axis}", "rad") for axis in "xy"),
        ),
        "eye_landmarks_2d": tuple((f"eye_lmk_{axis}_{i}", "pixel") for axis in "xy" for i in eye),
        "eye_landmarks_3d": tuple((f"eye_lmk_{axis}_{i}", "mm") for axis in "XYZ" for i in eye),
        "pose": (
            *((f"pose_T{axis}", "mm") for axis in "xyz"),
            *((f"pose_R{axis}", "rad") for axis in "xyz"),
        ),
        "landmarks_2d": tuple((f"{axis}_{i}", "pixel") for axis in "xy" for i in face),
        "landmarks_3d": tuple((f"{axis}_{i}", "mm") for axis in "XYZ" for i in face),
        "rigid_shape": (
            ("p_scale", "pixel/mm"),
            *((f"p_r{axis}", "rad") for axis in "xyz"),
            *((f"p_t{axis}", "pixel") for axis in "xy"),
        ),
        "shape": tuple((f"p_{i}", "") for i in range(34)),
        "au_intensity": tuple((f"AU{au}_r", "0 to 5") for au in AU_INTENSITIES),
        "au_presence": tuple((f"AU{au}_c", "0 or 1") for au in AU_PRESENCES),
    }


# In OpenFace 2.x's order: together they are its 714 columns without the five that describe the frame.
VISION_GROUPS: dict[str, Columns] = _vision_groups()
VISION_COLUMNS: Columns = tuple(column for group in VISION_GROUPS.values() for column in group)
