"""Action units from geometry: how far parts of the face moved from their rest position in the clip.

After the Facial Action Coding System (Ekman and Friesen 1978): each unit is measured as the movement that
FACS describes, in millimetres on the frontal face (pose undone, the width across the eyes fixed), so that
turning or nearing the head is no movement. Faces differ at rest, so that each movement counts from the clip's
own rest: the level that it stays below in `REST` of the frames. Intensity is linear, 5 at the anatomical
reach in `REACH`; presence is an intensity of at least `TRACE`. Reaches are rounded from anatomy, none fitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from triptych.extractors.vision.columns import AU_INTENSITIES, AU_PRESENCES
from triptych.extractors.vision.facemesh.landmarks import Points

REST = 0.3
"""Share of a clip's frames that are assumed to be at rest; a higher one would be wrong for lively clips."""

SHUT = 0.05
"""The same for lips and jaw (AU25, AU26): the mouth at rest is shut, which is rare in speech."""

LID_PLAY = 0.1
"""Share of their opening by which the lids move with the gaze, without a blink."""

_MIN_OPENING = 3.0  # mm; the opening of eyes that are never open wider in the clip

TRACE = 1.0
"""Lowest intensity of a unit that counts as present: A on FACS's scale from A to E."""

REACH: Mapping[str, float] = {
    "01": 8.0,
    "02": 8.0,
    "04": 6.0,
    "05": 4.0,
    "06": 6.0,
    "07": 4.0,
    "09": 6.0,
    "10": 8.0,
    "12": 14.0,
    "14": 10.0,
    "15": 8.0,
    "17": 8.0,
    "20": 10.0,
    "23": 10.0,
    "25": 12.0,
    "26": 20.0,
    "28": 14.0,
    "45": 0.6,
}
"""Movement at intensity 5, in millimetres; for AU45 the closed share of the eye's opening."""

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
_CHIN_BOSS = (18, 200, 83, 313)
_CHIN = (152, 148, 377, 175, 199)


def _from_median(movement: Points) -> Points:
    shifted: Points = movement - np.median(movement)
    return shifted


def _distance(face: Points, left: tuple[int, ...], right: tuple[int, ...]) -> Points:
    width: Points = face[:, right, 0].mean(1) - face[:, left, 0].mean(1)
    return width


def movements(face: Points) -> dict[str, Points]:
    """Measure the movement that FACS describes for each unit, in every frame; it grows with the unit.

    Parameters
    ----------
    face
        shape (T, 478, 3), mm: the mesh in the head's axes (x right, y down).

    Returns
    -------
    dict
        For each unit an array of shape (T,): mm, up to a constant; for AU45 minus the opening of the eyes.
    """

    def height(*points: int) -> Points:
        raised: Points = -face[:, points, 1].mean(1)
        return raised

    # Movements are measured relative to points over bone; those of the lids relative to the eye's corners.
    bridge, tip, eyes = height(*_NOSE_BRIDGE), height(*_NOSE_TIP), height(*_CORNERS_OF_EYES)
    inner, outer, wings = height(*_INNER_BROW), height(*_OUTER_BROW), height(*_WINGS)
    brow_gap = _distance(face, (55, 107), (285, 336))
    opening = height(*_UPPER_LIDS) - height(*_LOWER_LIDS)
    lower_lid = height(*_LOWER_LIDS) - eyes
    up = height(*_LIP_CORNERS) - tip
    half_width = _distance(face, (61,), (291,)) / 2
    upper_edge, lower_edge = height(*_UPPER_LIP_EDGE), height(*_LOWER_LIP_EDGE)
    upper_inside, lower_inside = height(*_UPPER_LIP_INSIDE), height(*_LOWER_LIP_INSIDE)
    gap = upper_inside - lower_inside
    red = upper_edge - lower_edge - gap
    # A smile also lifts the wings of the nose, widens the mouth and thins the lips; an open mouth draws the
    # corners down. The second term of AU09, 15, 20, 23 and 28 removes that effect.
    return {
        "01": inner - bridge,
        "02": outer - bridge,
        "04": bridge - (inner + outer) / 2 - brow_gap / 2,
        "05": height(*_UPPER_LIDS) - eyes,
        "06": (height(*_CHEEKS) - bridge + lower_lid) / 2,
        "07": lower_lid,
        "09": np.minimum(_from_median(wings - bridge), _from_median(bridge - inner)),
        "10": upper_edge - height(*_SUBNASALE),
        "12": (half_width + up) / np.sqrt(2),
        "14": half_width - red / 2,
        "15": np.minimum(_from_median(-up), _from_median(upper_inside - gap / 2 - tip - up)),
        "17": height(*_CHIN_BOSS) - tip,
        "20": half_width - 2 * np.abs(_from_median(up)),
        "23": -red - half_width,
        "25": gap,
        "26": height(*_SUBNASALE) - height(*_CHIN),
        "28": -red - half_width,
        "45": -opening,
    }


def _steadied(movement: Points) -> Points:
    """Smooth a movement with a 1-2-1 window: an action lasts longer than one row, the mesh's jitter does not."""
    padded = np.pad(movement, 1, mode="edge")
    steady: Points = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return steady


def intensities(moved: Mapping[str, Points]) -> dict[str, Points]:
    """Compute the intensity of every unit, 0 to 5, relative to its own rest in the clip; shape (T,) each."""
    result: dict[str, Points] = {}
    for unit, movement in moved.items():
        rest = float(np.quantile(movement, SHUT if unit in ("25", "26") else REST))
        above = _steadied(movement) - rest
        if unit == "45":
            above = above / max(-rest, _MIN_OPENING) - LID_PLAY
        result[unit] = 5.0 * np.clip(above / REACH[unit], 0.0, 1.0)
    return result


def action_units(face: Points) -> tuple[Points, Points]:
    """Compute the intensities and presences of the units in a clip's frames.

    Parameters
    ----------
    face
        shape (T, 478, 3), mm: the mesh in the head's axes.

    Returns
    -------
    tuple of Points
        `AU_INTENSITIES` (0 to 5), shape (T, 17), and `AU_PRESENCES` (0 or 1), shape (T, 18).
    """
    found = intensities(movements(face))
    strength = np.stack([found[unit] for unit in AU_INTENSITIES], axis=1)
    presence = np.stack([found[unit] >= TRACE for unit in AU_PRESENCES], axis=1)
    return strength, presence.astype(np.float64)
