"""TPR, FPR and UDR of one group of studies, when patients have several. AUROC: `auroc.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.clusters import cluster_sizes, patient_codes
from fmaudit_core.fairness.intervals import proportion_interval

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A proportion of studies, and how much their clustering in patients costs.

    Parameters
    ----------
    value : float, None where there is no study
    n : int
        Studies of the class the rate is over.
    design_effect : float, at least 1
        Variance with patients as clusters over variance without.
    """

    value: float | None
    n: int
    design_effect: float

    @property
    def n_effective(self) -> float:
        """Independent studies that would tell as much."""
        return self.n / self.design_effect

    @property
    def se(self) -> float | None:
        """Standard error; a rate of 0 or 1 gets that of half a study, since none would claim certainty."""
        if self.value is None:
            return None
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        return float(np.sqrt(p * (1 - p) / self.n_effective))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Wilson at n / design effect; Clopper-Pearson where that is under 20."""
        if self.value is None:
            return None
        return proportion_interval(self.value, self.n_effective, confidence)

    def with_threshold_of(self, scores: Float64Array, draws: Float64Array) -> Rate:
        """The rate with the uncertainty of its threshold added: the variance of the rate over thresholds drawn.

        Parameters
        ----------
        scores : (n,) float64, of the studies of the class the rate is over
        draws : (B,) float64, thresholds that other validation patients would have given
        """
        if self.value is None:
            return self
        shares = 1 - np.searchsorted(np.sort(scores), draws, side="left") / self.n
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        return Rate(self.value, self.n, self.design_effect + float(np.var(shares)) * self.n / (p * (1 - p)))

    def complement(self) -> Rate:
        """The rate of the opposite call: UDR of a TPR."""
        return Rate(None if self.value is None else 1.0 - self.value, self.n, self.design_effect)


def rate(called: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer]) -> Rate:
    """Share of studies that are called positive.

    Parameters
    ----------
    called : (n,) bool, of the studies of one true class
    patient : (n,) int codes

    References
    ----------
    Design effect of a ratio estimator, Rao & Scott 1992. At a rate of 0 or 1 no correlation can be seen, and the largest
    possible one is taken.
    """
    n = len(called)
    if n == 0:
        return Rate(None, 0, 1.0)
    codes = patient_codes(patient)
    sizes = cluster_sizes(codes)
    p = float(called.mean())
    if p in (0.0, 1.0) or len(sizes) < 2:
        return Rate(p, n, float((sizes @ sizes) / n))
    off = np.bincount(codes, called - p)
    clustered = len(sizes) / (len(sizes) - 1) * (off @ off) / n**2
    return Rate(p, n, max(1.0, float(clustered / (p * (1 - p) / n))))
