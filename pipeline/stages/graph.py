"""The graph of stages: which stage reads which others, and which parts of a clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from triptych.extractors.registry import stages


def with_upstream(names: Iterable[str]) -> tuple[str, ...]:
    """Add the stages whose rows the named stages read; a stage comes after its upstream stages."""
    wanted = set(names)
    for name in reversed(list(stages())):
        if name in wanted:
            wanted.update(stages()[name].upstream)
    return tuple(name for name in stages() if name in wanted)


def with_downstream(name: str) -> frozenset[str]:
    """Return a stage and all stages that read its rows, directly or through another stage."""
    return frozenset(other for other in stages() if name in with_upstream([other]))


def sources(name: str) -> frozenset[str]:
    """Return the parts of a clip that a stage's rows depend on: ``text``, ``media``, or both."""
    return frozenset().union(*(stages()[one].sources for one in with_upstream([name])))


def source_digest(name: str, digests: Mapping[str, str]) -> str:
    """Combine the digests of the parts that a stage's rows depend on; empty if one is missing.

    Parameters
    ----------
    digests
        SHA-256 of the clip's transcript under ``text`` and of its media file under ``media``; empty where missing.
    """
    parts = [digests[source] for source in sorted(sources(name))]
    if len(parts) == 1:
        return parts[0]
    return ":".join(parts) if all(parts) else ""
