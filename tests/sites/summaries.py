"""Summaries of drawn sites, without an audit."""

from __future__ import annotations

from typing import Any

from fmaudit_core.fairness.site_contrasts import Shown, site_contrasts
from fmaudit_core.sites.summary_file import (
    AssessedModel,
    AttributeBands,
    Comparison,
    Site,
    SiteSummary,
    SubgroupResult,
)

#: subgroup -> UDR and sick patients
GROUPS = {"female": (0.2, 400), "male": (0.3, 500)}


def summary(
    site: str = "a", groups: dict[str, tuple[float, int]] | None = None, *, attribute: str = "sex",
    bands: tuple[str, ...] | None = None, counts: str = "exact", labels: str = "report", **model: Any,
) -> SiteSummary:  # fmt: skip
    """A site with one model, attribute and metric."""
    of = groups or GROUPS
    shown = [Shown(name, value, float(n)) for name, (value, n) in of.items()]
    found = [
        SubgroupResult(
            subgroup=one.subgroup, n=of[one.subgroup][1], value=of[one.subgroup][0], n_effective=of[one.subgroup][1],
            theta=one.theta, others=one.others, variance=one.variance,
        )
        for one in site_contrasts("udr", shown, {})
    ]  # fmt: skip
    told: dict[str, Any] = {
        "encoder": "net", "encoder_digest": "d" * 32, "task": "pe", "title": "Embolism", "probe": "p" * 32,
        "policy": "fixed_fpr", "target": 0.2, "threshold": 0.4,
    }  # fmt: skip
    return SiteSummary(
        site=Site(name=site, labels=labels, withholds=counts == "rounded"),
        confidence=0.95,
        suppress_under=10,
        test_from=25,
        models=(AssessedModel(**told | model),),
        attributes=(AttributeBands(attribute=attribute, bands=bands),),
        comparisons=(
            Comparison(encoder="net", task="pe", attribute=attribute, metric="udr", counts=counts, subgroups=found),
        ),
    )


def three(**changes: Any) -> list[SiteSummary]:
    """Three sites where more men are missed."""
    return [
        summary("a", {"female": (0.20, 400), "male": (0.30, 500)}, **changes),
        summary("b", {"female": (0.25, 300), "male": (0.36, 200)}, **changes),
        summary("c", {"female": (0.22, 150), "male": (0.31, 160)}, **changes),
    ]
