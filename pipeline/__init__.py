"""What runs when, where it is kept, what failed; and the trainer that reads it."""

__version__ = "0.1.0"
