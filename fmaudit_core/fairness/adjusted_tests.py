"""Intervals and tests of crude and adjusted differences, and of the part of a difference that goes with covariates."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from fmaudit_core.fairness.intervals import t_quantile
from fmaudit_core.fairness.standardised import Contrast, covariance

Float64Array = npt.NDArray[np.float64]


def tested_difference(
    contrast: Contrast, n: int, floor: Float64Array, degrees: int, confidence: float
) -> tuple[float, float, float, float]:
    """Return a difference, its interval, and its p (NaN without variance), by Student's t on the scale of the test.

    Parameters
    ----------
    n : int, patients
    floor : (2,) float64
        Variance of the metric on both sides, added where it is exactly 0 or 1.
    degrees : int
        Degrees of freedom: patients of the smallest class and side, less one.
    """
    v = covariance(contrast.scaled_by_patient, contrast.scaled_by_patient, n)
    v += sum(one for value, one in zip((contrast.first, contrast.rest), floor, strict=True) if value in (0.0, 1.0))
    se, half = math.sqrt(v), t_quantile(confidence, degrees)
    # from the scale of the test back to differences
    back = 1.0
    if contrast.scaled != contrast.difference:
        middle = (contrast.first + contrast.rest) / 2
        back = contrast.difference / contrast.scaled if abs(contrast.scaled) > 1e-9 else middle * (1 - middle)
    low, high = ((contrast.scaled + sign * half * se) * back for sign in (-1, 1))
    p = 2 * float(stdtr(degrees, -abs(contrast.scaled) / se)) if se > 0 else math.nan
    return contrast.difference, max(low, -1.0), min(high, 1.0), p


def named_columns(name: str, found: tuple[float, float, float, float]) -> dict[str, float | None]:
    """Return the columns of `tested_difference`."""
    value, low, high, p = found
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_p": None if math.isnan(p) else p}


def explained_part(
    crude: Contrast, adjusted: Contrast, n: int, degrees: int, confidence: float
) -> dict[str, float | None]:
    """Return crude less adjusted difference with its interval, and its share of the crude one by Fieller's theorem."""
    explained = crude.difference - adjusted.difference
    off = crude.by_patient - adjusted.by_patient
    t = t_quantile(confidence, degrees)
    half = t * math.sqrt(covariance(off, off, n))
    row: dict[str, float | None] = {
        "explained": explained, "explained_low": explained - half, "explained_high": explained + half,
    }  # fmt: skip
    limits = fieller(
        explained, crude.difference, covariance(off, off, n), covariance(crude.by_patient, crude.by_patient, n),
        covariance(off, crude.by_patient, n), t,
    )  # fmt: skip
    if limits is not None:
        share = explained / crude.difference
        row |= {"share": share, "share_low": limits[0], "share_high": limits[1]}
    return row


def fieller(a: float, b: float, v_aa: float, v_bb: float, v_ab: float, t: float) -> tuple[float, float] | None:
    """Return the interval of a / b (Fieller 1954); None if it is not bounded, because b may be 0.

    Parameters
    ----------
    v_aa, v_bb, v_ab : variances of a and b, and their covariance
    t : quantile of the interval
    """
    q = b * b - t * t * v_bb
    if q <= 0:
        return None
    middle = a * b - t * t * v_ab
    root = math.sqrt(max(middle * middle - q * (a * a - t * t * v_aa), 0.0))
    return (middle - root) / q, (middle + root) / q
