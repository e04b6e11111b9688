"""Run a hypothesis test on new examples until its time is over, and the changes of files that the fuzzers share.

``TRIPTYCH_FUZZ_SECONDS`` is the time of each fuzzer: 5 by default, 600 with ``make fuzz``. What a fuzzer finds becomes
an ordinary test.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from seeds import seeded

SECONDS = float(os.environ.get("TRIPTYCH_FUZZ_SECONDS", "5"))
BATCH = settings(
    max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


def fuzz(check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Call a check with examples of the strategies, in batches of different seeds, until the time is over."""
    end, calls = monotonic() + SECONDS, 0

    def counted(example: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += 1
        check(*example)

    for number in count(seeded(0)):
        seed(number)(BATCH(given(st.tuples(*strategies))(counted)))()
        if monotonic() > end:
            break
    print(f"{calls} examples")


EDIT = st.tuples(
    st.sampled_from(["byte", "byte", "bit", "remove", "repeat", "insert", "zeros", "cut"]),
    st.integers(0, 2**32),
    st.integers(1, 64),
    st.binary(min_size=1, max_size=8),
)
EDITS = st.lists(EDIT, min_size=1, max_size=6)


def edited(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    """Apply changes of single bytes and of short stretches."""
    out = bytearray(data)
    for kind, place, length, new in edits:
        at = place % max(len(out), 1)
        if kind == "byte":
            out[at : at + 1] = new[:1]
        elif kind == "bit" and out:
            out[at] ^= 1 << length % 8
        elif kind == "remove":
            del out[at : at + length]
        elif kind == "repeat":
            out[at:at] = out[at : at + length] * (1 + new[0] % 4)
        elif kind == "insert":
            out[at:at] = new
        elif kind == "zeros":
            out[at : at + length] = bytes(length)
        elif length == 1:
            del out[at:]
    return bytes(out)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2**70, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Replace, remove or add one to three parts of a document of dicts and lists, at any depth."""
    for _ in range(draw(st.integers(1, 3))):
        document = _replaced(draw, document)
    return document


def _replaced(draw: st.DrawFn, part: Any) -> Any:
    if not isinstance(part, dict | list) or not part or draw(st.integers(0, 4)) == 0:
        return draw(ANYTHING)
    keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    key = draw(st.sampled_from(keys))
    copy = dict(part) if isinstance(part, dict) else list(part)
    what = draw(st.sampled_from(["inside", "inside", "inside", "remove", "add"]))
    if what == "remove":
        del copy[key]
    elif what == "add" and isinstance(copy, dict):
        copy[draw(st.text(max_size=8))] = draw(ANYTHING)
    else:
        copy[key] = _replaced(draw, part[key])
    return copy
