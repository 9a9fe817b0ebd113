"""Numbers of a plan from an earlier audit: subgroups, prevalences, the metric's value, studies per patient, the family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmaudit_core.common.errors import did_you_mean
from fmaudit_core.common.vocabulary import OVERALL, UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.standalone.compare_audits import opened


@dataclass(frozen=True)
class EarlierAudit:
    """What an audit tells about a plan for one encoder and attribute.

    Parameters
    ----------
    encoder, attribute, metric : str
    subgroups : mapping of name to number of studies
    prevalence : mapping of name to float
    value : float, the metric over all studies
    worse : str or None, the subgroup that fared worst
    comparisons : int, gaps of the declared family
    studies_per_patient : float
    settings : FairnessSection
    left_out : names of subgroups whose counts the audit withholds, and of the level that was not recorded
    """

    encoder: str
    attribute: str
    metric: str
    subgroups: Mapping[str, float]
    prevalence: Mapping[str, float]
    value: float
    worse: str | None
    comparisons: int
    studies_per_patient: float
    settings: FairnessSection
    left_out: Sequence[str]


def earlier_audit(
    path: Path, *, attribute: str | None = None, encoder: str | None = None, metric: str | None = None
) -> EarlierAudit:
    """Read the numbers of a plan from an audit's folder or its audit.json, for its main outcome.

    Parameters
    ----------
    attribute, encoder : str, optional
        Those of the first confirmatory finding if not given.
    metric : str, optional
        The audit's primary metric if not given.

    Raises
    ------
    ReportError
        There is no audit at the path.
    FairnessError
        The attribute or encoder is not in the audit, or fewer than two of its subgroups have counts.
    """
    audit = opened(path).audit_summary
    metric = metric or audit["primary_metric"]
    confirmatory = [row for row in audit["findings"] if row["confirmatory"]]
    if not confirmatory:
        raise FairnessError("the audit has no finding of its declared family to plan from.", where=str(path))
    encoder = _chosen("encoder", encoder, [row["encoder"] for row in confirmatory], path)
    attribute = _chosen("attribute", attribute, [row["attribute"] for row in confirmatory], path)
    rows = [row for row in audit["subgroup_metrics"] if row["encoder"] == encoder and row["task"] == audit["main_task"]]
    of_all = [row for row in rows if row["attribute"] == OVERALL and row["metric"] == metric]
    levels = [row for row in rows if row["attribute"] == attribute and row["metric"] == "auroc"]
    counted = [row for row in levels if row["subgroup"] != UNKNOWN and row["n_pos"] and row["n_neg"]]
    if len(counted) < 2 or not of_all or of_all[0]["value"] is None:
        raise FairnessError(
            f"the audit shows the counts of fewer than two subgroups of {attribute}, or no {metric} of all studies.",
            where=str(path),
            fix="Give --subgroups, --prevalence and --value yourself.",
        )
    finding = next(
        (
            row
            for row in audit["findings"]
            if (row["encoder"], row["attribute"], row["metric"], row["task"])
            == (encoder, attribute, metric, audit["main_task"])
        ),
        None,
    )
    shown = [row["subgroup"] for row in counted]
    worst = finding["worst_subgroup"] if finding else None
    return EarlierAudit(
        encoder=encoder,
        attribute=attribute,
        metric=metric,
        subgroups={row["subgroup"]: row["n_pos"] + row["n_neg"] for row in counted},
        prevalence={row["subgroup"]: row["n_pos"] / (row["n_pos"] + row["n_neg"]) for row in counted},
        value=of_all[0]["value"],
        worse=worst if worst in shown else None,
        comparisons=len(confirmatory),
        studies_per_patient=_studies_per_patient(audit, attribute),
        settings=FairnessSection.model_validate(audit["config"]["fairness"]),
        left_out=sorted(row["subgroup"] for row in levels if row["subgroup"] not in shown),
    )


def _chosen(what: str, wanted: str | None, found: Sequence[str], path: Path) -> str:
    if wanted is None:
        return found[0]
    if wanted not in found:
        known = sorted(set(found))
        raise FairnessError(
            f"the declared family has no {what} {did_you_mean(wanted, known)}; it has {', '.join(known)}.",
            where=str(path),
        )
    return wanted


def _studies_per_patient(audit: Mapping[str, Any], attribute: str) -> float:
    rows = [one for one in audit["cohort_counts"] if one["split"] == "test" and one["attribute"] == attribute]
    studies = sum(one["n_studies"] or 0 for one in rows)
    patients = sum(one["n_patients"] or 0 for one in rows)
    return max(1.0, studies / patients) if patients else 1.0
