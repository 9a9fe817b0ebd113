"""TPR, FPR and UDR of one group of studies if patients have several studies. For AUROC see `auroc.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.cluster_sizes import patient_codes
from fmaudit_core.fairness.intervals import normal_quantile, proportion_interval, t_quantile
from fmaudit_core.fairness.studentised import design_effect

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A proportion of studies with its precision under clustering by patient.

    Parameters
    ----------
    value : float, None if there is no study
    n : int
        Studies of the class over which the rate is computed.
    design_effect : float, at least 1
        Variance with patients as clusters over variance without.
    n_patients : int, optional
        Patients with a study of the class. If not given, every study counts as a separate patient.
    kish_size : float, optional
        `n` squared divided by the sum of the squared numbers of studies per patient (Kish 1965): the effective number of
        independent studies if all studies of a patient agree; `n` if not given.
    """

    value: float | None
    n: int
    design_effect: float
    n_patients: int | None = None
    kish_size: float | None = None

    @property
    def n_effective(self) -> float:
        """Return the number of independent studies with the same precision."""
        return self.n / self.design_effect

    @property
    def se(self) -> float | None:
        """Return the standard error. A rate of 0 or 1 is moved by half a study, because an error of 0 would imply certainty."""
        if self.value is None:
            return None
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        return float(np.sqrt(p * (1 - p) / self.n_effective))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return Wilson's interval at the effective sample size, or Clopper & Pearson's if that size is below 20.

        If patients have several studies, the design effect is estimated from a limited number of patients. The size is then
        divided by the squared ratio of Student's t quantile (patients - 1 degrees of freedom) to the normal quantile.
        """
        if self.value is None:
            return None
        n = self.n_effective
        if self.n_patients is not None and self.n_patients < self.n:
            n *= (normal_quantile(confidence) / t_quantile(confidence, self.n_patients - 1)) ** 2
        return proportion_interval(self.value, n, confidence)

    def with_threshold_of(self, scores: Float64Array, draws: Float64Array) -> Rate:
        """Return the rate with the uncertainty of its threshold added: the variance of the rate over bootstrap thresholds.

        Parameters
        ----------
        scores : (n,) float64, of the studies of the class over which the rate is computed
        draws : (B,) float64, bootstrap thresholds over validation patients
        """
        if self.value is None:
            return self
        shares = 1 - np.searchsorted(np.sort(scores), draws, side="left") / self.n
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        added = float(np.var(shares)) * self.n / (p * (1 - p))
        return replace(self, design_effect=self.design_effect + added)

    def complement(self) -> Rate:
        """Return the rate of the opposite call, such as UDR from TPR."""
        return replace(self, value=None if self.value is None else 1.0 - self.value)


def rate(called: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer]) -> Rate:
    """Compute the share of studies called positive.

    Parameters
    ----------
    called : (n,) bool, of the studies of one true class
    patient : (n,) int codes

    Notes
    -----
    The design effect is that of a ratio estimator (Rao & Scott 1992). It is at least 1, and exactly 1 if no patient has two
    studies. Few events carry little information about the correlation of a patient's studies, and no events carry none. The
    estimate is therefore shrunk towards the design effect for patients whose studies all agree, sum m^2 / n with m studies per
    patient. That target counts as one observation; the estimate counts as the number of patients with an event or with a
    non-event, whichever is smaller.

    References
    ----------
    Rao & Scott 1992, Biometrics 48:577; Kish 1965, Survey Sampling.
    """
    n = len(called)
    if n == 0:
        return Rate(None, 0, 1.0, 0, 0.0)
    codes = patient_codes(patient)
    by_patient = np.bincount(codes)
    present = by_patient > 0
    sizes = by_patient[present].astype(np.float64)
    events = np.bincount(codes, called)[present].astype(np.float64)
    p, squares = float(called.mean()), float(sizes @ sizes)
    off = events - p * sizes
    some, none = np.count_nonzero(events), np.count_nonzero(events < sizes)
    effect = design_effect(
        *(np.asarray(one, dtype=float) for one in (n, len(sizes), squares, off @ off, p, some, none))
    )
    return Rate(p, n, float(effect), len(sizes), n * n / squares)
