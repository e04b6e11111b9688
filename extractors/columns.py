"""Names, units and groups of every column that a stage gives. No numpy: the command line reads it."""

from __future__ import annotations

# Per-row arrays beside `values`, and their HDF5 types. `str` stands for variable-length UTF-8.
EXTRAS: dict[str, dict[str, str]] = {
    "text": {"tokens": "str", "input_ids": "int32"},
    "audio": {"voiced": "bool"},
    "faces": {"n_faces": "int16"},
    "vision": {"confidence": "float32"},
}

Columns = tuple[tuple[str, str], ...]  # (name, unit)


def text_columns(width: int) -> Columns:
    """Hidden units of the language model, `h_0` onwards; they have no unit."""
    return tuple((f"h_{i}", "") for i in range(width))


PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def audio_columns(first: str = "log_f0") -> Columns:
    """The 33 audio columns: pitch (or the zero-crossing rate), 20 MFCC, 12 CQT chroma.

    Parameters
    ----------
    first
        ``"log_f0"``, as the paper (section 4.1) says, or ``"zcr"``, as its authors' code does.
    """
    unit = {"log_f0": "ln(Hz)", "zcr": "crossings per sample"}[first]
    mfcc = tuple((f"mfcc_{i}", "dB") for i in range(20))
    chroma = tuple((f"chroma_{name}", "fraction of the frame's peak") for name in PITCH_CLASSES)
    return ((first, unit), *mfcc, *chroma)


def unnamed_columns(stage: str, width: int) -> Columns:
    """Numbered columns, `audio_0` onwards, of features from a file that names none."""
    return text_columns(width) if stage == "text" else tuple((f"{stage}_{i}", "") for i in range(width))


# Left and right are the picture's, not the person's: the order in which MTCNN gives them.
FACE_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
FACE_COLUMNS: Columns = (
    *((name, "pixel") for name in ("x0", "y0", "x1", "y1")),
    ("score", "probability"),
    *((f"{point}_{axis}", "pixel") for point in FACE_POINTS for axis in "xy"),
)

AU_INTENSITIES = (
    "01",
    "02",
    "04",
    "05",
    "06",
    "07",
    "09",
    "10",
    "12",
    "14",
    "15",
    "17",
    "20",
    "23",
    "25",
    "26",
    "45",
)
AU_PRESENCES = (*AU_INTENSITIES[:-1], "28", "45")


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


# In OpenFace 2.x's own order: laid end to end they are its 714 columns less the five about the frame.
VISION_GROUPS: dict[str, Columns] = _vision_groups()
VISION_COLUMNS: Columns = tuple(column for group in VISION_GROUPS.values() for column in group)
