"""Cross-fitted scores: every study is scored by the probe without its patient."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.probes.cross_fitting import FOLDS, cross_fitted
from fmaudit_core.probes.logistic import fit_logistic


def test_no_study_is_scored_by_a_probe_that_saw_its_patient():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 120, 300)
    x, y = rng.normal(size=(300, 8)).astype(np.float32), rng.random(300) < 0.4
    scores = cross_fitted(x, y, patient, c=0.1, seed=3)
    fold = np.random.default_rng(3).permutation(int(patient.max()) + 1)[patient] % FOLDS
    for one in range(FOLDS):
        inside = fold != one
        assert not set(patient[inside]) & set(patient[~inside])
        fits = fit_logistic(x, {"t": y.astype(float)}, c_grid=[0.1], weights={"w": inside.astype(float)})
        assert scores[~inside] == pytest.approx(fits.score(x[~inside], "t", 0.1, "w"), abs=1e-5)


def test_noise_is_not_fitted():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(400, 200)).astype(np.float32), rng.random(400) < 0.5
    scores = cross_fitted(x, y, np.arange(400), c=1.0, seed=0)
    assert abs(scores[y].mean() - scores[~y].mean()) < 0.1
