"""The 709 vision columns out of MediaPipe's FaceMesh: the embedded backend, no program to install.

Names, order, units and conventions are OpenFace's (`vision.columns.VISION_COLUMNS`); the numbers are not,
and no model of OpenFace, nor anything fitted to its output, is in them. What each group is made of:

- landmarks in the image and in space, gaze, points of the eyes: `landmarks`, `gaze`
- pose, p_scale, p_r*, p_t*: `pose`
- p_0 to p_33, in a basis of our own: `shape` (`SHAPE_BASIS` says it in one line)
- action units, by geometry against the clip's own rest: `action_units`
"""

from __future__ import annotations

from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.extractors.vision.facemesh.shape import SHAPE_BASIS

__all__ = ["SHAPE_BASIS", "FaceMesh"]
