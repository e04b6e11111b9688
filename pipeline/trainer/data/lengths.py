"""How long a sequence may be. No torch: exporting needs it too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def longest(lengths: Sequence[int]) -> int:
    """Mean plus three standard deviations, rounded down; 1 without any lengths.

    The paper's sequence length (section 4.2), taken over the training split: 39 tokens on CH-SIMS.
    """
    return max(1, int(np.mean(lengths) + 3 * np.std(lengths))) if lengths else 1
