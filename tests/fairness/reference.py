"""Studentised permutation tests of subgroups in plain numpy: slow, short, and written from the formulas alone.

The compiled engine in `fmaudit_core.fairness` is compared with this module. Nothing here is imported from the engine, and nothing
is optimised: AUROC compares every positive with every negative, and every patient is visited in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: variances below this say nothing: every pair is ranked right, or wrong, or tied
NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Auroc:
    """AUROC of one group, its variance with patients as clusters, and the patients with a positive and with a negative."""

    theta: float
    variance: float
    patients_positive: int
    patients_negative: int


@dataclass(frozen=True)
class Homogeneity:
    """The statistics of one labelling: Q, its centre mu, and each group against the others."""

    q: float
    mu: float
    z: Floats


def auroc(score: Floats, positive: Bools, patient: Ints) -> Auroc | None:
    """Return the AUROC of one group (ties count half) and its clustered variance (Obuchowski 1997).

    Parameters
    ----------
    score : (n,) float
    positive : (n,) bool
    patient : (n,) int codes

    Returns
    -------
    Auroc, None if fewer than two patients have a positive study, or fewer than two a negative one
    """
    of_positive, of_negative = patient[positive], patient[~positive]
    k10, k01, k = len(set(of_positive)), len(set(of_negative)), len(set(patient))
    if k10 < 2 or k01 < 2:
        return None
    won = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
    n_positive, n_negative = won.shape
    theta = float(won.mean())
    below, above = won.mean(axis=1) - theta, won.mean(axis=0) - theta
    xx = yy = xy = 0.0
    for one in sorted(set(patient)):
        x = float(below[of_positive == one].sum())
        y = float(above[of_negative == one].sum())
        xx, yy, xy = xx + x * x, yy + y * y, xy + x * y
    variance = (
        k10 / (k10 - 1) * xx / n_positive**2
        + k01 / (k01 - 1) * yy / n_negative**2
        + 2 * k / (k - 1) * xy / (n_positive * n_negative)
    )
    return Auroc(theta, variance, k10, k01)


def auroc_on_logit_scale(score: Floats, positive: Bools, patient: Ints) -> tuple[float, float, float]:
    """Return AUROC, logit AUROC `t` and its variance `v`; (nan, nan, inf) if a class has fewer than two patients."""
    found = auroc(score, positive, patient)
    if found is None:
        return np.nan, np.nan, np.inf
    theta, variance = found.theta, found.variance
    if variance < NO_VARIANCE:
        least = min(found.patients_positive, found.patients_negative)
        theta = min(max(theta, 0.5 / least), 1 - 0.5 / least)
        variance = theta * (1 - theta) / least
    return found.theta, float(np.log(theta / (1 - theta))), variance / (theta * (1 - theta)) ** 2


def design_effect(event: Bools, patient: Ints) -> float:
    """Return the shrunk design effect of a rate over the studies of one class; exactly 1 without repeated patients.

    Parameters
    ----------
    event : (M,) bool
    patient : (M,) int codes, of at least two patients
    """
    patients = sorted(set(patient))
    k, n, p = len(patients), len(event), float(event.mean())
    if k == n:
        return 1.0
    size = np.array([np.count_nonzero(patient == one) for one in patients])
    events = np.array([np.count_nonzero(event[patient == one]) for one in patients])
    full = float((size**2).sum() / n)
    if p in (0.0, 1.0):
        plain = full
    else:
        residual = events - p * size
        plain = max(1.0, k / (k - 1) * (n - 1) / n * float((residual**2).sum()) / (n * p * (1 - p)))
    seen = min(np.count_nonzero(events > 0), np.count_nonzero(events < size))
    return float((seen * plain + max(full, plain)) / (seen + 1))


def rate_on_arcsine_scale(event: Bools, patient: Ints) -> tuple[float, float, float]:
    """Return the rate, its arcsine `t` (Anscombe 1948) and variance `v`; v is inf if fewer than two patients are left."""
    if len(set(patient)) < 2:
        return float(event.mean()) if len(event) else np.nan, np.nan, np.inf
    p = float(event.mean())
    n = len(event) / design_effect(event, patient)
    return p, float(np.arcsin(np.sqrt((p * n + 3 / 8) / (n + 3 / 4)))), 1 / (4 * n + 2)


def estimates(
    metric: str, score: Floats, positive: Bools, patient: Ints, group: Ints, n_groups: int, threshold: float
) -> tuple[Floats, Floats, Floats]:
    """Return value, t and v, each (G,), of "auroc", "udr" or "fpr" in every group of one labelling of the studies."""
    rows = []
    for g in range(n_groups):
        inside = group == g
        s, y, c = score[inside], positive[inside], patient[inside]
        if metric == "auroc":
            rows.append(auroc_on_logit_scale(s, y, c))
        elif metric == "udr":
            rows.append(rate_on_arcsine_scale(s[y] < threshold, c[y]))
        else:
            rows.append(rate_on_arcsine_scale(s[~y] >= threshold, c[~y]))
    value, t, v = np.array(rows).T
    return value, t, v


def homogeneity(t: Floats, v: Floats) -> Homogeneity:
    """Return Q, mu and z of one labelling; a group whose variance is infinite has no weight and z = 0.

    Parameters
    ----------
    t, v : (G,) float
    """
    used = np.flatnonzero(np.isfinite(v))
    if len(used) == 0:
        return Homogeneity(0.0, np.nan, np.zeros(len(t)))
    w = 1 / v[used]
    mu = float((w * t[used]).sum() / w.sum())
    q = float((w * (t[used] - mu) ** 2).sum())
    z = np.zeros(len(t))
    for g in used:
        others = used[used != g]
        if len(others):
            weight = float((1 / v[others]).sum())
            centre = float((t[others] / v[others]).sum()) / weight
            z[g] = (t[g] - centre) / np.sqrt(v[g] + 1 / weight)
    return Homogeneity(q, mu, z)


def units_of(group: Ints, patient: Ints) -> tuple[Ints, Ints]:
    """Return each study's unit code (a patient within one subgroup), and each unit's subgroup."""
    pairs = sorted(set(zip(patient.tolist(), group.tolist(), strict=True)))
    code = {pair: i for i, pair in enumerate(pairs)}
    unit = np.array([code[pair] for pair in zip(patient.tolist(), group.tolist(), strict=True)], dtype=np.int64)
    return unit, np.array([g for _, g in pairs], dtype=np.int64)


def strata(unit: Ints, group_of_unit: Ints, positive: Bools, test_from: int) -> Bools:
    """Return for each unit the stratum within which it is permuted: all in one, or those with the rarer class apart.

    Stratified only if some group would on average be given fewer than `test_from` units of the rarer class.
    """
    n_units = len(group_of_unit)
    with_positive = np.array([positive[unit == u].any() for u in range(n_units)])
    with_negative = np.array([(~positive[unit == u]).any() for u in range(n_units)])
    rarer = with_positive if with_positive.sum() <= with_negative.sum() else with_negative
    expected = np.bincount(group_of_unit) * rarer.sum() / n_units
    return rarer if expected.min() < test_from else np.zeros(n_units, dtype=bool)


def p_value(observed: float, null: Floats) -> float:
    """Return (1 + #{T* >= T}) / (B + 1); sums of another order may differ by one part in 1e9."""
    return (1 + np.count_nonzero(null >= observed * (1 - 1e-9) - 1e-12)) / (len(null) + 1)


def p_of_groups(observed: Floats, null: Floats) -> tuple[Floats, Floats]:
    """Return each group's p from |z| (G,) and |z*| (B, G), and the same adjusted by single-step max-T."""
    most = np.abs(null).max(axis=1)
    raw = [p_value(abs(z), np.abs(null[:, g])) for g, z in enumerate(observed)]
    adjusted = [p_value(abs(z), most) for z in observed]
    return np.array(raw), np.array(adjusted)


def null_of_raw_gap(metric: str, mu: float, v: Floats, n: int, seed: int) -> Floats:
    """Return n draws of max - min over the groups if all had the value `mu` and differed by their variances `v` only."""
    t = mu + np.sqrt(v) * np.random.default_rng(seed).normal(size=(n, len(v)))
    back = 1 / (1 + np.exp(-t)) if metric == "auroc" else np.sin(np.clip(t, 0, np.pi / 2)) ** 2
    gaps: Floats = back.max(axis=1) - back.min(axis=1)
    return gaps
