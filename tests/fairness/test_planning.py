"""Planned sizes: closed forms against published values and statsmodels, simulated power against new simulations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import plan
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.planned_cohort import Design, Subgroup, drawn_cohort, n_permutations
from fmaudit_core.fairness.planning import power_at
from fmaudit_core.fairness.sample_size import auroc_variance, design_effect, fleiss_size
from fmaudit_core.report.documents.audit_json import SCHEMA_VERSION
from fmaudit_core.report.errors import ReportError
from fmaudit_core.standalone.plan_from_audit import earlier_audit
from fmaudit_dagster.cli.main import main

WARDS = {"A": 0.5, "B": 0.3, "C": 0.2}


def design(**changes: Any) -> Design:
    given: dict[str, Any] = {
        "subgroups": {name: Subgroup(share, 0.3) for name, share in WARDS.items()},
        "worse": "C", "metric": "udr", "value": 0.3, "gap": 0.2, "comparisons": 1, "studies_per_patient": 1.0, "icc": 0.5,
        "settings": FairnessSection(),
    }  # fmt: skip
    return Design(**given | changes)


def test_fleiss_gives_the_published_size():
    """Fleiss, Levin & Paik 2003, table A.4: 0.20 against 0.40, 5 % two-sided, power 80 %: 91 in each group."""
    assert np.ceil(fleiss_size(0.2, 0.4, ratio=1, alpha=0.05, power=0.8)) == 91


@pytest.mark.parametrize(("first", "second", "ratio"), [(0.45, 0.3, 1), (0.45, 0.3, 4), (0.1, 0.2, 0.5)])
def test_fleiss_without_the_correction_is_the_size_of_statsmodels(first, second, ratio):
    with_correction = fleiss_size(first, second, ratio=ratio, alpha=0.05, power=0.8)
    # the correction adds (r + 1) / (r |d|), less a term of second order
    plain = samplesize_proportions_2indep_onetail(
        first - second, second, 0.8, ratio=ratio, alpha=0.05, alternative="two-sided"
    )
    added = (ratio + 1) / (ratio * abs(first - second))
    assert plain + 0.9 * added < with_correction < plain + 1.02 * added


def test_the_variance_of_auroc_is_that_of_normal_scores():
    rng = np.random.default_rng(1)
    y = np.arange(40_000) < 8_000
    found = auroc(y, rng.normal(size=len(y)) + 1.2 * y)
    assert auroc_variance(found.value, 4.0) == pytest.approx(8_000 * found.se**2, rel=0.06)


@pytest.mark.parametrize("metric", ["udr", "fpr", "auroc"])
def test_a_drawn_cohort_has_the_planned_values_prevalence_and_correlation(metric):
    base = 0.85 if metric == "auroc" else 0.3
    planned = design(metric=metric, value=base, gap=0.15, studies_per_patient=2.0)
    cohort = drawn_cohort(planned, 30_000, np.random.default_rng(2))
    for at, value in enumerate(planned.values()):
        level = cohort.level(at)
        found = {"udr": level.missed, "fpr": level.alarmed, "auroc": level.ranked}[metric]
        assert found.value == pytest.approx(value, abs=4 * found.se)
        assert level.y_true.mean() == pytest.approx(0.3, abs=0.02)
    if metric != "auroc":
        at = list(planned.subgroups).index("A")
        observed = {"udr": cohort.level(at).missed, "fpr": cohort.level(at).alarmed}[metric].design_effect
        assert design_effect(planned) == pytest.approx(observed, rel=0.06)


@pytest.mark.parametrize(
    ("metric", "value", "planned"),
    [("udr", 0.3, {"gap": 0.25}), ("auroc", 0.85, {"gap": 0.15}), ("fpr", 0.2, {"margin": 0.15})],
)
def test_planned_audits_have_the_wanted_power(metric, value, planned):
    """New simulated audits of the planned size: as many find it as wanted, within what both simulations may be off."""
    found = plan(WARDS, prevalence=0.4, value=value, metric=metric, draws=150, studies_per_patient=1.3, **planned)
    n_audits = 150
    again = power_at(found.design, found.n_patients, n_audits, first=100_000)
    low, high = binom.interval(1 - 6e-5, n_audits // 2, 0.8)  # the plan is as uncertain as the check
    assert low <= again.n_found / 2 <= high
    assert found.patients["n_patients"].sum() == pytest.approx(found.n_patients, abs=3)
    assert found.curve["n_patients"].is_sorted()
    assert found.closed_form == pytest.approx(found.n_patients, rel=0.5)


def test_a_plan_is_the_same_twice_and_counts_what_is_needed():
    one, two = (plan({"x": 1, "y": 1}, prevalence=0.5, value=0.2, margin=0.2, draws=100) for _ in range(2))
    assert one.n_patients == two.n_patients
    assert one.patients.equals(two.patients)
    assert (one.patients["n_with"] >= 25).all()


def test_permutations_suffice_for_the_level_of_the_family():
    assert n_permutations(0.05) == 399
    assert (n_permutations(0.05 / 9) + 1) * 0.05 / 9 >= 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subgroups": {"A": 1.0}}, "at least two subgroups"),
        ({"subgroups": {"A": 1.0, "unknown": 1.0}}, "not a subgroup of people"),
        ({"subgroups": {"A": 1.0, "B": 0.0}}, "share of every subgroup"),
        ({"prevalence": 20}, "such as 0.2 for 20 %"),
        ({"prevalence": {"A": 0.1, "B": 0.1}}, "the prevalence of C is not given"),
        ({"worse": "D"}, "which are A, B, C"),
        ({"metric": "tpr"}, "must be one of"),
        ({"value": 0.9}, "does not lie between 0 and 1"),
        ({"metric": "auroc", "value": 0.6, "gap": 0.2}, "no better than chance"),
        ({"gap": -0.1}, "must be above 0"),
        ({"gap": 0.0}, "either a gap to find or a margin"),
        ({"margin": 0.05}, "either a gap to find or a margin"),
        ({"gap": 0.0, "margin": 5}, "such as 0.05 for 5 points"),
        ({"power": 80}, "from 0.5 to 0.99"),
        ({"comparisons": 0}, "at least one comparison"),
        ({"studies_per_patient": 0.5}, "from 1 to 100"),
        ({"icc": 2}, "from 0 to 1"),
        ({"draws": 5}, "at least 100"),
        ({"gap": 0.001}, "would need about"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(changes, message):
    given = {"subgroups": WARDS, "prevalence": 0.3, "value": 0.3, "gap": 0.2} | changes
    with pytest.raises(FairnessError, match=message):
        plan(given.pop("subgroups"), **given)


def audit(path: Path, **changes: Any) -> Path:
    """Write as much of an audit.json as a plan reads."""
    row = {"encoder": "one", "task": "pe", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
    rows = [
        row | {"attribute": "ward", "subgroup": name, "metric": "auroc", "n_pos": n_pos, "n_neg": n_neg}
        for name, n_pos, n_neg in (("A", 100, 300), ("B", 60, 240), ("C", None, None), ("unknown", 40, 60))
    ]
    rows.append(row | {"attribute": "overall", "subgroup": "all", "metric": "udr", "value": 0.3})
    finding = row | {"attribute": "ward", "metric": "udr", "confirmatory": True, "worst_subgroup": "B"}
    counts = {"split": "test", "attribute": "ward", "subgroup": "A", "n_studies": 480, "n_patients": 400}
    content = {
        "schema_version": SCHEMA_VERSION, "main_task": "pe", "primary_metric": "udr", "findings": [finding, finding],
        "subgroup_metrics": rows, "cohort_counts": [counts], "config": {"fairness": FairnessSection().model_dump()},
    }  # fmt: skip
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_an_earlier_audit_gives_the_numbers_of_a_plan(tmp_path):
    found = earlier_audit(audit(tmp_path / "audit.json"))
    assert found.subgroups == {"A": 400, "B": 300}
    assert found.prevalence == {"A": 0.25, "B": 0.2}
    assert (found.value, found.worse, found.comparisons, found.studies_per_patient) == (0.3, "B", 2, 1.2)
    assert found.left_out == ["C", "unknown"]


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({}, {"attribute": "wards"}, "did you mean ward"),
        ({}, {"encoder": "two"}, "has no encoder two"),
        ({}, {"metric": "fpr"}, "Give --subgroups"),
        ({"findings": []}, {}, "no finding of its declared family"),
        ({"subgroup_metrics": []}, {}, "fewer than two subgroups of ward"),
    ],
)
def test_an_audit_that_lacks_a_number_says_which(tmp_path, changes, wanted, message):
    path = audit(tmp_path / "audit.json", **changes)
    with pytest.raises(FairnessError, match=r"(?i)" + message):
        earlier_audit(path, **wanted)
    with pytest.raises(ReportError, match="does not exist"):
        earlier_audit(tmp_path / "other.json")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["plan", *(str(one) for one in arguments)])


def test_the_command_prints_patients_by_subgroup_and_a_curve(tmp_path):
    result = call("--gap", 0.4, "--from", audit(tmp_path / "audit.json"), "--draws", 100)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "one, ward, a family of 2." in text
    assert "Left out, because the audit withholds their counts or tests none: C, unknown." in text
    assert "tested at 0.025 for 2 comparisons." in text
    assert "Patients by power" in text
    assert "a gap of 40.0 points in B with a probability of 80%" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gap", 0.1], "--subgroups, --prevalence, --value must be given"),
        (["--gap", 0.1, "--margin", 0.1], "give either --gap or --margin"),
        (["--gap", 0.1, "--encoder", "one"], "go with --from"),
        (["--gap", 0.1, "--subgroups", "A,B=1"], "as NAME=SHARE"),
        (["--gap", 0.1, "--subgroups", "A=x,B=1"], "'x' is not a number"),
        (["--gap", 0.9, "--subgroups", "A=1,B=1", "--prevalence", 0.2, "--value", 0.3], "between 0 and 1"),
    ],
)
def test_the_command_refuses_what_it_cannot_plan(arguments, message):
    result = call(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
