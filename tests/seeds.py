"""Seeds of tests whose result must not depend on a lucky one: TRIPTYCH_SEED_OFFSET moves all of them."""

from __future__ import annotations

import os

OFFSET = 1000 * int(os.environ.get("TRIPTYCH_SEED_OFFSET", "0"))


def seeded(seed: int) -> int:
    """Return a seed, moved by the offset of this test run."""
    return seed + OFFSET
