"""The section "Why": what goes with a gap, in words that claim no cause, and nothing about small groups."""

from __future__ import annotations

import dataclasses
import json
import re

import jsonschema
import polars as pl
import pytest

from fmaudit_core.report.documents.audit_json import schema_text, summary, with_report_sentences
from fmaudit_core.report.index.report_data import index_report_data
from fmaudit_core.report.input.report_input import ADJUSTED
from fmaudit_core.report.sections.why import why_section, why_sentence
from fmaudit_core.report.text.methods import methods
from fmaudit_core.report.text.templating import environment
from tests.report.frames import made_up

KEY = {"encoder": "lite0", "task": "pe", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
TESTED = {
    "status": "tested", "reason": None, "covariates": ["acquisition.manufacturer", "site"], "mediators": [],
    "crude": 0.2201, "crude_low": 0.144, "crude_high": 0.2963, "crude_p": 0.00001,
    "adjusted": 0.1126, "adjusted_low": 0.0291, "adjusted_high": 0.1962, "adjusted_p": 0.0084,
    "adjusted_p_within": 0.008,
    "explained": 0.1075, "explained_low": 0.0652, "explained_high": 0.1498,
    "share": 0.488, "share_low": 0.25, "share_high": 0.92, "att": 0.1396, "att_low": 0.041, "att_high": 0.2382,
    "n_effective": 201.2, "imbalance_before": 0.9493, "imbalance": 0.0, "largest_weight": 0.0065, "outside": 0.0,
}  # fmt: skip
BLANK = dict.fromkeys(name for name in TESTED if re.match(r"adjusted|explained|share|att", name))
REFUSED = TESTED | BLANK | {"status": "no_overlap", "reason": "few_effective", "n_effective": 7.8, "outside": 0.3}


def row(attribute, subgroup, metric="udr", **changes):
    return KEY | {"attribute": attribute, "subgroup": subgroup, "metric": metric} | TESTED | changes


@pytest.fixture(scope="module")
def inputs():
    base = made_up(poolings=("mean",), small_group=True)
    worst = {
        one["attribute"]: one["worst_subgroup"]
        for one in base.audit_findings.filter(encoder="lite0", task="pe", metric="udr", pooling="mean").to_dicts()
    }
    verdicts = pl.when(attribute="age_band").then(pl.lit("disparity")).otherwise(pl.lit("insufficient_evidence"))
    rows = [row(attribute, subgroup) for attribute, subgroup in worst.items() if attribute != "sex"]
    rows.append(KEY | {"attribute": "sex", "subgroup": worst["sex"], "metric": "udr"} | REFUSED)
    rows.append(row("race_ethnicity", "nh_nhpi"))
    audit = base.audit.model_copy(update={"covariates": ("acquisition.manufacturer", "site"), "mediators": ()})
    return dataclasses.replace(
        base,
        audit=audit,
        audit_findings=base.audit_findings.with_columns(verdict=verdicts),
        adjusted_gaps=pl.DataFrame(rows, schema=ADJUSTED),
    )


@pytest.fixture(scope="module")
def shown(inputs):
    return index_report_data(inputs)


def test_a_gap_is_told_before_and_after_without_a_cause():
    text = why_sentence(row("age_band", "18-40", counts="exact"))
    assert text == (
        "Age band, 18\N{EN DASH}40: share missed (UDR) differs from the other subgroups by +22.0 points (14.4 to 29.6). After "
        "standardising for Scanner manufacturer and Site, +11.3 points (2.9 to 19.6) is left (exploratory p = 0.008); +10.8 "
        "points (6.5 to 15.0) goes with them. That is 49% of the gap (25 to 92%)."
    )
    assert not re.search(r"because|due to|cause|explain", text)


def test_a_mediator_is_marked():
    text = why_sentence(row("age_band", "18-40", counts="exact", mediators=["site"]))
    assert text.endswith("Site may follow from the subgroup: what goes with it can still belong to the subgroup.")


@pytest.mark.parametrize("reason", ["separated", "few_effective", "unbalanced", "one_study"])
def test_without_overlap_there_is_no_answer_and_a_reason(reason):
    refused = REFUSED | {"reason": reason}
    text = why_sentence(row("sex", "male", counts="exact", **refused))
    assert text.startswith(
        "Sex, Male: how much of the gap goes with Scanner manufacturer and Site cannot be answered, because"
    )
    assert not re.search(r"\d", text)


def test_small_groups_are_left_out_and_their_neighbours_are_rounded(shown):
    adjusted = shown.tables.adjusted
    assert "nh_nhpi" not in adjusted["subgroup"].to_list()
    by_attribute = {one["attribute"]: one for one in adjusted.to_dicts()}
    beside = by_attribute["race_ethnicity"]
    assert (beside["counts"], beside["crude"], beside["adjusted_high"], beside["n_effective"]) == (
        "rounded",
        0.22,
        0.2,
        200,
    )
    assert (by_attribute["age_band"]["counts"], by_attribute["age_band"]["crude"]) == ("exact", 0.2201)
    assert by_attribute["sex"]["n_effective"] is None  # fewer than may be shown


def test_a_share_is_shown_of_a_disparity_only(shown):
    shares = {one["attribute"]: one["share"] for one in shown.tables.adjusted.to_dicts()}
    assert shares == {"age_band": 0.49, "race_ethnicity": None, "sex": None}


def test_the_section_is_folded_and_absent_without_covariates(inputs, shown):
    why = why_section(shown.index, shown.tables.adjusted)
    html = environment().get_template("sections/why.html.jinja").render(why=why, training_counts=[])
    assert "<details" in html
    assert "open" not in re.search(r"<details[^>]*>", html)[0]
    assert len(why.views) == 1
    assert len(why.views[0].sentences) == 3
    assert "No answer: too few of its patients are like those of the other subgroups" in html
    said = re.sub(r"<[^>]+>", " ", html).lower()
    assert not re.search(r"because of|due to|signific|\bfair", said)
    bare = index_report_data(dataclasses.replace(inputs, adjusted_gaps=pl.DataFrame(schema=ADJUSTED)))
    assert why_section(bare.index, bare.tables.adjusted) is None


def test_audit_json_has_every_row_and_its_schema_describes_them(inputs, shown):
    content = summary(inputs, shown, with_report_sentences(shown), {})
    rows = json.loads(json.dumps(content["adjusted_gaps"]))
    assert len(rows) == 3
    schema = json.loads(schema_text())
    described = schema["$defs"]["adjusted"]
    assert set(rows[0]) == set(described["properties"])
    jsonschema.Draft202012Validator({"$defs": schema["$defs"], "type": "array", "items": described}).validate(rows)


def test_the_methods_name_the_covariates_and_say_nothing_without_any(inputs, shown):
    about = "Gaps standardised for covariates"
    assert "Declared before looking: Scanner manufacturer, Site." in dict(methods(inputs, shown))[about]
    bare = dataclasses.replace(inputs, audit=inputs.audit.model_copy(update={"covariates": ()}))
    assert about not in dict(methods(bare, shown))
