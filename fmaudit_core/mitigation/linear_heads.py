"""Logistic heads of the strategies over one matrix: every task, weight vector and seed is a column of one problem."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.mitigation.errors import MitigationError
from fmaudit_core.probes.logistic import standardisation
from fmaudit_core.probes.shared_matrix import SharedMatrix
from fmaudit_core.probes.solver import minimise

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

#: columns solved at a time; limits the memory of their margins
_COLUMNS: Final = 256


class LinearHeads:
    """Logistic heads on the standardised features of some studies, fitted as in `probes/logistic.py`.

    Parameters
    ----------
    x : (n, d) raw features of the training studies
    """

    def __init__(self, x: Float32Array) -> None:
        self.mean, self.scale = standardisation(x)
        self.x = SharedMatrix((x.astype(np.float64) - self.mean) / self.scale)

    def fit(self, y: Float64Array, weight: Float64Array, c: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Fit every column.

        Parameters
        ----------
        y : (n, k) float64, 0 or 1; ignored where the weight is 0
        weight : (n, k) float64, at least 0
        c : (k,) float64, inverse regularisation strength

        Returns
        -------
        (k, d) coefficients for raw features and (k,) intercepts

        Raises
        ------
        MitigationError
            A column does not converge.
        """
        k = y.shape[1]
        coefficients, intercepts = np.empty((k, len(self.mean))), np.empty(k)
        for start in range(0, k, _COLUMNS):
            some = slice(start, start + _COLUMNS)
            solved, iterations = minimise(self.x, y[:, some], weight[:, some].astype(np.float64), 1.0 / c[some])
            if (iterations < 0).any():
                raise MitigationError(
                    "a probe of a mitigation did not converge.", fix="Remove the largest values from `probes: c_grid`."
                )
            raw = solved[:-1] / self.scale[:, None]
            coefficients[some], intercepts[some] = raw.T, solved[-1] - self.mean @ raw
        return coefficients, intercepts

    def penalty(self, coefficients: Float64Array) -> Float64Array:
        """Return half the squared norm of (k, d) coefficients for standardised features, as used in the penalty, (k,)."""
        standard = coefficients * np.where(np.isinf(self.scale), 0.0, self.scale)
        lengths: Float64Array = 0.5 * np.einsum("kd,kd->k", standard, standard)
        return lengths
