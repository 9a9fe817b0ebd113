"""How far an encoder's embedding moves under alterations of a CT, compared with its distance between different patients.

A distance is 1 - cosine. What is altered: `alterations.py`. What the distances mean in words: `sensitivity_words.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.alterations import ALTERATIONS, Scan, items_of
from fmaudit_core.encoders.sensitivity_words import PATIENTS
from fmaudit_core.encoders.similarity import cosines
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import SliceArray

#: increased if the same encoder and scans would give other numbers
SENSITIVITY_REVISION: Final = 1
#: patients whose distance is below this are alike; rounding moves a cosine by less
_ALIKE: Final = 1e-6

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sensitivity:
    """The effect of one alteration.

    Parameters
    ----------
    alteration, kind : str
        See `alterations.Alteration`; `PATIENTS` with the kind "patient" for pairs of patients.
    status : str
        `measured`; `not_applicable` if the alteration does not apply to the encoder's view; `not_estimable` if the embeddings
        of different patients are alike, so that nothing can be compared with their distance.
    n : int
        Scans, or pairs of patients.
    cosine, cosine_min : float, optional
        Cosine with the unaltered scan, mean and minimum over scans; None if not applicable.
    relative_distance : float, optional
        Mean distance, in units of the mean distance between patients.
    """

    alteration: str
    kind: str
    status: str
    n: int
    cosine: float | None = None
    cosine_min: float | None = None
    relative_distance: float | None = None


def measure_sensitivity(encoder: Encoder, spec: EncoderSpec, scans: Iterable[Scan]) -> list[Sensitivity]:
    """Return how far the embedding of a scan moves under every alteration.

    The embedding of a scan is that of its volume, or the mean over a few slices or its patches.

    Parameters
    ----------
    scans : iterable of Scan, at least two
        One per patient; each is let go before the next is read.

    Returns
    -------
    The row of pairs of patients first, then a row per alteration.
    """
    plain: list[Float32Array] = []
    altered: list[list[Float32Array]] = [[] for _ in ALTERATIONS]
    for scan in scans:
        plain.append(_embedding(encoder, spec, items_of(spec.view, scan)))
        for alteration, found in zip(ALTERATIONS, altered, strict=True):
            items = alteration.items(spec.view, scan)
            if items is not None:
                found.append(_embedding(encoder, spec, items))
    first, second = zip(*combinations(plain, 2), strict=True)
    between = cosines(np.stack(first), np.stack(second))
    unit = float(1 - between.mean())
    rows = [_row(PATIENTS, "patient", between, unit)]
    for alteration, found in zip(ALTERATIONS, altered, strict=True):
        if found:
            rows.append(_row(alteration.name, alteration.kind, cosines(np.stack(plain), np.stack(found)), unit))
        else:
            rows.append(Sensitivity(alteration.name, alteration.kind, "not_applicable", 0))
    return rows


def _row(name: str, kind: str, found: npt.NDArray[np.float64], unit: float) -> Sensitivity:
    cosine, lowest, alike = float(found.mean()), float(found.min()), unit < _ALIKE
    relative = None if alike else max(0.0, 1 - cosine) / unit
    return Sensitivity(name, kind, "not_estimable" if alike else "measured", len(found), cosine, lowest, relative)


def _embedding(encoder: Encoder, spec: EncoderSpec, items: SliceArray) -> Float32Array:
    """Return the embedding of one scan, (d,): the mean over its slices or patches."""
    if spec.input is not None:
        items = spec.input.of_study(items)
    batch = spec.batch_size
    found = [encoder.encode(items[start : start + batch]) for start in range(0, len(items), batch)]
    mean: Float32Array = np.concatenate(found).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
