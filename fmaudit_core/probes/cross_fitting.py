"""Scores of training studies by probes that did not see their patient."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fmaudit_core.probes.logistic import fit_logistic, logits

Float64Array = npt.NDArray[np.float64]

FOLDS: Final = 5


def cross_fitted(
    x: npt.NDArray[np.float32], y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.int64], *, c: float, seed: int
) -> Float64Array:
    """Return the probability of each training study, by the probe fitted without its patient's fold; all folds in one problem.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings
    y_true : (n,) bool
    patient : (n,) int64, codes from 0
    c : float, inverse regularisation strength

    Raises
    ------
    ProbeError
        The studies outside some fold are of one class.
    """
    rng = np.random.default_rng(seed)
    fold = rng.permutation(int(patient.max()) + 1)[patient] % FOLDS
    weights = {f"without fold {one}": (fold != one).astype(np.float64) for one in range(FOLDS)}
    fits = fit_logistic(x, {"task": y_true.astype(np.float64)}, c_grid=(c,), weights=weights)
    scores = logits(x, fits.coefficients[0, :, 0], fits.intercepts[0, :, 0])
    out: Float64Array = expit(scores[np.arange(len(x)), fold])
    return out
