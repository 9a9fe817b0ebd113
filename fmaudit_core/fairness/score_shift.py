"""Tables of AUROC across subgroups and calibration within them, which separate poor ranking from shifted scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.calibration import Calibration, calibration, is_probability, wald
from fmaudit_core.fairness.calibration_tests import MIN_PATIENTS, homogeneity_rows
from fmaudit_core.fairness.cluster_sizes import patients_by_class
from fmaudit_core.fairness.score_sets import ScoreSet, ScoreSets, Studies, named
from fmaudit_core.fairness.small_groups import status_of


def calibration_rows(
    cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of `SUBGROUP_CALIBRATION`, and those of `CALIBRATION_TESTS` without their q-values.

    All rows of a score set whose scores are not probabilities have status `not_probability`.
    """
    rows, tests = list[dict[str, Any]](), list[dict[str, Any]]()
    for key, one in cohort.items():
        probabilities = is_probability(one.studies.y_score)
        comparable: dict[str, list[Calibration]] = {attribute: [] for attribute in attributes}
        for attribute, level, studies in _subgroups(one, attributes):
            rule = status_of(studies.y_true, studies.patient, settings, level)
            status = rule if probabilities else "not_probability"
            row = named(key) | {"attribute": attribute, "subgroup": level, "status": status}
            if status in ("tested", "interval_only"):
                found = calibration(studies.y_true, studies.y_score, studies.patient)
                row |= _calibrated(found, studies, settings)
                fewest = min(patients_by_class(studies.y_true, studies.patient))
                if attribute != OVERALL and status == "tested" and fewest >= MIN_PATIENTS:
                    comparable[attribute].append(found)
            rows.append(row)
        for attribute, calibrations in comparable.items():
            columns = named(key) | {"attribute": attribute}
            tests += homogeneity_rows(calibrations, columns, probabilities=probabilities)
    return rows, tests


def _calibrated(found: Calibration, studies: Studies, settings: FairnessSection) -> dict[str, Any]:
    n_pos, n_neg = int(studies.y_true.sum()), int((~studies.y_true).sum())
    slope = wald(found.slope, found.slope_se, settings.confidence)
    intercept = wald(found.intercept, found.intercept_se, settings.confidence)
    return {
        "n": n_pos + n_neg, "n_pos": n_pos, "n_neg": n_neg,
        "slope": found.slope, "slope_low": slope[0], "slope_high": slope[1],
        "intercept": found.intercept, "intercept_low": intercept[0], "intercept_high": intercept[1],
        "ece": found.ece, "ece_by_chance": found.ece_by_chance,
    }  # fmt: skip


def cross_rows(cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection) -> Iterator[dict[str, Any]]:
    """Rows of `CROSS_GROUP_AUROC`: how often a positive of one subgroup scores above a negative of another (xAUC).

    Subgroups suppressed by the small-group rule are left out.

    References
    ----------
    Kallus & Zhou, NeurIPS 2019. The interval is that of an AUROC, clustered by patient.
    """
    for key, one in cohort.items():
        for attribute in attributes:
            of = one.by_level(attribute)
            status = {level: status_of(each.y_true, each.patient, settings, level) for level, each in of.items()}
            shown = [level for level in of if status[level] in ("tested", "interval_only")]
            for first in shown:
                for second in shown:
                    tested = status[first] == status[second] == "tested"
                    pair = {"attribute": attribute, "positives_of": first, "negatives_of": second}
                    pair["status"] = "tested" if tested else "interval_only"
                    yield named(key) | pair | _cross(of, first, second, settings)


def _cross(of: Mapping[str, Studies], first: str, second: str, settings: FairnessSection) -> dict[str, Any]:
    positives, negatives = of[first], of[second]
    y, other = positives.y_true, ~negatives.y_true
    found = auroc(
        np.concatenate([np.ones(int(y.sum()), dtype=bool), np.zeros(int(other.sum()), dtype=bool)]),
        np.concatenate([positives.y_score[y], negatives.y_score[other]]),
        np.concatenate([positives.patient[y], negatives.patient[other]]),
    )
    low, high = found.interval(settings.confidence) or (None, None)
    return {"n_pos": found.n_pos, "n_neg": found.n_neg, "value": found.value, "ci_low": low, "ci_high": high}


def _subgroups(one: ScoreSet, attributes: Sequence[str]) -> Iterator[tuple[str, str, Studies]]:
    """Yield all studies, then each subgroup of each attribute. Patients keep their codes."""
    for attribute in (OVERALL, *attributes):
        for level, studies in one.by_level(attribute).items():
            yield attribute, level, studies
