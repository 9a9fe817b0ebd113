"""What pooling over sites needs of each subgroup besides its value: its effective size, and which subgroups share patients.

Contrasts between subgroups are computed from these and from what may be shown: `site_contrasts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit

from fmaudit_core.common.vocabulary import SCORE_SET, UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.fairness.gaps import GAP_METRICS
from fmaudit_core.fairness.rates import Rate
from fmaudit_core.fairness.score_sets import ScoreSet, Studies, by_studies, named
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.studentised import scaled_auroc

Float64Array = npt.NDArray[np.float64]

_SHOWN: Final = ("tested", "interval_only")
#: a row per score set, attribute, metric and subgroup
SITE_ESTIMATES: Final = pl.Schema(
    {
        **dict.fromkeys((*SCORE_SET, "attribute", "metric", "subgroup"), pl.String()),
        "n": pl.Int64(),
        "value": pl.Float64(),
        "n_effective": pl.Float64(),
        "others": pl.List(pl.String()),
        "correlations": pl.List(pl.Float64()),
    }
)


def site_estimates(test: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection) -> pl.DataFrame:
    """Return the effective size of every shown subgroup, and its correlations with subgroups that share patients with it.

    Parameters
    ----------
    test : frame
        Checked predictions of the evaluated split with thresholds.

    Returns
    -------
    Frame of `SITE_ESTIMATES`
        `n` is the number of studies of the metric's class, for AUROC of the rarer one. `n_effective` is the number of independent
        studies with the same variance: of a rate 1 / (4 n + 2) on the arcsine scale, of an AUROC A 1 / (n A (1 - A)) on the logit
        scale.
    """
    rows = [
        named(key) | {"attribute": attribute} | row
        for cohort in by_studies(test)
        for key, one in cohort.items()
        for attribute in attributes
        for row in _rows(one, attribute, settings)
    ]
    return pl.DataFrame(rows, schema=SITE_ESTIMATES).sort(*SCORE_SET, "attribute", "metric", "subgroup")


def _rows(one: ScoreSet, attribute: str, settings: FairnessSection) -> Iterator[dict[str, Any]]:
    levels = {level: studies for level, studies in one.by_level(attribute).items() if level != UNKNOWN}
    status = {level: metric_status(each.y_true, each.patient, settings, level) for level, each in levels.items()}
    for metric in GAP_METRICS:
        shown = {level: each for level, each in levels.items() if status[level][metric] in _SHOWN}
        if metric != "auroc" and not one.studies.has_threshold:
            continue
        influence = {level: _influence(each, metric) for level, each in shown.items()}
        for level, each in shown.items():
            found = _correlations(level, influence)
            yield {
                "metric": metric, "subgroup": level, **_sizes(each, metric), "others": list(found),
                "correlations": list(found.values()),
            }  # fmt: skip


def _sizes(studies: Studies, metric: str) -> dict[str, Any]:
    if metric != "auroc":
        share: Rate = studies.missed if metric == "udr" else studies.alarmed
        return {"n": share.n, "value": share.value, "n_effective": share.n_effective}
    ranked = studies.ranked
    variance = np.nan if ranked.se is None else ranked.se**2
    scaled = scaled_auroc(np.asarray(ranked.value), np.asarray(variance), np.asarray(float(ranked.fewest_patients)))
    area = float(expit(scaled.t))
    size = 1 / (float(scaled.v) * area * (1 - area))
    return {"n": min(ranked.n_pos, ranked.n_neg), "value": ranked.value, "n_effective": size}


def _influence(studies: Studies, metric: str) -> Float64Array:
    """Return the influence of each patient on a metric, by the code of the patient."""
    y, patient = studies.y_true, studies.patient
    if metric == "auroc":
        parts = structural_components(y, studies.y_score)
        each = (parts - parts[y].mean()) / np.where(y, y.sum(), (~y).sum())
        return _by_patient(patient, each)
    of = y if metric == "udr" else ~y
    called = studies.y_score[of] >= studies.threshold
    return _by_patient(patient[of], (called - called.mean()) / of.sum())


def _by_patient(patient: npt.NDArray[np.int64], each: Float64Array) -> Float64Array:
    return np.bincount(patient, each).astype(np.float64)


def _correlations(level: str, influence: Mapping[str, Float64Array]) -> dict[str, float]:
    """Return the correlation of a subgroup's estimate with that of each other one that shares patients with it."""
    own, found = influence[level], {}
    for other, theirs in influence.items():
        n = min(len(own), len(theirs))
        product = float(own[:n] @ theirs[:n])
        if other != level and product:
            found[other] = product / float(np.sqrt((own @ own) * (theirs @ theirs)))
    return found
