"""Write the pages that follow from the code: docs/columns.md and docs/troubleshooting.md.

    python docs/generate.py            # after a change of columns, units, reasons, remedies or exit codes

`tests/test_docs_pages.py` compares the pages with what this script gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages
from triptych.extractors.remedies import REMEDIES
from triptych.extractors.stage import Columns, Stage
from triptych.extractors.vision.columns import AU_INTENSITIES, AU_NAMES, AU_PRESENCES, VISION_GROUPS
from triptych.pipeline.cli.options import DAMAGED, FAILED, SOME_FAILED, USAGE

HERE = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py from the code. Do not edit. -->"

# Of each group of vision: its title, and its runs of columns with their meaning, in order.
VISION_TEXTS: dict[str, tuple[str, Sequence[tuple[str, str, str]]]] = {
    "gaze": (
        "Gaze",
        (
            (
                "gaze_0_x",
                "gaze_0_z",
                "direction of the eye on the image's left, a unit vector in camera coordinates",
            ),
            ("gaze_1_x", "gaze_1_z", "the same of the eye on the image's right"),
            ("gaze_angle_x", "gaze_angle_x", "both eyes together, left and right; 0 is straight ahead"),
            ("gaze_angle_y", "gaze_angle_y", "both eyes together, up and down; 0 is straight ahead"),
        ),
    ),
    "eye_landmarks_2d": (
        "Eye landmarks, 2D",
        (
            ("eye_lmk_x_0", "eye_lmk_x_55", "x of 28 points of each eye, the eye on the image's left first"),
            ("eye_lmk_y_0", "eye_lmk_y_55", "y of the same points"),
        ),
    ),
    "eye_landmarks_3d": (
        "Eye landmarks, 3D",
        (
            ("eye_lmk_X_0", "eye_lmk_X_55", "X of the same points, camera coordinates"),
            ("eye_lmk_Y_0", "eye_lmk_Y_55", "Y"),
            ("eye_lmk_Z_0", "eye_lmk_Z_55", "Z, away from the camera"),
        ),
    ),
    "pose": (
        "Head pose",
        (
            ("pose_Tx", "pose_Tz", "where the head is in camera coordinates; z is the distance"),
            ("pose_Rx", "pose_Rx", "rotation about x: nodding"),
            ("pose_Ry", "pose_Ry", "rotation about y: turning left and right"),
            ("pose_Rz", "pose_Rz", "rotation about z: tilting"),
        ),
    ),
    "landmarks_2d": (
        "Face landmarks, 2D",
        (("x_0", "x_67", "x of the 68 points"), ("y_0", "y_67", "y of the 68 points")),
    ),
    "landmarks_3d": (
        "Face landmarks, 3D",
        (
            ("X_0", "X_67", "X of the 68 points, camera coordinates"),
            ("Y_0", "Y_67", "Y"),
            ("Z_0", "Z_67", "Z, away from the camera"),
        ),
    ),
    "rigid_shape": (
        "Rigid shape parameters",
        (
            ("p_scale", "p_scale", "scale of the face's model in the image"),
            ("p_rx", "p_rz", "rotation of the model"),
            ("p_tx", "p_ty", "place of the model in the image"),
        ),
    ),
    "shape": (
        "Non-rigid shape parameters",
        (
            (
                "p_0",
                "p_33",
                "deformation of the face: coefficients of OpenFace's point distribution model; with `facemesh`, in a "
                "basis of its own",
            ),
        ),
    ),
}
VISION_NOTES = {
    "eye_landmarks_2d": "Of the 28 points of an eye, 0 to 7 are the iris, 8 to 19 the lids, and 20 to 27 the pupil.",
    "landmarks_2d": "The 68 points: 0 to 16 jaw, 17 to 26 brows, 27 to 35 nose, 36 to 47 eyes, 48 to 67 mouth. Pixels "
    "are those of the images that the backend reads: crops, or frames with `vision.input = frame`.",
}
MEANINGS: dict[str, dict[str, str]] = {
    "text": {"h_": "hidden unit of BERT's last layer"},
    "audio": {
        "log_f0": "natural logarithm of the voice's fundamental frequency; 0 where `voiced` is false",
        "zcr": "zero crossings; instead of `log_f0` with `audio.first = zcr`",
        "mfcc_": "mel-frequency cepstral coefficient, of a power spectrum in dB",
        "chroma_": "share of this pitch class in the constant-Q spectrum",
    },
    "faces": {
        "x0": "left edge of the face's box",
        "y0": "upper edge",
        "x1": "right edge",
        "y1": "lower edge",
        "score": "MTCNN's probability that the box holds a face",
        "left_eye_": "eye on the image's left",
        "right_eye_": "eye on the image's right",
        "nose_": "tip of the nose",
        "mouth_left_": "corner of the mouth on the image's left",
        "mouth_right_": "corner of the mouth on the image's right",
    },
    "speech": {"h_": "hidden unit of one layer of the audio encoder"},
    "appearance": {"e_": "component of the image's embedding"},
    "words": {
        "start": "start of the word, from the clip's start; `times` are the same",
        "end": "end of the word",
        "score": "geometric mean of the probabilities of its letters, 0 to 1; 0 where `valid` is false",
    },
    "egemaps": {
        "Loudness_": "perceived loudness, from an auditory spectrum",
        "alphaRatio_": "energy of 50 to 1000 Hz over that of 1 to 5 kHz",
        "hammarbergIndex_": "strongest peak of 0 to 2 kHz over that of 2 to 5 kHz",
        "slope0-500_": "slope of the spectrum, 0 to 500 Hz",
        "slope500-1500_": "slope of the spectrum, 500 to 1500 Hz",
        "spectralFlux_": "change of the spectrum from window to window",
        "mfcc": "mel-frequency cepstral coefficient",
        "F0semitone": "pitch; 0 where unvoiced",
        "jitterLocal_": "difference of consecutive pitch periods",
        "shimmerLocaldB_": "difference of the peaks of consecutive pitch periods",
        "HNRdBACF_": "energy of the harmonics over that of noise",
        "logRelF0-H1-H2_": "first harmonic over the second",
        "logRelF0-H1-A3_": "first harmonic over the strongest one near the third formant",
        "F1": "first formant: frequency, bandwidth, amplitude relative to F0",
        "F2": "second formant, the same",
        "F3": "third formant, the same",
    },
}
EXTRAS = {
    "tokens": "the row's token, as text",
    "input_ids": "its number in the model's vocabulary",
    "voiced": "the row has a pitch",
    "begin": "the word's first character, counted in the transcript from 0",
    "stop": "the character after its last one",
    "n_faces": "how many faces were detected",
    "confidence": "how sure the backend is of the row, 0 to 1",
}
CODES = (
    (str(0), "all done; a clip without a transcript counts as done", "Nothing to do"),
    (str(FAILED), "the command could not run", "Read the message; `triptych doctor` checks the machine"),
    (str(USAGE), "wrong usage or input", "Correct what the message lists; all problems are in one message"),
    (
        str(SOME_FAILED),
        "finished, but some clips failed; they are listed",
        "`triptych status FEATURES` lists them with remedies; then `extract --retry-failed`",
    ),
    (
        str(DAMAGED),
        "a shard is damaged",
        "`triptych verify FEATURES --repair` sets it aside, and the next `extract` makes its features again",
    ),
    ("129, 130, 143", "interrupted by SIGHUP, Ctrl-C or SIGTERM", "The same command continues from there"),
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def columns_page() -> str:
    """Write the page of all columns.

    Raises
    ------
    KeyError
        A column, a group or an array has no description here.
    """
    parts = [
        GENERATED,
        "# Columns",
        "Every column of every stage, with meaning and unit, under the default settings. A shard carries the same "
        "names and units ([the feature folder](feature-folder.md)); [stages.md](stages.md) describes how they are "
        "computed.",
        "Besides its columns, a row has `times` (seconds from the clip's start; NaN for tokens) and `valid` (usable).",
    ]
    for name, stage in stages().items():
        if name in {*MEANINGS, "vision"}:  # those of other installed packages are not described here
            parts += _stage(name, stage)
    return "\n\n".join(parts) + "\n"


def _stage(name: str, stage: Stage) -> list[str]:
    layouts = stage.columns(768)
    several = " or ".join(dict.fromkeys(str(len(layout)) for layout in layouts))
    width = "the model's width" if name in {"text", "speech", "appearance"} else several
    parts = [f"## {name}", f"A row is {stage.row}. Columns: {width}."]
    if name == "vision":
        parts += _vision()
    else:
        parts.append(table(("column", "unit", "meaning"), _described(name, layouts)))
    if stage.extras:
        rows = [(f"`{array}`", kind, EXTRAS[array]) for array, kind in stage.extras.items()]
        parts.append(table(("further array", "type", "meaning"), rows))
    return parts


def _described(name: str, layouts: Sequence[Columns]) -> list[Sequence[str]]:
    if name in {"text", "speech", "appearance"}:
        ((prefix, meaning),) = MEANINGS[name].items()
        return [(f"`{prefix}0`, `{prefix}1`, ...", "none", meaning)]
    described: dict[tuple[str, str], list[str]] = {}  # columns by prefix and unit
    for column, unit in dict.fromkeys(pair for layout in layouts for pair in layout):
        prefix = max((one for one in MEANINGS[name] if column.startswith(one)), key=len)
        described.setdefault((prefix, unit), []).append(column)
    return [
        (_listed(names), unit or "none", MEANINGS[name][prefix])
        for (prefix, unit), names in described.items()
    ]


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(f"`{name}`" for name in names)
    return f"`{names[0]}` to `{names[-1]}` ({len(names)})"


def _vision() -> list[str]:
    parts = []
    for group, columns in VISION_GROUPS.items():
        if group.startswith("au_"):
            continue
        title, runs = VISION_TEXTS[group]
        parts += [f"### {title}", table(("columns", "number", "unit", "meaning"), _runs(columns, runs))]
        if group in VISION_NOTES:
            parts.append(VISION_NOTES[group])
    rows = [
        (
            f"AU{au}",
            AU_NAMES[au],
            f"`AU{au}_r`" if au in AU_INTENSITIES else "none",
            f"`AU{au}_c`" if au in AU_PRESENCES else "none",
        )
        for au in dict.fromkeys(sorted([*AU_INTENSITIES, *AU_PRESENCES]))
    ]
    units = {group: columns[0][1] for group, columns in VISION_GROUPS.items()}
    return [
        *parts,
        "### Action units",
        f"{len(AU_INTENSITIES)} intensities, {units['au_intensity']}, then {len(AU_PRESENCES)} presences, "
        f"{units['au_presence']}, both in the order of this table.",
        table(("unit", "movement", "intensity", "presence"), rows),
    ]


def _runs(columns: Columns, runs: Sequence[tuple[str, str, str]]) -> list[Sequence[str]]:
    """Describe consecutive columns together.

    Raises
    ------
    KeyError
        The runs are not the group's columns, in order.
    """
    names, rows, at = [name for name, _ in columns], [], 0
    for first, last, meaning in runs:
        end = names.index(last) + 1
        if names[at : at + 1] != [first] or len({unit for _, unit in columns[at:end]}) != 1:
            raise KeyError(f"{first} to {last}: not a run of columns of one unit at {at}")
        title = f"`{first}`" if first == last else f"`{first}` to `{last}`"
        rows.append((title, str(end - at), columns[at][1] or "none", meaning))
        at = end
    if at != len(names):
        raise KeyError(f"no description of {names[at:]}")
    return rows


def troubleshooting_page() -> str:
    """Write the page of reasons and exit codes around the part that is written by hand."""
    reasons = [(f"`{reason}`", f"{REMEDIES[reason]}.".replace("..", ".")) for reason in Reason]
    by_hand = (HERE / "troubleshooting-first.txt").read_text(encoding="utf-8").strip()
    return (
        "\n\n".join(
            [
                GENERATED,
                "# Troubleshooting",
                by_hand,
                "## A clip failed",
                "`triptych status FEATURES` lists what failed, with the reason, the detail and the remedy; `-v` "
                "lists notes too. Its other stages are extracted. A failed clip is tried again with "
                "`--retry-failed`, or when the clip or its settings change.",
                table(("reason", "what to do"), reasons),
                "## Exit codes",
                table(("code", "meaning", "what to do"), CODES),
            ]
        )
        + "\n"
    )


PAGES = {"columns.md": columns_page, "troubleshooting.md": troubleshooting_page}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (HERE / page).write_text(write(), encoding="utf-8")
