"""The 709 vision columns from MediaPipe's Face Landmarker: the embedded backend, which needs no other program.

Names, order, units and conventions are OpenFace's (`vision.columns.VISION_COLUMNS`). The numbers are not: they use
no model of OpenFace and nothing that was fitted to its output. The sources of each group:

- the model file, its networks, what they are shown: `bundle`, `networks`, `region`, `smoothing`
- landmarks in the image and in space, gaze, points of the eyes: `landmarks`, `gaze`
- pose, p_scale, p_r*, p_t*: `pose`
- p_0 to p_33, in a basis of our own: `shape` (`SHAPE_BASIS` says it in one line)
- action units, from geometry and blendshapes relative to the clip's own rest: `action_units`
"""
