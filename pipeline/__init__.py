"""What runs when, where it is stored and what failed; and the trainer that reads it."""

from triptych import __version__

__all__ = ["__version__"]
