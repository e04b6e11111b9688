"""Batches of token ids: sentences of similar length together, padded to one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def batches(encoded: Sequence[list[int]], most: int) -> Iterator[list[int]]:
    """Group sentences of similar length, so that batches need little padding.

    Parameters
    ----------
    encoded
        The token ids of each sentence.
    most
        Tokens in a batch, padding included; one longer sentence is a batch alone.

    Yields
    ------
    list of int
        Indices of the sentences of one batch.
    """
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lambda index: len(encoded[index])):
        if batch and len(encoded[index]) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(encoded: Sequence[list[int]], padding_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad sentences at their end to the longest one's length.

    Returns
    -------
    tuple of NDArray
        Token ids and mask, both of shape (B, T); the mask is 1 for tokens and 0 for padding.
    """
    longest = max(map(len, encoded))
    ids = np.full((len(encoded), longest), padding_id, np.int64)
    mask = np.zeros_like(ids)
    for row, (ids_row, mask_row) in enumerate(zip(ids, mask, strict=True)):
        length = len(encoded[row])
        ids_row[:length], mask_row[:length] = encoded[row], 1
    return ids, mask
