"""The pipeline (planning, running and storing feature extraction) and the trainer that reads its features."""

from triptych import __version__

__all__ = ["__version__"]
