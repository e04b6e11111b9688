"""The error that stops a run: input that the user must correct."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Wrong input: every problem found, each naming the file, the position and the remedy.

    Parameters
    ----------
    problems
        One sentence each, all of them, so that the user corrects them in one go.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))
