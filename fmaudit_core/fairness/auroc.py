"""AUROC of one group of studies and its variance if patients have several studies. For rates see `rates.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fmaudit_core.fairness.by_patient import ByPatient
from fmaudit_core.fairness.cluster_sizes import patients_by_class
from fmaudit_core.fairness.intervals import normal_quantile, t_quantile, wilson
from fmaudit_core.fairness.studentised import NO_VARIANCE

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Auroc:
    """AUROC with its standard error.

    Parameters
    ----------
    value : float, None if a class is missing
    se : float, clustered by patient; None if fewer than two patients have a class
    n_pos, n_neg : int, studies of each class
    k_pos, k_neg : int, patients with a positive study and patients with a negative one
    """

    value: float | None
    se: float | None
    n_pos: int
    n_neg: int
    k_pos: int
    k_neg: int

    @property
    def fewest_patients(self) -> int:
        """Return the number of patients with a study of the rarer class."""
        return min(self.k_pos, self.k_neg)

    @property
    def has_variance(self) -> bool:
        """Return whether the standard error is informative: it is 0 if all pairs of studies are ranked alike."""
        return self.value is not None and self.se is not None and 0 < self.value < 1 and self.se**2 >= NO_VARIANCE

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return the confidence interval on the logit scale, transformed back to (0, 1).

        A high AUROC of few patients comes with a small standard error, because both depend on the same few scores, and the
        interval would be too short. Its variance is therefore averaged with the one that Hanley and McNeil expect of as many
        patients, where that is larger; it counts as one more patient with the rarer class. The standard error is multiplied
        by Student's t quantile at one degree of freedom fewer than these patients. If every pair is ranked right, or wrong,
        or all are tied, the standard error is 0 and not informative; the interval is then Wilson's for as many patients,
        which is wide if they are few.

        References
        ----------
        Hanley & McNeil 1982, Radiology 143:29.
        """
        if self.value is None or self.se is None:
            return None
        if not self.has_variance:
            return wilson(self.value, self.fewest_patients, normal_quantile(confidence))
        logit = np.log(self.value / (1 - self.value))
        k, variance = self.fewest_patients, self.se**2
        variance += max(0.0, self._expected_variance() - variance) / (k + 1)
        half = t_quantile(confidence, k - 1) * np.sqrt(variance) / (self.value * (1 - self.value))
        return float(expit(logit - half)), float(expit(logit + half))

    def _expected_variance(self) -> float:
        """Return the variance of an AUROC of this value under exponential scores, with one study of each patient and class.

        Which class has the wider scores is not known, so the larger term is used for both.
        """
        assert self.value is not None
        both = max(self.value / (2 - self.value), 2 * self.value**2 / (1 + self.value)) - self.value**2
        pairs = self.k_pos * self.k_neg
        return (self.value * (1 - self.value) + (self.k_pos + self.k_neg - 2) * both) / pairs


def auroc(
    y_true: npt.NDArray[np.bool_], y_score: Float64Array, patient: npt.NDArray[np.integer] | None = None
) -> Auroc:
    """Compute the AUROC, ties half, with the DeLong variance clustered by patient.

    Parameters
    ----------
    y_true : (n,) bool
    y_score : (n,) float
    patient : (n,) int codes, optional
        If not given, every study counts as a separate patient, which is DeLong's variance.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson 1988; Obuchowski 1997, Biometrics 53:567.
    """
    m, n = int(y_true.sum()), int((~y_true).sum())
    k_pos, k_neg = (m, n) if patient is None else patients_by_class(y_true, patient)
    if not m or not n:
        return Auroc(None, None, m, n, k_pos, k_neg)
    found = ByPatient.of_components(y_true, structural_components(y_true, y_score), patient)
    return Auroc(found.value, found.se, m, n, k_pos, k_neg)


def structural_components(y_true: npt.NDArray[np.bool_], y_score: Float64Array) -> Float64Array:
    """Return the share of negatives that each positive outranks, and of positives that outrank each negative; ties count half.

    Returns
    -------
    (n,) float64 in [0, 1]; the mean over the positives and the mean over the negatives both equal the AUROC
    """
    positive, negative = y_score[y_true], y_score[~y_true]
    out = np.empty(len(y_true))
    by_positive, by_negative = np.argsort(positive), np.argsort(negative)
    ranked, among = positive[by_positive], negative[by_negative]
    out[np.flatnonzero(y_true)[by_positive]] = _share_below(among, ranked)
    out[np.flatnonzero(~y_true)[by_negative]] = 1.0 - _share_below(ranked, among)
    return out


def _share_below(ascending: Float64Array, scores: Float64Array) -> Float64Array:
    """Return for each score the share of `ascending` below it, ties half. Fastest if the scores ascend too."""
    below = np.searchsorted(ascending, scores, side="left") + np.searchsorted(ascending, scores, side="right")
    share: Float64Array = below / (2.0 * len(ascending))
    return share
