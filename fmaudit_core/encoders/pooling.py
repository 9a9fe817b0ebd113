"""Pooling of slice embeddings to one study embedding, and names of the study embeddings that are not pooled from slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Pooling = Literal["mean", "max", "median"]
POOLINGS: Final[tuple[Pooling, ...]] = ("mean", "max", "median")
#: probes that read slices -> the pooling they perform
OF_SLICES: Final = {"abmil": "attention", "lrcn": "lrcn"}
#: probes that read slices as a sequence from the feet to the head; patches are none
IN_SEQUENCE: Final = ("lrcn",)
#: the embedding of an encoder that reads the whole volume
VOLUME: Final = "volume"
#: study embeddings computed elsewhere
GIVEN: Final = "given"


def pooled(slices: Float32Array, pooling: Pooling) -> Float32Array:
    """Pool slice embeddings to a study embedding.

    Parameters
    ----------
    slices : (n, d) float32, n at least 1
    pooling : "mean" (the paper's; summed in float64), "max" or "median" (each per dimension)

    Returns
    -------
    (d,) float32
    """
    if pooling == "max":
        out: Float32Array = slices.max(axis=0)
    elif pooling == "median":
        out = np.median(slices, axis=0).astype(np.float32)
    else:
        out = slices.mean(axis=0, dtype=np.float64).astype(np.float32)
    return out


def audited_poolings(there: Sequence[str], configured: Sequence[str]) -> list[str]:
    """Return the poolings of an encoder to audit: the configured ones, or all of its own if none of those is available.

    An encoder of whole volumes, or one whose embeddings were computed elsewhere, has a single pooling of its own.
    """
    return [name for name in configured if name in there] or list(there)
