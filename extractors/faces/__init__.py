"""The faces stage: MTCNN, face tracking and aligned crops."""
