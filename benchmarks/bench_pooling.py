"""Pooling over sites: type-I error and coverage, next to pooling the patients' rows and to fixed effects.

Sites differ in the level of all subgroups and in the difference of one subgroup. Required of random effects with 3 to 10 sites: a
type-I error of 0.035 to 0.085 and a coverage of at least 0.92. Each draw goes through the audit's own contrasts (rounded to 0.01)
and its own random effects.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr

from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.intervals import normal_quantile
from fmaudit_core.fairness.random_effects import RESOLUTION, random_effects
from fmaudit_core.fairness.site_contrasts import Shown, site_contrasts
from fmaudit_core.fairness.studentised import scaled_auroc

Float64Array = npt.NDArray[np.float64]

#: mean UDR, and its standard deviation between sites
LEVEL: Final = 0.30
LEVEL_SD: Final = 0.05
#: the slope of a rate on the arcsine scale at that level
SLOPE: Final = 2 * math.sqrt(LEVEL * (1 - LEVEL))
#: shares of the subgroups; the first differs
SHARES: Final = (0.2, 0.5, 0.3)
LEAST: Final = 10


@dataclass(frozen=True)
class Setting:
    """Sites to draw.

    Parameters
    ----------
    n_sites : int
    tau : float
        Standard deviation of the difference between sites, in UDR or AUROC.
    sick : (low, high)
        Sick patients of a site, drawn evenly on the logarithmic scale.
    metric : str
    """

    n_sites: int
    tau: float
    sick: tuple[int, int] = (150, 1_500)
    metric: str = "udr"


SETTINGS: Final = (
    *(Setting(n_sites, tau) for n_sites in (3, 5, 10) for tau in (0.0, 0.05, 0.10)),
    Setting(3, 0.05, (800, 800)),
    Setting(5, 0.05, metric="auroc"),
)


@dataclass(frozen=True)
class Rates:
    """Shares of the draws.

    Parameters
    ----------
    type_one, coverage, predicted : float
        Of random effects: rejections without a difference, coverage of the mean, coverage of another site's difference.
    naive, fixed : float
        Rejections without a difference of pooled rows, and of fixed effects.
    bias : float
        Mean error on the scale of the test.
    """

    type_one: float
    coverage: float
    predicted: float
    naive: float
    fixed: float
    bias: float


def simulated(setting: Setting, n_draws: int, *, gap: float = 0.10, seed: int = 0) -> Rates:
    """Return the rates of one setting."""
    found = np.zeros(6)
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw, setting.n_sites, round(1000 * setting.tau)])
        null, naive = _drawn(setting, 0.0, rng)
        pooled = random_effects(*null, resolution=RESOLUTION)
        weights = 1 / null[1]
        z = weights @ null[0] / math.sqrt(weights.sum())
        planted = _on_scale(setting, gap)
        other, _ = _drawn(setting, planted, rng)
        of_other = random_effects(*other, resolution=RESOLUTION)
        elsewhere = planted + _on_scale(setting, setting.tau) * rng.normal()
        found += [
            pooled.p <= 0.05,
            of_other.low <= planted <= of_other.high,
            of_other.predicted_low <= elsewhere <= of_other.predicted_high,
            abs(naive) >= normal_quantile(0.95),
            abs(z) >= normal_quantile(0.95),
            of_other.mean - planted,
        ]
    return Rates(*(float(one) for one in found / n_draws))


def _on_scale(setting: Setting, difference: float) -> float:
    """Return a difference of the metric on the scale of its test."""
    return difference / (SLOPE if setting.metric == "udr" else 0.8 * 0.2)


def _drawn(
    setting: Setting, planted: float, rng: np.random.Generator
) -> tuple[tuple[Float64Array, Float64Array], float]:
    """Return the first subgroup's contrasts and variances by site, and z of the same subgroup with all rows pooled."""
    low, high = setting.sick
    contrasts, rows = [], np.zeros((2, 2))
    for _ in range(setting.n_sites):
        sick = np.exp(rng.uniform(math.log(low), math.log(high)))
        sizes = np.maximum(np.round(sick * np.array(SHARES)), LEAST).astype(int)
        difference = planted + _on_scale(setting, setting.tau) * rng.normal()
        draw = _rates if setting.metric == "udr" else _aurocs
        shown, of_rows = draw(sizes, difference, rng)
        contrasts.append(site_contrasts(setting.metric, shown, {})[0])
        rows += of_rows
    share = rows[:, 0] / rows[:, 1]
    angle = np.arcsin(np.sqrt(share))
    z = (angle[0] - angle[1]) / math.sqrt((1 / (4 * rows[:, 1])).sum())
    y, v = (np.array([getattr(one, name) for one in contrasts]) for name in ("theta", "variance"))
    return (y, v), float(z)


def _rates(
    sizes: npt.NDArray[np.int64], difference: float, rng: np.random.Generator
) -> tuple[list[Shown], Float64Array]:
    level = math.asin(math.sqrt(np.clip(rng.normal(LEVEL, LEVEL_SD), 0.05, 0.9)))
    true = np.sin(np.clip(level + np.array([difference, 0.0, 0.0]), 0, np.pi / 2)) ** 2
    missed = rng.binomial(sizes, true)
    shown = [Shown(str(at), m / n, float(n)) for at, (m, n) in enumerate(zip(missed, sizes, strict=True))]
    return shown, np.array([[missed[0], sizes[0]], [missed[1:].sum(), sizes[1:].sum()]], dtype=float)


def _aurocs(
    sizes: npt.NDArray[np.int64], difference: float, rng: np.random.Generator
) -> tuple[list[Shown], Float64Array]:
    """Return subgroups with normal scores, and rows without meaning: rows of several sites have no AUROC in common."""
    shown = []
    for at, n in enumerate(sizes):
        area = expit(logit(0.8) + (difference if at == 0 else 0.0))
        y = np.repeat([True, False], [n, 4 * n])
        score = rng.normal(size=5 * n) + y * _shift(area)
        ranked = auroc(y, score)
        assert ranked.value is not None
        assert ranked.se is not None
        v = float(scaled_auroc(np.asarray(ranked.value), np.asarray(ranked.se**2), np.asarray(float(n))).v)
        shown.append(Shown(str(at), ranked.value, 1 / (v * ranked.value * (1 - ranked.value))))
    return shown, np.ones((2, 2)) * [0.5, 1.0]


def _shift(area: float) -> float:
    """Return the distance of two normal distributions whose AUROC is `area`."""
    low, high = 0.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ndtr(middle / math.sqrt(2)) < area else (low, middle)
    return low


def main() -> None:
    """Print the rates of every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    n_draws = parser.parse_args().draws
    started = time.monotonic()
    print("metric sites tau    sick        type-I coverage predicted | rows  fixed | bias")
    for setting in SETTINGS:
        found = simulated(setting, n_draws)
        rows = f"{found.naive:.3f}" if setting.metric == "udr" else "  -  "
        print(
            f"{setting.metric:6s} {setting.n_sites:4d}  {setting.tau:.2f} {setting.sick[0]:5d}-{setting.sick[1]:<5d} "
            f" {found.type_one:.3f}  {found.coverage:.3f}    {found.predicted:.3f}   | {rows} {found.fixed:.3f} | "
            f"{found.bias:+.4f}",
            flush=True,
        )
    print(f"{n_draws:,} draws of each, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
