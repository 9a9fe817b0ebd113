"""Training counts in the section "Why", and the section "Who else": words without causes, and nothing about small groups."""

from __future__ import annotations

import dataclasses
import json
import re

import jsonschema
import polars as pl
import pytest

from fmaudit_core.config import ReportSection
from fmaudit_core.report.documents.audit_json import schema_text, summary, with_report_sentences
from fmaudit_core.report.index.report_data import index_report_data
from fmaudit_core.report.input.report_input import CURVES, DISCOVERED, TRAINING, TRAITS
from fmaudit_core.report.page import render_page
from fmaudit_core.report.sections.training_counts import counts_sentence, training_count_views
from fmaudit_core.report.sections.who_else import nothing_sentence, region_sentence, who_else_views
from fmaudit_core.report.text.methods import methods
from tests.report.frames import made_up

KEY = {"encoder": "lite0", "task": "pe", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
COUNTS = {
    "status": "tested", "n_pos": 143, "n_neg": 612, "n_pos_each": 121, "n_neg_each": 598, "n_seeds": 5,
    "gap_all": 0.1512, "gap_random": 0.1623, "gap_equal": 0.0312, "gap_contrast": 0.1311, "gap_contrast_low": 0.0402,
    "gap_contrast_high": 0.2219, "gap_contrast_p": 0.00512, "subgroup_change": -0.0911, "subgroup_change_low": -0.17,
    "subgroup_change_high": -0.01, "rest_change": 0.0398, "rest_change_low": 0.01, "rest_change_high": 0.07,
}  # fmt: skip
FEW = dict.fromkeys(name for name in COUNTS if re.match(r"gap|subgroup_|rest|n_seeds", name)) | {
    "status": "few_training", "n_pos_each": 4, "n_neg_each": 80,
}  # fmt: skip
REGION = {
    "finder": "direction", "region": 1, "status": "tested", "confirmed": True, "rule": [], "share": 0.1, "n": 317, "n_pos": 64,
    "udr": 0.6094, "expected": 0.3811, "rest_udr": 0.3012, "rest_expected": 0.3127, "excess": 0.2398, "excess_low": 0.1207,
    "excess_high": 0.3589, "p_value": 0.00002, "p_adjusted": 0.00006, "stability": 0.61, "detectable": 0.1544,
}  # fmt: skip
RULE = REGION | {"finder": "rules", "region": 2, "share": None, "stability": 0.31}
TRAIT = {
    "region": 1, "column": "acquisition.manufacturer", "level": "maker b", "share_inside": 0.6123, "share_outside": 0.2978,
    "odds_ratio": 3.724, "odds_low": 2.811, "odds_high": 4.933, "q_value": 0.0000004,
}  # fmt: skip


def counts(attribute, subgroup, **changes):
    return KEY | {"attribute": attribute, "subgroup": subgroup} | COUNTS | changes


@pytest.fixture(scope="module")
def inputs():
    base = made_up(poolings=("mean",), small_group=True)
    of_pe = base.audit_findings.filter(encoder="lite0", task="pe", metric="udr", pooling="mean")
    worst = {one["attribute"]: one["worst_subgroup"] for one in of_pe.to_dicts()}
    rows = [counts(attribute, subgroup) for attribute, subgroup in worst.items() if attribute != "sex"]
    rows += [counts("sex", worst["sex"], **FEW), counts("race_ethnicity", "nh_nhpi")]
    curve = KEY | {"attribute": "age_band", "subgroup": worst["age_band"]}
    curves = [
        curve | {"step": i + 1, "n_pos": 24, "n_neg": 120, "value": 0.5 - 0.0514 * i, "lowest": 0.2, "highest": 0.6}
        for i in range(5)
    ]
    regions = [
        KEY | REGION,
        KEY | RULE | {"rule": ["sex = female", "record.I26 = yes", "acquisition.kernel != soft"]},
        KEY | RULE | {"region": 3, "rule": ["race_ethnicity = nh_black"]},
        KEY
        | {"task": "mortality_1m", "finder": "", "region": 0, "status": "none", "confirmed": False, "detectable": 0.2},
    ]
    traits = [KEY | TRAIT, KEY | TRAIT | {"column": "race_ethnicity", "level": "nh_black"}]
    return dataclasses.replace(
        base,
        training_counts=pl.DataFrame(rows, schema=TRAINING),
        learning_curves=pl.DataFrame(curves, schema=CURVES),
        discovered_subgroups=pl.DataFrame(regions, schema=DISCOVERED),
        discovered_traits=pl.DataFrame(traits, schema=TRAITS),
    )


@pytest.fixture(scope="module")
def shown(inputs):
    return index_report_data(inputs)


def test_a_gap_under_equal_counts_is_described_without_a_cause():
    text = counts_sentence(counts("age_band", "18-40"))
    assert text == (
        "Age band, 18\N{EN DASH}40: with the probe refitted on equally many training studies of every subgroup, share "
        "missed (UDR) differs from the other subgroups by +3 points; refitted on as many studies drawn at random, by "
        "+16 points. So +13 points (4 to 22) of the gap goes with the mix of training studies (exploratory p = 0.005). "
        "This subgroup is missed 9 points less often, the others 4 points more often."
    )
    assert not re.search(r"because|due to|cause|explain|doubling", text)


def test_a_gap_that_narrows_since_the_others_get_worse_is_no_gain():
    text = counts_sentence(counts("age_band", "18-40", subgroup_change=0.002, rest_change=0.14))
    assert text.endswith(
        "The gap narrows mostly because the others get worse: they are missed 14 points more often, and this subgroup "
        "as often as before."
    )


def test_few_training_studies_are_said_without_a_number():
    assert not re.search(r"\d", counts_sentence(counts("sex", "male", **FEW)))


def test_regions_are_described_with_what_scores_predict():
    assert region_sentence(REGION) == (
        "A tenth of the studies, those furthest along a direction in the embedding: 61% of the disease is missed "
        "there, where the scores predict 38%; among the other studies 30%, where they predict 31%. That is +24 "
        "points (12 to 36) beyond what the scores predict (adjusted p < 0.001)."
    )
    text = region_sentence(RULE | {"rule": ["sex = female", "record.I26 = no", "acquisition.kernel != soft"]})
    assert text.startswith(
        "Studies with Sex Female and no record code I26 before the study and Reconstruction kernel other than Soft: 61%"
    )
    assert text.endswith("The region is unstable: a search in other patients would draw it elsewhere.")


def test_nothing_found_carries_what_could_have_been_found():
    assert "missed 15 points more often than expected" in nothing_sentence(REGION)
    assert not re.search(r"\d", nothing_sentence(REGION | {"detectable": None}))


def test_small_groups_are_left_out_of_training_counts_and_counts_are_in_tens(shown):
    table = shown.tables.training_counts
    assert "nh_nhpi" not in table["subgroup"].to_list()
    by_attribute = {one["attribute"]: one for one in table.to_dicts()}
    names = ("n_pos", "n_neg", "n_pos_each", "n_neg_each")
    assert [by_attribute["age_band"][name] for name in names] == [140, 610, 120, 600]
    for attribute in ("race_ethnicity", "sex"):  # next to a small group, and with few in training
        assert [by_attribute[attribute][name] for name in names] == [None] * 4
    assert by_attribute["race_ethnicity"]["gap_contrast"] == 0.13


def test_a_region_of_an_attribute_with_a_small_group_is_withheld(shown):
    first, second, third, nothing = shown.tables.regions.to_dicts()
    assert (first["n"], first["n_pos"], first["udr"], first["excess"]) == (320, 60, 0.61, 0.24)
    assert (second["status"], second["confirmed"]) == ("tested", True)
    assert (third["status"], third["confirmed"], third["rule"]) == ("withheld", False, None)
    assert {third[name] for name in ("n", "udr", "excess", "p_value", "p_adjusted", "stability")} == {None}
    assert (nothing["status"], nothing["detectable"]) == ("none", 0.2)
    assert shown.tables.traits["column"].to_list() == ["acquisition.manufacturer"]


def test_both_sections_are_folded_and_absent_without_rows(inputs, shown):
    html = render_page(inputs, shown)
    for name in ("why", "who-else"):
        section = re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)[0]
        assert "<details" in section
        assert not re.search(r"<details[^>]* open", section)
        said = re.sub(r"<[^>]+>", " ", section).lower()
        assert not re.search(r"because of|due to|signific|\bfair|nhpi|pacific", said)
        assert f'href="#{name}"' in html
    assert "Scanner manufacturer Maker b (61% against 30%; odds ratio 3.7, q &lt; 0.001)" in html
    assert "50%, 45%, 40%, 35%, 29%" in html
    bare = dataclasses.replace(
        inputs, training_counts=pl.DataFrame(schema=TRAINING), discovered_subgroups=pl.DataFrame(schema=DISCOVERED)
    )
    tables = index_report_data(bare)
    assert training_count_views(tables.index, tables.tables.training_counts, tables.tables.learning_curves) == []
    assert who_else_views(tables.index, tables.tables.regions, tables.tables.traits) == []
    assert 'id="who-else"' not in render_page(bare, tables)


def test_a_montage_is_shown_only_with_a_region_that_is_and_only_if_the_audit_asks_for_images(inputs):
    pngs = {("lite0", "pe", region): f"PNG{region}" for region in (1, 2, 3)}
    for images, wanted in ((True, [True, True, False]), (False, [False, False, False])):
        audit = inputs.audit.model_copy(update={"report": ReportSection(images=images)})
        html = render_page(dataclasses.replace(inputs, audit=audit, montages=pngs))
        assert [f"data:image/png;base64,{png}" in html for png in pngs.values()] == wanted


def test_audit_json_has_every_row_and_its_schema_describes_them(inputs, shown):
    content = summary(inputs, shown, with_report_sentences(shown), {})
    schema = json.loads(schema_text())
    for name, of in (
        ("training_counts", "training_count"),
        ("discovered_subgroups", "region"),
        ("discovered_traits", "trait"),
    ):
        rows = json.loads(json.dumps(content[name]))
        described = schema["$defs"][of]
        assert set(rows[0]) == set(described["properties"])
        jsonschema.Draft202012Validator({"$defs": schema["$defs"], "type": "array", "items": described}).validate(rows)


def test_the_methods_describe_both_and_neither_where_it_was_not_done(inputs, shown):
    about = dict(methods(inputs, shown))
    assert {"Equal training counts", "Subgroups nobody named"} <= set(about)
    bare = made_up(poolings=("mean",))
    assert not {"Equal training counts", "Subgroups nobody named"} & set(dict(methods(bare, index_report_data(bare))))
