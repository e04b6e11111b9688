"""The vision stage: OpenFace's 709 columns, from OpenFace or from a face mesh."""
