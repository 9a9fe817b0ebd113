"""Gaps between subgroups and their null. For one subgroup see `auroc.py`, `rates.py`; for many gaps `multiplicity.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.kernels import Ranking, Wins, count_wins
from fmaudit_core.fairness.labellings import Labellings
from fmaudit_core.fairness.multiplicity import DUST, RELATIVE_DUST
from fmaudit_core.fairness.seeding import seed_of
from fmaudit_core.fairness.studentised import Scaled, back, design_effect, scaled_auroc, scaled_rate
from fmaudit_core.fairness.units import ClassSizes, Units

Float64Array = npt.NDArray[np.float64]

#: metrics whose gap is tested; the gap in TPR equals the gap in UDR
GAP_METRICS: Final = ("auroc", "udr", "fpr")
#: draws for the null of the gap itself
_N_DRAWS: Final = 10_000


@dataclass(frozen=True)
class Estimates:
    """One metric in each subgroup for one or many labellings.

    Parameters
    ----------
    value : (B, g) float64, NaN if a class is missing
    scaled : Scaled
        The same values on the metric's scale, with clustered variance.
    """

    value: Float64Array
    scaled: Scaled

    def of(self, groups: Sequence[int]) -> Estimates:
        """Return the estimates of some subgroups."""
        at = list(groups)
        return Estimates(self.value[:, at], Scaled(self.scaled.t[:, at], self.scaled.v[:, at]))


@dataclass(frozen=True)
class Gap:
    """The gap of one metric over the tested subgroups of one attribute, with its test.

    Parameters
    ----------
    gap : float, max - min over subgroups
    null_expected_gap, null_gap_95 : float
        Mean and 95th percentile of max - min if all subgroups had the same true value.
    best, worst : int, subgroup with the best and the worst value (a low UDR or FPR is better, a high AUROC)
    q_statistic, p_value : float, the primary test: studentised homogeneity Q; None if nothing can be tested, because all studies
        of the class, or none, are called in every subgroup
    p_gap : float, share of null gaps that are at least as large; descriptive
    p_rest : (g,) float64, p of each subgroup against the mean of the others
    p_rest_adjusted : (g,) float64, `p_rest` corrected over the subgroups by single-step max-T
    null_q : (B,) float64, Q under permutation, for the correction over families
    """

    gap: float
    null_expected_gap: float
    null_gap_95: float
    best: int
    worst: int
    q_statistic: float | None
    p_value: float | None
    p_gap: float | None
    p_rest: Float64Array | None
    p_rest_adjusted: Float64Array | None
    null_q: Float64Array


def estimates(
    ranking: Ranking,
    labellings: Labellings,
    n_groups: int,
    sizes: ClassSizes,
    metrics: Collection[str] = GAP_METRICS,
) -> dict[str, Estimates]:
    """Estimate metrics in every subgroup of each labelling. A ranking without a threshold has AUROC only.

    Parameters
    ----------
    sizes : ClassSizes
        `Units.sizes` of the same labellings, shared by rankings of the same units.
    """
    out = {}
    if "auroc" in metrics:
        out["auroc"] = _auroc(count_wins(ranking, labellings, n_groups), sizes, of=ranking.positives_are_rarer)
    for metric, kinds, at in zip(("udr", "fpr"), ranking.calls or (), (0, 1), strict=False):
        if metric not in metrics:
            continue
        called, squares, crossed, any_called, all_called = kinds.summed(labellings, n_groups)
        out[metric] = _rate(sizes, at, called, squares, crossed, any_called, all_called, missed=metric == "udr")
    return out


def null_gaps(
    rankings: Sequence[Ranking],
    units: Units,
    permutations: Iterable[Labellings],
    *,
    seed: int = 0,
    metrics: Collection[str] = GAP_METRICS,
) -> list[dict[str, Gap]]:
    """Test the gap of every metric for several score sets on the same studies. All score sets share the same permutations.

    Parameters
    ----------
    rankings : the score sets
    units : Units
        Units with their true subgroups; all subgroups are tested.
    permutations : permuted labellings, in chunks; see `permutation.PatientPermuter`
    seed : int
        Seed of the draws for the null of the gap.
    """
    g = units.n_groups
    permuted: list[dict[str, list[Scaled]]] = [{} for _ in rankings]
    for labellings in permutations:
        sizes = units.sizes(labellings, g)
        for ranking, kept in zip(rankings, permuted, strict=True):
            for metric, found in estimates(ranking, labellings, g, sizes, metrics).items():
                kept.setdefault(metric, []).append(found.scaled)
    own = Labellings.of(units.group[None])
    sizes = units.sizes(own, g)
    out = []
    for ranking, kept in zip(rankings, permuted, strict=True):
        observed = estimates(ranking, own, g, sizes, metrics)
        out.append({metric: gap_of(observed[metric], joined(parts), metric, seed) for metric, parts in kept.items()})
    return out


def exceedance(null: Float64Array, observed: float) -> float:
    """Return the permutation p: (1 + #{T* >= T}) / (B + 1). Statistics that differ only by rounding count as equal."""
    return float((1 + np.count_nonzero(null >= observed - RELATIVE_DUST * abs(observed) - DUST)) / (len(null) + 1))


def joined(parts: Sequence[Scaled]) -> Scaled:
    """Return the chunks concatenated by labelling, with the values of a subgroup contiguous in memory."""
    t, v = (np.concatenate([getattr(one, name).T for one in parts], axis=1).T for name in ("t", "v"))
    return Scaled(t, v)


def gap_of(observed: Estimates, null: Scaled, metric: str, seed: int) -> Gap:
    """Compare the subgroups of one labelling with those of its permutations and return the gap."""
    value, scaled = observed.value[0], Scaled(observed.scaled.t[0], observed.scaled.v[0])
    low, high = int(np.nanargmin(value)), int(np.nanargmax(value))
    gap = float(value[high] - value[low])
    drawn = np.ptp(back(metric, scaled.centre + np.sqrt(scaled.v) * _normals(seed, len(value))), axis=1)
    best, worst = (high, low) if metric == "auroc" else (low, high)
    null_gap, null_gap_95 = float(drawn.mean()), float(np.quantile(drawn, 0.95))
    null_q = null.homogeneity
    if metric != "auroc" and gap == 0 and value[low] in (0.0, 1.0):
        return Gap(gap, null_gap, null_gap_95, best, worst, None, None, None, None, None, null_q)
    q, z, null_z = float(scaled.homogeneity), np.abs(scaled.against_others()), np.abs(null.against_others())
    largest = null_z.max(axis=1)
    return Gap(
        gap=gap,
        null_expected_gap=null_gap,
        null_gap_95=null_gap_95,
        best=best,
        worst=worst,
        q_statistic=q,
        p_value=exceedance(null_q, q),
        p_gap=exceedance(drawn, gap),
        p_rest=np.array([exceedance(null_z[:, g], one) for g, one in enumerate(z)]),
        p_rest_adjusted=np.array([exceedance(largest, one) for one in z]),
        null_q=null_q,
    )


@lru_cache(maxsize=64)
def _normals(seed: int, n_groups: int) -> Float64Array:
    return np.random.default_rng(seed_of(seed, f"null_gap/{n_groups}")).normal(size=(_N_DRAWS, n_groups))


def _auroc(wins: Wins, sizes: ClassSizes, *, of: bool) -> Estimates:
    """Return AUROC with clustered variance (Obuchowski 1997, Biometrics 53:567), as in `by_patient.py`."""
    at = (0, 1) if of else (1, 0)  # the rarer class, the common one
    (m, n), (k10, k01), (in_cells, common_in_cells) = (
        (pair[at[0]], pair[at[1]]) for pair in (sizes.studies, sizes.patients, sizes.clustered)
    )
    theta = _ratio(wins.wins, m * n)
    known_m, known_n = np.maximum(m, 1.0), np.maximum(n, 1.0)
    x2 = wins.own_squares / known_n**2 - 2 * theta * wins.own_wins / known_n + theta**2 * (m - in_cells)
    lost = 1 - theta
    y2 = lost**2 * (n - common_in_cells) - 2 * lost * wins.own_losses / known_m + wins.own_loss_squares / known_m**2
    variance = _corrected(k10) * (x2 + wins.cell_rarer) / known_m**2
    variance += _corrected(k01) * (y2 + wins.cell_common) / known_n**2
    variance += 2 * _corrected(sizes.units) * wins.cell_crossed / (known_m * known_n)
    return Estimates(theta, scaled_auroc(theta, variance, np.minimum(k10, k01)))


def _rate(
    sizes: ClassSizes,
    at: int,
    called: Float64Array,
    squares: Float64Array,
    crossed: Float64Array,
    any_called: Float64Array,
    all_called: Float64Array,
    *,
    missed: bool,
) -> Estimates:
    """Return the share of a class that is called, or missed, with its variance under clustering."""
    m, k = sizes.studies[at], sizes.patients[at]
    share = _ratio(called, m)
    residuals = squares - 2 * share * crossed + share**2 * sizes.squares[at]
    effect = design_effect(m, k, sizes.squares[at], residuals, share, any_called, k - all_called)
    value = 1 - share if missed else share
    return Estimates(value, scaled_rate(value, m / effect, k))


def _corrected(k: Float64Array) -> Float64Array:
    return k / np.maximum(k - 1, 1.0)


def _ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    out: Float64Array = np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
    return out
