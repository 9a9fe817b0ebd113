"""Simulation of the subgroup tests: type-I error, family-wise error, power, equivalence and coverage.

Type-I error: `calibration_scenarios.NULLS`, where subgroups have equal AUROC, UDR or FPR and differ in prevalence, in shift and
scale of their scores, in within-patient correlation, in studies per patient, or share patients (age bands). Then family-wise
error over 3 encoders and 2 attributes, power for planted gaps, equivalence with a true difference just above the margin, and
coverage of 95 % intervals in every subgroup. For intervals and equivalence of single pairs of groups see `bench_intervals.py`.

Required at 5 %: Q and the tests of each subgroup against the others reject in 3.5 to 6.5 % of draws (up to 7 % for rates of 60
patients with repeated studies, and with fewer than 25 patients of the rarer class), a family of 6 in at most 6.5 %; equivalence
in at most 5 %; coverage of 93 to 98 %; power within 5 points of the prototype's. Shares outside are marked; a requirement counts
as violated if a share lies outside by more than two Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from benchmarks.calibration_scenarios import (
    FAMILIES,
    MARGINS,
    NULLS,
    POWERS,
    TEST_FROM,
    Cohort,
    Family,
    Margin,
    Power,
    Scenario,
)  # fmt: skip
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.equivalence import equivalence
from fmaudit_core.fairness.gaps import Gap, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.multiplicity import step_down_max_t
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.score_sets import Studies
from fmaudit_core.fairness.spread import corrected_sd_interval
from fmaudit_core.fairness.units import Units

Float64Array = npt.NDArray[np.float64]

ALPHA: Final = 0.05
METRICS: Final = ("auroc", "udr", "fpr")
#: number of draws per job of a process
CHUNK: Final = 25
#: columns of the results of `gaps_of`
COLUMNS: Final = ("Q", "chi2", "others", "gap's p", "gap", "null gap")


def rng_of(name: str, draw: int) -> np.random.Generator:
    """Return the generator of one draw, independent of the order of execution."""
    return np.random.default_rng([crc32(name.encode()), draw])


def gaps_of(scenario: Scenario, n_permutations: int, draw: int) -> dict[str, list[float]]:
    """Return the results of one draw per metric, in order of `COLUMNS`."""
    cohort = scenario.drawn(rng_of(scenario.name, draw))
    units = Units.of(cohort.group, cohort.patient, cohort.positive)
    permuter = PatientPermuter(units, seed=draw, named="task", test_from=TEST_FROM)
    (found,) = null_gaps(
        [_ranking(cohort, units)], units, permuter.permutations(n_permutations), metrics=scenario.metrics
    )
    return {metric: _numbers(found[metric], units.n_groups) for metric in scenario.metrics}


def _ranking(cohort: Cohort, units: Units) -> Ranking:
    return Ranking.of(cohort.score, cohort.positive, units, cohort.threshold)


def _numbers(gap: Gap, n_groups: int) -> list[float]:
    if gap.p_value is None or gap.q_statistic is None or gap.p_gap is None or gap.p_rest_adjusted is None:
        raise ValueError("nothing is tested in this draw: the scenario has a subgroup too small")
    of_chi2 = float(chi2.sf(gap.q_statistic, n_groups - 1))
    return [gap.p_value, of_chi2, float(gap.p_rest_adjusted.min()), gap.p_gap, gap.gap, gap.null_expected_gap]


def family_of(family: Family, n_permutations: int, draw: int) -> dict[str, list[float]]:
    """Return, for each metric, the smallest adjusted p over 3 encoders and 2 attributes of one draw."""
    cohorts, attributes = family.drawn(rng_of(family.name, draw))
    found: dict[str, list[Gap]] = {metric: [] for metric in METRICS}
    for group in attributes:
        units = Units.of(group, cohorts[0].patient, cohorts[0].positive)
        permuter = PatientPermuter(units, seed=draw, named="task", test_from=TEST_FROM)
        rankings = [_ranking(cohort, units) for cohort in cohorts]
        for one in null_gaps(rankings, units, permuter.permutations(n_permutations)):
            for metric in METRICS:
                found[metric].append(one[metric])
    least = {}
    for metric, gaps in found.items():
        observed = [np.nan if gap.q_statistic is None else gap.q_statistic for gap in gaps]
        least[metric] = [float(step_down_max_t(observed, np.stack([gap.null_q for gap in gaps], axis=1)).min())]
    return least


def levels_of(cohort: Cohort) -> dict[str, Studies]:
    """Return the studies of every subgroup by name."""
    return {
        f"group {g}": Studies(
            cohort.positive[cohort.group == g], cohort.score[cohort.group == g], cohort.patient[cohort.group == g],
            cohort.threshold,
        )
        for g in range(int(cohort.group.max()) + 1)
    }  # fmt: skip


def equivalence_of(margin: Margin, draw: int) -> dict[str, list[float]]:
    """Return whether one draw's subgroups are declared equivalent within 5 points."""
    levels = levels_of(margin.scenario.drawn(rng_of(margin.scenario.name, draw)))
    found = equivalence(levels, tuple(levels), margin.metric, FairnessSection(margin=0.05))
    return {margin.metric: [float(found.within_margin)]}


def coverage_of(scenario: Scenario, draw: int) -> dict[str, list[float]]:
    """Return, for each metric, whether each subgroup's 95 % interval of one draw contains the population value."""
    truth, out = scenario.truth(), {}
    levels = levels_of(scenario.drawn(rng_of(scenario.name, draw))).values()
    for metric in scenario.metrics:
        ends = [_interval(metric, one) for one in levels]
        out[metric] = [float(low <= truth[metric] <= high) for low, high in ends]
    return out


def _interval(metric: str, studies: Studies) -> tuple[float, float]:
    y, score, patient = studies.y_true, studies.y_score, studies.patient
    if metric == "auroc":
        found = auroc(y, score, patient).interval(0.95)
    elif metric == "udr":
        found = rate(score[y] < studies.threshold, patient[y]).interval(0.95)
    else:
        found = rate(score[~y] >= studies.threshold, patient[~y]).interval(0.95)
    return found or (np.nan, np.nan)


def spread_coverage(n_cohorts: int, between: float, n_groups: int = 5) -> float:
    """Return the coverage of intervals of the corrected standard deviation; subgroups have standard errors of 0.02 to 0.05."""
    errors = np.linspace(0.02, 0.05, n_groups)
    offsets = np.linspace(-1, 1, n_groups)
    values = 0.3 + between * offsets / offsets.std(ddof=1)
    hits = []
    for seed in range(n_cohorts):
        seen = values + errors * np.random.default_rng(seed).normal(size=n_groups)
        low, high = corrected_sd_interval(seen.tolist(), errors.tolist(), 0.95, seed)
        hits.append(low <= between <= high)
    return float(np.mean(hits))


OneDraw = Callable[[int], dict[str, list[float]]]


def _chunk(one: OneDraw, draws: Sequence[int]) -> list[dict[str, list[float]]]:
    return [one(draw) for draw in draws]


def simulated(one: OneDraw, n_draws: int, pool: Executor | None = None) -> dict[str, Float64Array]:
    """Return the results of many draws by metric, each (n_draws, k)."""
    chunks = [range(start, min(start + CHUNK, n_draws)) for start in range(0, n_draws, CHUNK)]
    parts = (pool.map if pool else map)(partial(_chunk, one), chunks)
    drawn = [found for part in parts for found in part]
    return {metric: np.array([found[metric] for found in drawn]) for metric in drawn[0]}


def standard_error(share: float, n: int) -> float:
    """Return the Monte-Carlo standard error of a share of n draws."""
    return float(np.sqrt(share * (1 - share) / n))


class Told:
    """A printer of result rows that records the violated requirements."""

    def __init__(self, n_draws: int, n_permutations: int, pool: Executor | None) -> None:
        self.n, self.n_permutations, self.pool = n_draws, n_permutations, pool
        self.outside: list[str] = []
        self.edges = 0

    def simulated(self, of: Callable[..., dict[str, list[float]]], *given: object) -> dict[str, Float64Array]:
        return simulated(partial(of, *given), self.n, self.pool)

    def mark(self, where: str, told: str, share: float, low: float, high: float) -> str:
        """Return the mark of a share that is required to lie between low and high."""
        if low <= share <= high:
            return ""
        end = low if share < low else high
        beyond = abs(share - end) / standard_error(end, self.n)
        if beyond > 2:
            self.outside.append(f"{where}: {told}")
        else:
            self.edges += 1
        return f"  <- {told} outside by {beyond:.1f} se"


def print_nulls(told: Told, scenarios: Sequence[Scenario]) -> None:
    print(
        f"\nType-I error: share of {told.n:,} draws rejected; standard error at 5 % {standard_error(ALPHA, told.n):.4f}"
    )
    print(
        f"  {'scenario':62s} {'metric':6s} {'Q 5 %':>6s} {'Q 1 %':>6s} {'design':>6s} {'chi2':>6s} {'others':>6s} {'p_gap':>6s} "
        f"{'gap':>6s} {'null':>6s}"
    )
    for scenario in scenarios:
        for metric, numbers in told.simulated(gaps_of, scenario, told.n_permutations).items():
            q, of_chi2, others, of_gap = (numbers[:, :4] <= ALPHA).mean(axis=0)
            gap, null_gap = numbers[:, 4:].mean(axis=0)
            design = f"{scenario.design[metric]:6.3f}" if metric in scenario.design else f"{'-':>6s}"
            most = scenario.most(metric)
            where = f"{scenario.name}, {metric}"
            marks = told.mark(where, "Q", q, 0.035, most) + told.mark(where, "others", others, 0.035, most)
            print(
                f"  {scenario.name:62s} {metric:6s} {q:6.3f} {(numbers[:, 0] <= 0.01).mean():6.3f} {design} {of_chi2:6.3f} "
                f"{others:6.3f} {of_gap:6.3f} {gap:6.3f} {null_gap:6.3f}{marks}",
                flush=True,
            )


def print_families(told: Told, families: Sequence[Family]) -> None:
    print(
        f"\nFamily-wise error by step-down max-T over Q: share of {told.n:,} draws with any rejection; promised at most 0.065"
    )
    for family in families:
        for metric, least in told.simulated(family_of, family, told.n_permutations).items():
            share = float((least[:, 0] <= ALPHA).mean())
            print(
                f"  {family.name:62s} {metric:6s} {share:6.3f}{told.mark(family.name, metric, share, 0.0, 0.065)}",
                flush=True,
            )


def print_powers(told: Told, powers: Sequence[Power]) -> None:
    print(f"\nPower: share of {told.n:,} draws rejected at 5 %, and the prototype's")
    for power in powers:
        for metric, numbers in told.simulated(gaps_of, power.scenario, told.n_permutations).items():
            q, _, others, of_gap = (numbers[:, :4] <= ALPHA).mean(axis=0)
            cells, marks = "", ""
            for name, share, design in zip(
                ("Q", "others", "p_gap"), (q, others, of_gap), power.design[metric], strict=True
            ):
                cells += f"  {name} {share:.3f} ({design:.2f})"
                marks += told.mark(f"{power.scenario.name}, {metric}", name, share, design - 0.05, 1.0)
            print(f"  {power.scenario.name:62s} {metric:6s}{cells}{marks}", flush=True)


def print_margins(told: Told, margins: Sequence[Margin]) -> None:
    print(f"\nEquivalence within 5 points: share of {told.n:,} draws in which it is shown")
    for margin in margins:
        ((metric, shown),) = told.simulated(equivalence_of, margin).items()
        share = float(shown.mean())
        where = f"equivalence, {margin.scenario.name}"
        if margin.difference:
            end = f"true difference {margin.difference:.4f}, promised at most 0.05"
            end += told.mark(where, metric, share, 0.0, 0.05)
        else:
            end = f"no difference, prototype {margin.design}"
            if margin.design is not None:
                end += told.mark(where, metric, share, margin.design - 0.05, 1.0)
        print(f"  {margin.scenario.name:62s} {metric:6s} {share:6.3f}  {end}", flush=True)


def print_coverage(told: Told, scenarios: Sequence[Scenario]) -> None:
    print(f"\n95 % intervals that hold the truth in {told.n:,} draws, by subgroup; promised 0.93 to 0.98")
    for scenario in scenarios:
        for metric, hits in told.simulated(coverage_of, scenario).items():
            shares = hits.mean(axis=0)
            marks = ""
            if scenario.test_from >= TEST_FROM:
                where = f"coverage, {scenario.name}, {metric}"
                marks = "".join(told.mark(where, f"group {g}", share, 0.93, 0.98) for g, share in enumerate(shares))
            print(
                f"  {scenario.name:62s} {metric:6s} {'  '.join(f'{share:.3f}' for share in shares)}{marks}", flush=True
            )
    for between in (0.0, 0.05, 0.1):
        share = spread_coverage(told.n, between)
        print(f"  corrected standard deviation between 5 subgroups, true {between:g}: {share:.3f}")


def main() -> None:
    """Print every scenario with its requirement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--permutations", type=int, default=399)
    parser.add_argument(
        "--only", help="a part (null, family, power, equivalence, coverage) or a piece of a scenario's name"
    )
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    parts: dict[str, tuple[Callable[[Told, Sequence[object]], None], Sequence[object]]] = {
        "null": (print_nulls, NULLS),  # type: ignore[dict-item]
        "family": (print_families, FAMILIES),  # type: ignore[dict-item]
        "power": (print_powers, POWERS),  # type: ignore[dict-item]
        "equivalence": (print_margins, MARGINS),  # type: ignore[dict-item]
        "coverage": (print_coverage, NULLS),  # type: ignore[dict-item]
    }
    os.environ["NUMBA_NUM_THREADS"] = "1"  # processes share the cores
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        told = Told(options.draws, options.permutations, pool)
        for part, (printed, scenarios) in parts.items():
            chosen = list(_chosen(options.only, part, scenarios))
            if chosen:
                printed(told, chosen)
    print(
        "\nall promises kept"
        if not told.outside
        else f"\n{len(told.outside)} promises were NOT kept: {'; '.join(told.outside)}"
    )
    if told.edges:
        print(f"{told.edges} more shares lie outside by no more than two standard errors")


def _chosen(only: str | None, part: str, scenarios: Sequence[object]) -> Iterator[object]:
    for one in scenarios:
        name = getattr(one, "name", None) or one.scenario.name  # type: ignore[attr-defined]
        if only is None or only == part or (only in name and part != "coverage"):
            yield one


if __name__ == "__main__":
    main()
