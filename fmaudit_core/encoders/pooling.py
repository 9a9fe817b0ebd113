"""Slice embeddings become one study embedding; and the names of those that are no pool of slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Float32Array = npt.NDArray[np.float32]
Pooling = Literal["mean", "max", "median"]
POOLINGS: Final[tuple[Pooling, ...]] = ("mean", "max", "median")
#: probes that read slices, and the pooling each is
OF_SLICES: Final = {"abmil": "attention", "lrcn": "lrcn"}
#: the probe and the modality that the findings speak of
PRIMARY_PROBE: Final = "logistic"
PRIMARY_MODALITY: Final = "ct"
#: the embedding of an encoder that sees the whole volume
VOLUME: Final = "volume"
#: study embeddings computed elsewhere
GIVEN: Final = "given"


def pooled(slices: Float32Array, pooling: Pooling) -> Float32Array:
    """Study embedding of slice embeddings.

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
    """Poolings of an encoder that are audited: those configured, or all it has where it has none of them.

    An encoder of whole volumes, or one whose embeddings were computed elsewhere, has a single one of its own.
    """
    return [name for name in configured if name in there] or list(there)


def of_primary_pooling(frame: pl.DataFrame, primary: str) -> pl.DataFrame:
    """Rows that speak for each encoder: those of its logistic probe on CT in the primary pooling, where it has such.

    An encoder of whole volumes, or one whose embeddings were computed elsewhere, has a single pooling of its own; predictions
    made elsewhere may name no probe. Whatever else was scored beside them (other probes, other modalities) speaks for nobody.
    """
    of_probe = (pl.col("probe") == PRIMARY_PROBE) & (pl.col("modality") == PRIMARY_MODALITY)
    frame = frame.filter(of_probe | ~of_probe.any().over("encoder"))
    is_primary = pl.col("pooling") == primary
    return frame.filter(is_primary | ~is_primary.any().over("encoder"))
