"""Action units from two sources: how far parts of the face moved, and the scores of the blendshapes.

After the Facial Action Coding System (Ekman and Friesen 1978). Each unit has one or several parts: the movements that
FACS describes, in millimetres on the frontal face (pose undone, the width across the eyes fixed), so that turning or
nearing the head is no movement; and the blendshapes that ARKit names after the same muscle (the public table of ARKit's
shapes and FACS's units), 0 to 1. Faces differ at rest, so that each part counts from the clip's own rest: the level
that it stays below in `REST` of the frames. A part is 5 at its anatomical reach in `PARTS`, a unit is the mean of its
parts; a blink is the larger of its two. Reaches are round numbers from anatomy; nothing is fitted to the output of
other software.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.vision.columns import AU_INTENSITIES, AU_PRESENCES
from triptych.extractors.vision.facemesh.landmarks import Points
from triptych.extractors.vision.facemesh.networks import BLENDSHAPES

REST = 0.3
"""Share of a clip's frames that are assumed to be at rest; a higher one would be wrong for lively clips."""

SHUT = 0.05
"""The same for lips and jaw (AU25, AU26): the mouth at rest is shut, which is rare in speech."""

OPEN = 0.5
"""The same for the lids (AU45): eyes are open most of the time, and narrow for other reasons than a blink."""

LID_PLAY = 0.15
"""Share of a blink by which the lids move with the gaze, without a blink."""

MIN_OPENING = 3.0
"""mm: the usual opening of eyes that are never open wider in the clip."""

PRESENT = 1.5
"""Lowest intensity of a unit that counts as present: midway from A, a trace, to B, slight, on FACS's scale."""

PARTS: Mapping[str, Mapping[str, float]] = {
    "01": {"inner brows up": 10, "browInnerUp": 1},
    "02": {"outer brows up": 14, "browOuterUp": 1},
    "04": {"browDown": 0.4},
    "05": {"eyeWide": 1},
    "06": {"cheeks up": 8, "eyeSquint": 1, "mouthSmile": 1},
    "07": {"lower lids up": 4, "eyeSquint": 0.6},
    "09": {"wings up": 10, "inner brows down": 10, "noseSneer": 0.6},
    "10": {"upper lip up": 16, "mouthUpperUp": 1},
    "12": {"lip corners up": 14, "mouthSmile": 1},
    "14": {"lip corners tight": 20, "mouthDimple": 0.6},
    "15": {"lip corners down": 14, "mouthFrown": 0.6},
    "17": {"lower lip up": 14, "mouthShrugLower": 1, "mouthPucker": 1},
    "20": {"lip corners apart": 20, "mouthStretch": 1},
    "23": {"lips tight": 14, "mouthPress": 1, "mouthRoll": 1},
    "25": {"lips apart": 12, "mouthUpperUp": 1, "mouthLowerDown": 1},
    "26": {"jaw down": 20, "jawOpen": 0.8},
    "28": {"lips in": 14, "mouthRoll": 1},
    "45": {"lids closed": 0.5, "eyeBlink": 0.8},
}
"""Each unit's parts with their reaches: movements in mm ("lids closed": a share of their opening), and beginnings of
blendshapes' names, whose mean is taken."""

# Left (in the image) and right points, pairwise.
_INNER_BROW = (107, 66, 55, 65, 336, 296, 285, 295)
_OUTER_BROW = (70, 63, 46, 53, 300, 293, 276, 283)
_CORNERS_OF_EYES = (33, 133, 362, 263)
_UPPER_LIDS = (160, 159, 158, 385, 386, 387)
_LOWER_LIDS = (144, 145, 153, 380, 374, 373)
_CHEEKS = (50, 101, 118, 280, 330, 347)
_WINGS = (129, 98, 358, 327)
_SUBNASALE = (2, 97, 326)
_NOSE_TIP = (1, 4, 5)
_NOSE_BRIDGE = (6, 197, 196, 419, 122, 351)
_LIP_CORNERS = (61, 291)
_UPPER_LIP_EDGE, _UPPER_LIP_INSIDE = (37, 0, 267), (82, 13, 312)
_LOWER_LIP_EDGE, _LOWER_LIP_INSIDE = (84, 17, 314), (87, 14, 317)
_CHIN = (152, 148, 377, 175, 199)

_WINDOW = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def movements(face: Points) -> dict[str, Points]:
    """Measure the movements of the face in every frame, up to a constant.

    Parameters
    ----------
    face
        shape (T, 478, 3), mm: the mesh in the head's axes (x right, y down).

    Returns
    -------
    dict
        For each movement an array of shape (T,), mm; "lids closed" is a share of the usual opening.
    """

    def height(*points: int) -> Points:
        raised: Points = -face[:, points, 1].mean(1)
        return raised

    # Movements are measured relative to points over bone; those of the lids relative to the eye's corners.
    lower_lids = height(*_LOWER_LIDS)
    opening = height(*_UPPER_LIDS) - lower_lids
    bridge, tip = height(*_NOSE_BRIDGE), height(*_NOSE_TIP)
    inner, wings, subnasale = height(*_INNER_BROW), height(*_WINGS), height(*_SUBNASALE)
    corners = height(*_LIP_CORNERS)
    half_width: Points = (face[:, _LIP_CORNERS[1], 0] - face[:, _LIP_CORNERS[0], 0]) / 2
    upper_edge, lower_edge = height(*_UPPER_LIP_EDGE), height(*_LOWER_LIP_EDGE)
    upper_inside, lower_inside = height(*_UPPER_LIP_INSIDE), height(*_LOWER_LIP_INSIDE)
    cheeks = height(*_CHEEKS) - bridge
    gap = upper_inside - lower_inside
    red = upper_edge - lower_edge - gap  # the visible red of both lips
    return {
        "inner brows up": inner - bridge,
        "inner brows down": bridge - inner,
        "outer brows up": height(*_OUTER_BROW) - bridge,
        "lower lids up": lower_lids - height(*_CORNERS_OF_EYES),
        "cheeks up": cheeks,
        "wings up": wings - tip,
        # The muscle also lifts the wings of the nose, and half as far the cheeks.
        "upper lip up": upper_edge - subnasale + wings - tip + cheeks / 2,
        "lip corners up": corners - tip,
        "lip corners down": upper_inside - corners,  # against the lip, which an open mouth takes along
        "lip corners tight": half_width - red / 2,
        "lip corners apart": half_width,
        "lower lip up": lower_inside - corners,
        "lips tight": -red - gap,
        "lips in": -red - half_width,
        "lips apart": gap,
        "jaw down": subnasale - height(*_CHIN),
        "lids closed": -opening / max(float(np.median(opening)), MIN_OPENING),
    }


def shapes(blendshapes: NDArray[np.float32]) -> dict[str, Points]:
    """Return the blendshapes that `PARTS` names, each the mean of both sides, shape (T,), from scores (T, 52)."""
    result = {}
    for name in {part for parts in PARTS.values() for part in parts}:
        if columns := [index for index, full in enumerate(BLENDSHAPES) if full.startswith(name)]:
            result[name] = blendshapes[:, columns].astype(np.float64).mean(1)
    return result


def _steadied(part: Points) -> Points:
    """Smooth a part over five rows: an action lasts longer than one, the points' jitter does not."""
    steady: Points = np.convolve(np.pad(part, 2, mode="edge"), _WINDOW, mode="valid")
    return steady


def _strength(unit: str, part: Points, reach: float) -> Points:
    """Compute one part's contribution, 0 to 5."""
    if unit == "45":  # a blink may last three rows: it is not smoothed
        above = (part - np.quantile(part, OPEN)) / reach - LID_PLAY
    else:
        steady = _steadied(part)
        above = (steady - np.quantile(steady, SHUT if unit in ("25", "26") else REST)) / reach
    strength: Points = 5.0 * np.clip(above, 0.0, 1.0)
    return strength


def intensities(moved: Mapping[str, Points], shaped: Mapping[str, Points]) -> dict[str, Points]:
    """Compute the intensity of every unit, 0 to 5, relative to its own rest in the clip; shape (T,) each."""
    measured = {**moved, **shaped}
    result = {}
    for unit, parts in PARTS.items():
        strengths = [_strength(unit, measured[part], reach) for part, reach in parts.items()]
        result[unit] = np.max(strengths, axis=0) if unit == "45" else np.mean(strengths, axis=0)
    return result


def action_units(face: Points, blendshapes: NDArray[np.float32]) -> tuple[Points, Points]:
    """Compute the intensities and presences of the units in a clip's frames.

    Parameters
    ----------
    face
        shape (T, 478, 3), mm: the mesh in the head's axes.
    blendshapes
        shape (T, 52): the scores of the same frames, in the order of `BLENDSHAPES`.

    Returns
    -------
    tuple of Points
        `AU_INTENSITIES` (0 to 5), shape (T, 17), and `AU_PRESENCES` (0 or 1), shape (T, 18).
    """
    found = intensities(movements(face), shapes(blendshapes))
    strength = np.stack([found[unit] for unit in AU_INTENSITIES], axis=1)
    presence = np.stack([found[unit] >= PRESENT for unit in AU_PRESENCES], axis=1)
    return strength, presence.astype(np.float64)
