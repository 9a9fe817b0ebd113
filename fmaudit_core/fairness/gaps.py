"""Gaps between subgroups, and their null. One subgroup: `auroc.py`, `rates.py`. Many gaps: `multiplicity.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.kernels import Counts, Labellings, Labels, Ranking, count
from fmaudit_core.fairness.multiplicity import DUST

Float64Array = npt.NDArray[np.float64]

#: metrics whose gap is tested; the gap in TPR is the gap in UDR
GAP_METRICS: Final = ("auroc", "udr", "fpr")


@dataclass(frozen=True)
class Estimates:
    """One metric in each subgroup, in each subgroup's rest, and over all, for one or many labellings.

    Parameters
    ----------
    by_group, by_rest : (B, g) float64, NaN where a class is missing
    pooled : (B,) float64
    """

    by_group: Float64Array
    by_rest: Float64Array
    pooled: Float64Array


@dataclass(frozen=True)
class Gap:
    """The gap of one metric over the tested subgroups of one attribute, beside its permutation null.

    Parameters
    ----------
    gap : float, max - min over subgroups
    null_expected_gap, null_gap_95 : float, mean and 95th percentile of the same max - min under the null
    best, worst : int, subgroup with the best and the worst value (a low UDR or FPR is better, a high AUROC)
    q_statistic, p_value : studentised homogeneity Q, the primary test
    p_gap : p of the max - min itself
    p_rest : (g,) float64, p of each subgroup against its rest
    p_rest_adjusted : (g,) float64, the same corrected over the subgroups by single-step max-T
    null_q : (B,) float64, Q under the null, for the correction over families
    """

    gap: float
    null_expected_gap: float
    null_gap_95: float
    best: int
    worst: int
    q_statistic: float
    p_value: float
    p_gap: float
    p_rest: Float64Array
    p_rest_adjusted: Float64Array
    null_q: Float64Array


def estimates(counts: Counts) -> dict[str, Estimates]:
    """Every gap metric of counted labellings."""
    return {
        "auroc": _auroc(counts),
        "udr": _complement(_rate(counts.positives_above, counts.positives)),
        "fpr": _rate(counts.negatives_above, counts.negatives),
    }


def null_gaps(
    rankings: Sequence[Ranking], own: Labels, deals: Iterable[Labellings], n_groups: int
) -> list[dict[str, Gap]]:
    """Gap of every metric for several score sets on the same studies, each labelling dealt once for all of them.

    Parameters
    ----------
    rankings : the score sets
    own : (n,) uint8, the true subgroup of each study
    deals : labellings under the null, in chunks; see `permutation.Dealer`
    """
    dealt: list[dict[str, list[Estimates]]] = [{metric: [] for metric in GAP_METRICS} for _ in rankings]
    for labellings in deals:
        for ranking, kept in zip(rankings, dealt, strict=True):
            for metric, found in estimates(count(ranking, labellings, n_groups)).items():
                kept[metric].append(found)
    out = []
    for ranking, kept in zip(rankings, dealt, strict=True):
        observed = estimates(count(ranking, Labellings.of(own[None]), n_groups))
        out.append({metric: _gap(observed[metric], _joined(kept[metric]), metric) for metric in GAP_METRICS})
    return out


def exceedance(null: Float64Array, observed: float) -> float:
    """Permutation p: (1 + #{T* >= T}) / (B + 1)."""
    return float((1 + np.count_nonzero(null >= observed - DUST)) / (len(null) + 1))


def _gap(observed: Estimates, null: Estimates, metric: str) -> Gap:
    theta, dealt = observed.by_group[0], null.by_group
    # the permutation standard deviation of each subgroup's value: one constant a subgroup, observed and dealt alike
    spread = np.nanstd(dealt, axis=0)
    spread = np.where(spread > DUST, spread, 0.0)
    q = _homogeneity(observed.by_group, observed.pooled, spread)[0]
    null_q = _homogeneity(dealt, null.pooled, spread)
    gaps = np.nanmax(dealt, axis=1) - np.nanmin(dealt, axis=1)
    gap = float(np.nanmax(theta) - np.nanmin(theta))
    against_rest = np.abs(observed.by_group - observed.by_rest)[0]
    null_rest = np.abs(dealt - null.by_rest)
    rest_spread = np.sqrt(np.nanmean(null_rest**2, axis=0))
    rest_spread = np.where(rest_spread > 0, rest_spread, np.inf)
    largest = np.nanmax(null_rest / rest_spread, axis=1)
    low, high = int(np.nanargmin(theta)), int(np.nanargmax(theta))
    best, worst = (high, low) if metric == "auroc" else (low, high)
    return Gap(
        gap=gap,
        null_expected_gap=float(gaps.mean()),
        null_gap_95=float(np.quantile(gaps, 0.95)),
        best=best,
        worst=worst,
        q_statistic=float(q),
        p_value=exceedance(null_q, q),
        p_gap=exceedance(gaps, gap),
        p_rest=np.array([exceedance(null_rest[:, g], one) for g, one in enumerate(against_rest)]),
        p_rest_adjusted=np.array([exceedance(largest, one) for one in against_rest / rest_spread]),
        null_q=null_q,
    )


def _homogeneity(theta: Float64Array, pooled: Float64Array, spread: Float64Array) -> Float64Array:
    """Q = sum over subgroups of ((theta_g - theta_pooled) / se_g)^2; a value that cannot be told adds nothing."""
    z = (theta - pooled[:, None]) / np.where(spread > 0, spread, np.inf)
    q: Float64Array = np.nansum(z * z, axis=1)
    return q


def _auroc(counts: Counts) -> Estimates:
    m, n = counts.positives, counts.negatives
    rest_wins = counts.over_all - counts.touching
    all_m, all_n = m.sum(axis=1, keepdims=True), n.sum(axis=1, keepdims=True)
    pooled = _ratio(np.full(len(m), counts.over_all), (all_m * all_n)[:, 0])
    return Estimates(_ratio(counts.within, m * n), _ratio(rest_wins, (all_m - m) * (all_n - n)), pooled)


def _rate(above: Float64Array, of: Float64Array) -> Estimates:
    all_above, all_of = above.sum(axis=1, keepdims=True), of.sum(axis=1, keepdims=True)
    return Estimates(_ratio(above, of), _ratio(all_above - above, all_of - of), _ratio(all_above, all_of)[:, 0])


def _complement(found: Estimates) -> Estimates:
    return Estimates(1 - found.by_group, 1 - found.by_rest, 1 - found.pooled)


def _ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    out: Float64Array = np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
    return out


def _joined(parts: Sequence[Estimates]) -> Estimates:
    """Estimates one below the other, a subgroup's still side by side in memory."""
    return Estimates(
        np.concatenate([one.by_group.T for one in parts], axis=1).T,
        np.concatenate([one.by_rest.T for one in parts], axis=1).T,
        np.concatenate([one.pooled for one in parts]),
    )
