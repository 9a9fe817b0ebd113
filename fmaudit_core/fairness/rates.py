"""TPR, FPR and UDR of one group of studies, when patients have several. AUROC: `auroc.py`."""

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
    """A proportion of studies, and how much precision their clustering in patients costs.

    Parameters
    ----------
    value : float, None if there is no study
    n : int
        Studies of the class that the rate is over.
    design_effect : float, at least 1
        Variance with patients as clusters over variance without.
    n_patients : int, optional
        Patients with a study of the class; without it every study counts as a patient of its own.
    kish_size : float, optional
        `n` squared over the sum of the squared numbers of studies per patient (Kish 1965): the independent studies that the
        patients are worth if all studies of a patient agree; `n` if not given.
    """

    value: float | None
    n: int
    design_effect: float
    n_patients: int | None = None
    kish_size: float | None = None

    @property
    def n_effective(self) -> float:
        """Number of independent studies with the same precision."""
        return self.n / self.design_effect

    @property
    def se(self) -> float | None:
        """Standard error; a rate of 0 or 1 gets that of half a study, since none would claim certainty."""
        if self.value is None:
            return None
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        return float(np.sqrt(p * (1 - p) / self.n_effective))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return Wilson's interval at the effective sample size, or Clopper & Pearson's if that size is below 20.

        If patients have several studies the design effect is an estimate, from as many patients as there are: the size is then
        reduced further by the squared ratio of Student's t quantile (patients - 1 degrees of freedom) to the normal one.
        """
        if self.value is None:
            return None
        n = self.n_effective
        if self.n_patients is not None and self.n_patients < self.n:
            n *= (normal_quantile(confidence) / t_quantile(confidence, self.n_patients - 1)) ** 2
        return proportion_interval(self.value, n, confidence)

    def with_threshold_of(self, scores: Float64Array, draws: Float64Array) -> Rate:
        """Return the rate with its threshold's uncertainty added: the variance of the rate over drawn thresholds.

        Parameters
        ----------
        scores : (n,) float64, of the studies of the class that the rate is over
        draws : (B,) float64, thresholds that other validation patients would have given
        """
        if self.value is None:
            return self
        shares = 1 - np.searchsorted(np.sort(scores), draws, side="left") / self.n
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        added = float(np.var(shares)) * self.n / (p * (1 - p))
        return replace(self, design_effect=self.design_effect + added)

    def complement(self) -> Rate:
        """Return the rate of the opposite call: UDR from a TPR."""
        return replace(self, value=None if self.value is None else 1.0 - self.value)


def rate(called: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer]) -> Rate:
    """Compute the share of studies that are called positive.

    Parameters
    ----------
    called : (n,) bool, of the studies of one true class
    patient : (n,) int codes

    Notes
    -----
    The design effect is that of a ratio estimator (Rao & Scott 1992), at least 1 and exactly 1 if no patient has two studies.
    Few events say little about how alike a patient's studies are, and none say nothing. The estimate is therefore shrunk
    towards the design effect of patients whose studies all agree, sum m^2 / n with m studies per patient, which counts as one
    observation against the patients with an event or those with a non-event, whichever are fewer.

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
