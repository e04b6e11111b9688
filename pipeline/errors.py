"""The one error that stops a run: input that the user must mend."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Wrong input: every mistake found, each naming the file, the place and the remedy.

    Parameters
    ----------
    mistakes
        One sentence each, all of them, so that the user mends them in one go.
    """

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes))
