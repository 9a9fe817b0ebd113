"""Gaps of each subgroup against the rest before and after standardising for declared covariates.

An adjusted gap answers "how large is the gap between patients with the same covariates?". It does not say why a gap is there:
covariates go with a gap, and whatever was not declared or recorded may too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.adjusted_tests import explained_part, named_columns, tested_difference
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.gaps import GAP_METRICS
from fmaudit_core.fairness.propensity import fit_propensity
from fmaudit_core.fairness.score_sets import ScoreSets, Studies, by_studies, named
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.standardised import (
    CRUDE,
    OF_SUBGROUP,
    OVERLAP,
    Contrast,
    Weights,
    auroc_contrast,
    rate_contrast,
)
from fmaudit_core.fairness.within_cells import WithinCells
from fmaudit_core.tables.fairness import ADJUSTED_GAPS

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: largest standardised difference of a covariate that weighting may leave
MOST_IMBALANCE: Final = 0.10
#: largest share of one study in the weight of its side
MOST_WEIGHT: Final = 0.10
#: classes that a metric is of
_CLASSES: Final[Mapping[str, tuple[bool, ...]]] = {"auroc": (True, False), "udr": (True,), "fpr": (False,)}
_WEIGHTINGS: Final = (CRUDE, OVERLAP, OF_SUBGROUP)


@dataclass(frozen=True)
class _OfClass:
    """What studies of one class share, whatever model scored them: weights of every kind, and permuted labels if any."""

    weights: Mapping[str, Weights]
    permuted: WithinCells | None


#: by class; None if covariates separate the subgroup from the rest
_ByClass = Mapping[bool, _OfClass | None]


def adjusted_gaps(
    test: pl.DataFrame,
    attributes: Sequence[str],
    covariates: Sequence[str],
    settings: FairnessSection,
    *,
    mediators: Sequence[str] = (),
    gaps: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Compare every tested subgroup with the other tested ones, crude and standardised for the covariates.

    Parameters
    ----------
    test : frame
        Checked predictions of the evaluated split with thresholds, and a column of levels per attribute and covariate.
    attributes, covariates : sequence of str
        A covariate that is the attribute itself is left out of its rows.
    mediators : sequence of str
        Those of the covariates that may follow from the subgroup.
    gaps : frame with the columns of a score set, `attribute`, `metric` and `verdict`, optional
        The share of a gap that goes with the covariates is reported only where its verdict is `disparity`.

    Returns
    -------
    Frame of `ADJUSTED_GAPS`
    """
    disparities = set()
    if gaps is not None:
        found = gaps.filter(verdict="disparity").select(*SCORE_SET, "attribute", "metric")
        disparities = set(found.iter_rows())
    rows = []
    for cohort in by_studies(test) if covariates else ():
        for attribute in attributes:
            used = [name for name in covariates if name != attribute]
            if not used:
                continue
            marked = {"covariates": used, "mediators": [name for name in mediators if name in used]}
            for key, row in _rows(cohort, attribute, used, settings):
                if (*key, attribute, row["metric"]) not in disparities:
                    row |= dict.fromkeys(("share", "share_low", "share_high"))
                rows.append(named(key) | {"attribute": attribute} | marked | row)
    return ADJUSTED_GAPS.frame(rows).sort(*SCORE_SET, "attribute", "subgroup", "metric")


def _rows(
    cohort: ScoreSets, attribute: str, covariates: Sequence[str], settings: FairnessSection
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    first = next(iter(cohort.values()))
    names, place = first.codes(attribute)
    status = {
        level: metric_status(one.y_true, one.patient, settings, level)
        for level, one in first.by_level(attribute).items()
    }
    codes = np.stack([first.codes(name)[1] for name in covariates], axis=1).astype(np.int64)
    for tested, metrics in _tested_alike(status).items():
        inside = np.isin(place, [names.index(level) for level in tested])
        for level in tested:
            member = (place == names.index(level))[inside]
            patient = np.unique(first.studies.patient[inside], return_inverse=True)[1].ravel().astype(np.int64)
            by_class = {
                one: _of_class(member, codes[inside], patient, first.studies.y_true[inside] == one, settings.seed)
                for one in {one for metric in metrics for one in _CLASSES[metric]}
            }
            for key, one in cohort.items():
                studies = one.studies.only(inside)
                for metric in metrics:
                    if metric == "auroc" or studies.has_threshold:
                        row = _row(_Sample(studies, metric, patient, by_class), settings)
                        yield key, {"subgroup": level, "metric": metric} | row


def _tested_alike(status: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, ...], list[str]]:
    """Return the metrics by the levels that are tested for them, at least two."""
    found: dict[tuple[str, ...], list[str]] = {}
    for metric in GAP_METRICS:
        tested = tuple(level for level in status if status[level][metric] == "tested")
        if len(tested) > 1:
            found.setdefault(tested, []).append(metric)
    return found


def _of_class(
    member: BoolArray, covariates: IntArray, patient: IntArray, inside: BoolArray, seed: int
) -> _OfClass | None:
    fitted = fit_propensity(member[inside], covariates[inside])
    if fitted is None:
        return None
    permuted = WithinCells.of(fitted, covariates[inside], patient[inside], seed)
    return _OfClass({kind: Weights.of(fitted, kind) for kind in _WEIGHTINGS}, permuted)


def _row(sample: _Sample, settings: FairnessSection) -> dict[str, Any]:
    used = [known for one in _CLASSES[sample.metric] if (known := sample.by_class[one]) is not None]
    if len(used) < len(_CLASSES[sample.metric]):
        return {"status": "no_overlap", "reason": "separated"}
    crude, overlap = sample.contrast(CRUDE), sample.contrast(OVERLAP)
    found = _overlap_of(used, OVERLAP)
    row: dict[str, Any] = found.columns() | {"imbalance_before": max(one.weights[CRUDE].imbalance() for one in used)}
    row |= {"outside": float(1 - np.mean(np.concatenate([one.weights[CRUDE].fitted.inside for one in used])))}
    degrees = sample.fewest_patients - 1
    n, confidence = sample.n_patients, settings.confidence
    row |= named_columns("crude", tested_difference(crude, n, sample.floor(CRUDE), degrees, confidence))
    reason = found.refusal(settings)
    if reason:
        return {"status": "no_overlap", "reason": reason} | row
    adjusted = tested_difference(overlap, n, sample.floor(OVERLAP), degrees, confidence)
    row |= named_columns("adjusted", adjusted) | explained_part(crude, overlap, n, degrees, confidence)
    row["adjusted_p_within"] = sample.p_within()
    if not _overlap_of(used, OF_SUBGROUP).refusal(settings):
        of_subgroup = sample.contrast(OF_SUBGROUP)
        values = tested_difference(of_subgroup, n, sample.floor(OF_SUBGROUP), degrees, confidence)
        row |= {f"att_{end}" if end else "att": value for end, value in zip(_ENDS, values[:3], strict=True)}
    return {"status": "tested", "reason": None} | row


_ENDS: Final = ("", "low", "high")


@dataclass(frozen=True)
class _Sample:
    """The studies of one score set and metric on both sides."""

    studies: Studies
    metric: str
    patient: IntArray
    by_class: _ByClass

    def _of(self, of_class: bool, kind: str) -> Weights:
        found = self.by_class[of_class]
        assert found is not None
        return found.weights[kind]

    @property
    def _inside(self) -> BoolArray:
        classes = _CLASSES[self.metric]
        return np.isin(self.studies.y_true, classes)

    @property
    def n_patients(self) -> int:
        """Return the patients with a study of a class that the metric is of."""
        return n_patients(self.patient[self._inside])

    @property
    def fewest_patients(self) -> int:
        """Return the patients of the smallest class and side."""
        counts = []
        for one in _CLASSES[self.metric]:
            patient, member = self.patient[self.studies.y_true == one], self._of(one, CRUDE).fitted.member
            counts += [n_patients(patient[side]) for side in (member, ~member)]
        return min(counts)

    def contrast(self, kind: str) -> Contrast:
        """Return the metric on both sides under weights of a kind."""
        score, positive = self.studies.y_score, self.studies.y_true
        if self.metric == "auroc":
            return auroc_contrast(
                self._of(of_class=True, kind=kind),
                self._of(of_class=False, kind=kind),
                (score[positive], score[~positive]),
                (self.patient[positive], self.patient[~positive]),
            )
        of_class = self.metric == "udr"
        return rate_contrast(self._of(of_class, kind), self._event(), self.patient[positive == of_class])

    def p_within(self) -> float | None:
        """Return the p by permuting labels within cells of the covariates; None for AUROC, and if nothing can be permuted."""
        found = self.by_class[self.metric == "udr"]
        if self.metric == "auroc" or found is None or found.permuted is None:
            return None
        return found.permuted.p_value(self._event())

    def _event(self) -> BoolArray:
        """Return whether each study of the rate's class is missed, or a false alarm."""
        of_class = self.metric == "udr"
        called: BoolArray = self.studies.y_score[self.studies.y_true == of_class] >= self.studies.threshold
        return ~called if of_class else called

    def floor(self, kind: str) -> Float64Array:
        """Return for both sides the variance of half an event: a rate of 0 or 1 is not certain, (2,)."""
        if self.metric == "auroc":
            return np.zeros(2)
        sizes = np.maximum(self._of(self.metric == "udr", kind).effective(), 1.0)
        half = 0.5 / np.asarray(sizes)
        return np.asarray(half * (1 - half) / sizes)


@dataclass(frozen=True)
class _Overlap:
    """How far both sides can be compared, over the classes of a metric."""

    effective: float
    imbalance: float
    largest: float

    def columns(self) -> dict[str, float]:
        """Return the columns of the table."""
        return {"n_effective": self.effective, "imbalance": self.imbalance, "largest_weight": self.largest}

    def refusal(self, settings: FairnessSection) -> str | None:
        """Return why the sides cannot be compared; None if they can."""
        if self.effective < settings.test_from:
            return "few_effective"
        if self.imbalance > MOST_IMBALANCE:
            return "unbalanced"
        return "one_study" if self.largest > MOST_WEIGHT else None


def _overlap_of(used: Sequence[_OfClass], kind: str) -> _Overlap:
    of_kind = [one.weights[kind] for one in used]
    return _Overlap(
        min(size for one in of_kind for size in one.effective()),
        max(one.imbalance() for one in of_kind),
        max(one.largest() for one in of_kind),
    )
