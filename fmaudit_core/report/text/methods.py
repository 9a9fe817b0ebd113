"""The methods and limits of an audit, from its settings; in words: `templates/methods.md.jinja` and `limits.md.jinja`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from fmaudit_core.common.vocabulary import THRESHOLD_GIVEN
from fmaudit_core.config import Audit
from fmaudit_core.fairness.calibration_tests import MIN_PATIENTS
from fmaudit_core.fairness.discovery import MOST_REGIONS, UNSTABLE
from fmaudit_core.fairness.region_search import RESAMPLES
from fmaudit_core.fairness.training_counts import SEEDS
from fmaudit_core.report.index.report_data import ReportData
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.report.text.templating import environment

_POLICIES: Final = {
    "fixed_fpr": "a fixed share of false alarms",
    "fixed_sensitivity": "a fixed sensitivity",
    "youden": "Youden's index",
}


def methods(inputs: ReportInput, shown: ReportData) -> list[tuple[str, str]]:
    """Return the heading and paragraph of each method that the audit used."""
    text = _rendered(
        "methods",
        audit=inputs.audit,
        fairness=inputs.audit.fairness,
        encoded=bool(inputs.encoders),
        compared=not shown.tables.comparisons.is_empty(),
        record=not inputs.modality_comparisons.is_empty(),
        mitigated=bool(shown.mitigation_index.cells),
        predicted=not inputs.baselines.is_empty(),
        sources=sorted(shown.index.threshold_sources()),
        min_patients=MIN_PATIENTS,
        refitted=not shown.tables.training_counts.is_empty(),
        searched=not shown.tables.regions.is_empty(),
        seeds=SEEDS,
        most_regions=MOST_REGIONS,
        resamples=RESAMPLES,
        unstable=UNSTABLE,
    )
    parts = (part.partition("\n") for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:])
    return [(heading, _joined(paragraph)) for heading, _, paragraph in parts]


def limits(audit: Audit) -> list[str]:
    """Return what a reader must not conclude, a sentence or two each."""
    return [_joined(one) for one in re.split(r"^- ", _rendered("limits", audit=audit), flags=re.MULTILINE)[1:]]


def operating_threshold(policy: str, sources: Collection[str]) -> str:
    """Return how the operating thresholds came about, in half a sentence, from their origins in `threshold_source`."""
    chosen = f"chosen on validation alone, by {_POLICIES[policy]}"
    if THRESHOLD_GIVEN not in sources:
        return chosen
    return "given by the user" if len(sources) == 1 else f"given by the user for some models, for the others {chosen}"


def _rendered(name: str, **data: object) -> str:
    return environment().get_template(f"templates/{name}.md.jinja").render(data)


def _joined(lines: str) -> str:
    return " ".join(lines.split())
