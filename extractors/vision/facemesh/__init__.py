"""The 709 vision columns from MediaPipe's FaceMesh: the embedded backend, which needs no other program.

Names, order, units and conventions are OpenFace's (`vision.columns.VISION_COLUMNS`). The numbers are not: they use
no model of OpenFace and nothing that was fitted to its output. The sources of each group:

- landmarks in the image and in space, gaze, points of the eyes: `landmarks`, `gaze`
- pose, p_scale, p_r*, p_t*: `pose`
- p_0 to p_33, in a basis of our own: `shape` (`SHAPE_BASIS` says it in one line)
- action units, from geometry relative to the clip's own rest: `action_units`
"""

from __future__ import annotations

from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.extractors.vision.facemesh.shape import SHAPE_BASIS

__all__ = ["SHAPE_BASIS", "FaceMesh"]
