"""Intervals cover as often as promised: short seeded versions of benchmarks/bench_intervals.py."""

from __future__ import annotations

import pytest

from benchmarks.bench_intervals import AUROCS, RATES, auroc_coverage, rate_coverage

N_DRAWS = 1_200
#: four standard errors of a share of 95 % over so many draws
MARGIN = 4 * (0.95 * 0.05 / N_DRAWS) ** 0.5


@pytest.mark.parametrize("scenario", [one for one, promised in RATES.items() if promised], ids=str)
def test_intervals_of_clustered_rates_cover_the_truth(scenario):
    covered, above, below = rate_coverage(scenario, N_DRAWS)
    assert 0.95 - MARGIN <= covered <= 0.98 + MARGIN / 2
    assert max(above, below) <= 0.05


@pytest.mark.parametrize("scenario", [AUROCS[0], AUROCS[5], AUROCS[7], AUROCS[8]], ids=str)
def test_intervals_of_aurocs_cover_the_truth(scenario):
    assert 0.93 - MARGIN / 2 <= auroc_coverage(scenario, N_DRAWS)[0] <= 0.98 + MARGIN / 2
