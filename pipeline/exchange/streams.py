"""Which stages an export reads, checked against the feature folder."""

from __future__ import annotations

from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams


def stream_problems(store: FeatureStore, streams: Streams) -> list[str]:
    """Describe each stream that names a stage which the folder does not know."""
    known = tuple(store.recipe["fingerprints"])
    return [
        f"--{modality} {stage}: unknown stage in {store.folder}; choose one of {', '.join(known)}"
        for modality, stage in streams.stages.items()
        if stage not in known
    ]
