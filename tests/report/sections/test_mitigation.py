"""Mitigation on the page: every strategy, whom it helps and harms, levelling down by name, and no number of a small group."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import STRATEGIES
from fmaudit_core.report.disclosure.disclosure import Disclosed, disclose
from fmaudit_core.report.export import write_report
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.report.page import render_page
from tests.report.frames import made_up
from tests.report.mitigation_frames import SMALL_SHARE, mitigated
from tests.report.reading import Page, packed, without_plotly

MINUS = "\N{MINUS SIGN}"
TABLES = (
    "mitigation_results", "mitigation_subgroups", "mitigation_recommendations", "mitigation_leakage", "demographic_probes",
    "mitigation_capacity", "mitigation_interactions", "mitigation_ladder",
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    return mitigated(made_up(poolings=("mean",)))


@pytest.fixture(scope="module")
def text(inputs: ReportInput) -> str:
    return render_page(inputs)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(without_plotly(text))


@pytest.fixture(scope="module")
def small() -> tuple[ReportInput, Disclosed]:
    made = mitigated(made_up(small_group=True, poolings=("mean",)), small_group=True)
    return made, disclose(made)


def test_what_would_help_stands_in_the_summary(page: Page) -> None:
    summary = page.visible[: page.visible.index("One line for each encoder and attribute")]
    # in brief for several encoders, at length below
    gain = (
        "Recommended Last-layer balanced retraining (DFR), aimed at age band, narrows the gap in missed disease from 31.0 "
        "points to 9.7 points (adjusted p = 0.003)."
    )
    price = "The price: in 61\N{EN DASH}74 false alarms rise by 6.3 points."
    assert f"EfficientNet-lite0 (ImageNet) {gain} {price}" in summary
    assert (
        "EfficientNet-lite1 (ImageNet) None recommended What narrows the gap costs too much AUROC or only harms those missed "
        "least." in summary
    )
    assert (
        f"{gain} In 18\N{EN DASH}40, the subgroup missed most, the share missed falls by 17.2 points. AUROC falls by 0.004. "
        f"{price}" in page.visible
    )
    assert "None recommended None is recommended, though the gap can be narrowed:" in page.visible
    assert "HU histogram" not in summary[summary.index("What would help?") : summary.index("Each strategy against")]


def test_none_is_recommended_with_its_reason(page: Page) -> None:
    assert "group resampling, aimed at age band, lowers AUROC by 0.190, more than the margin of 0.02" in page.visible
    assert (
        "linear erasure (LEACE), aimed at age band, levels down (41\N{EN DASH}60 is missed more, and 18\N{EN DASH}40 no less "
        "beyond chance)" in page.visible
    )
    assert "None is recommended: the audit has shown no disparity in missed disease" in page.visible
    assert re.search(
        r"none of the \d strategies tried narrows the gap by age band by more than chance explains", page.visible
    )


def test_strategies_are_counted_once_whatever_the_attributes_they_are_aimed_at(inputs: ReportInput) -> None:
    both = pl.col("attribute").is_in(["age_band", "sex"]) & (pl.col("metric") == "udr")
    found = inputs.audit_findings.with_columns(verdict=pl.when(both).then(pl.lit("disparity")).otherwise("verdict"))
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, audit_findings=found)))).visible
    assert "none of the 7 strategies tried narrows the gap by sex and age band by more than chance explains" in said


def test_every_strategy_is_told_with_the_numbers_of_the_table(inputs: ReportInput, page: Page) -> None:
    own = inputs.mitigation_results.filter(
        pl.col("attribute") == pl.col("target_attribute"), pl.col("seed").is_null(), "chosen", status="evaluated"
    )
    assert set(own["strategy"]) == set(STRATEGIES)
    for row in own.iter_rows(named=True):
        shown = [f"{100 * row['gap_before']:.1f}", f"{100 * row['gap_after']:.1f}"]
        change = f"{-100 * row['reduction']:+.1f} ".replace("-", MINUS)
        assert any(
            [one.split(" ")[0] for one in cells[1:3]] == shown and cells[3].startswith(change)
            for cells in page.rows
            if len(cells) == 9
        ), row


def test_levelling_down_collapse_price_and_failure_are_named(page: Page) -> None:
    notes = [cells[-1] for cells in page.rows if len(cells) == 9]
    assert sum(one.startswith("levels down") for one in notes) == 2 * 2  # LEACE by age, encoders and tasks
    assert sum(one.startswith("not interpretable") for one in notes) == 2 * 2  # resampling by age
    assert any(
        "1 of 5 runs collapsed; over 5 seeds the gap varies by 1.3 points (sd), AUROC by 0.004" in one for one in notes
    )
    assert any(one.startswith("without 2 of 7 runs, which did not stay finite; 1 of 5 runs collapsed") for one in notes)
    assert sum(cells[1:] == ["Not evaluated", "too few patients"] for cells in page.rows) == 4


def test_a_gap_wider_beyond_chance_is_no_chance(inputs: ReportInput, text: str, page: Page) -> None:
    told = [cells for cells in page.rows if len(cells) == 9 and "wider, beyond chance" in cells[-1]]
    assert [(cells[0], cells[3].split(" ")[0], cells[4]) for cells in told] == [
        ("Importance weighting", "+12.0", "0.004")
    ] * 2
    assert "◆ Wider, beyond chance" in page.visible
    drawn = json.loads(packed(text, "data"))["mitigation"]
    marks = {one["name"]: one for one in drawn["lite0|pe"]["gaps"]["data"]}
    assert marks["wider than before, beyond chance"]["x"] == [16.0]
    assert all(one["name"] != "wider than before, beyond chance" for one in drawn["lite1|pe"]["gaps"]["data"])
    unequal = pl.when(attribute="sex", metric="udr").then(pl.lit("disparity")).otherwise("verdict")
    found = inputs.audit_findings.with_columns(verdict=unequal)
    verdict = inputs.mitigation_recommendations.with_columns(verdict=pl.lit("none_narrows"))
    said = Page(
        without_plotly(
            render_page(dataclasses.replace(inputs, audit_findings=found, mitigation_recommendations=verdict))
        )
    ).visible
    assert "Wider than before, beyond chance: importance weighting, aimed at sex." in said


def test_nobody_is_called_fair_or_debiased(page: Page) -> None:
    said = (page.visible + " ".join(page.attributes)).lower()
    assert not re.search(r"\b(un)?fair(ly|ness)?\b|debias", said)
    assert "signific" not in said


def test_a_strategy_that_failed_has_no_arrows_and_every_other_one_has(text: str) -> None:
    figures = json.loads(packed(text, "data"))["mitigation"]
    assert set(figures) == {"lite0|pe", "lite0|mortality_1m", "lite1|pe", "lite1|mortality_1m"}
    for one in figures.values():
        assert set(one["arrows"]) == set(STRATEGIES)
        assert [panel["title"] for panel in one["price"]] == ["Race and ethnicity", "Sex", "Age band"]
        assert one["probing"]["data"]
    # of the sexes two have arrows, of the race none where the strategy could not be fitted
    labels = figures["lite0|pe"]["arrows"]["group_dro"]["layout"]["yaxis"]["ticktext"]
    assert "Female" in labels
    assert "Hispanic" not in labels


def test_arrows_and_price_are_the_numbers_of_the_table(inputs: ReportInput) -> None:
    from fmaudit_core.report.index.mitigation_index import MitigationIndex
    from fmaudit_core.report.index.score_set_index import ScoreSetIndex
    from fmaudit_core.report.sections.mitigation_figures import mitigation_figure_sets

    tables = disclose(inputs)
    index = ScoreSetIndex(inputs, tables)
    found = mitigation_figure_sets(index, MitigationIndex(inputs.audit, tables))["lite0|pe"]
    drawn = [one for one in found["arrows"]["dfr"]["data"] if one.get("name") in ("before", "after")]
    aimed = pl.col("target_attribute") == pl.col("attribute")
    rows = inputs.mitigation_subgroups.filter(aimed, encoder="lite0", task="pe", strategy="dfr", metric="udr")
    for name in ("before", "after"):
        shown = sorted(x for one in drawn if one["name"] == name for x in one["x"])
        assert shown == pytest.approx(sorted(100 * one for one in rows[name]), abs=1e-3)
    age = next(panel["figure"] for panel in found["price"] if panel["title"] == "Age band")
    path = next(one for one in age["data"] if one["name"] == "adversarial, by alpha")
    assert path["text"] == ["0", "0.5", "1", "2"]
    seeds = next(one for one in age["data"] if one["name"] == "single seeds")
    assert len(seeds["x"]) == 1 + 2 + 2 * 3  # of resampling both at one place, of GroupDRO two, and two of each alpha
    assert age["layout"]["shapes"][0]["y0"] == pytest.approx(0.81 - 0.02)


def test_the_same_rows_in_any_order_give_the_same_page(inputs: ReportInput, text: str) -> None:
    shuffled = {name: getattr(inputs, name).sample(fraction=1.0, shuffle=True, seed=3) for name in TABLES}
    assert render_page(dataclasses.replace(inputs, **shuffled)) == text


def test_without_mitigation_there_is_no_section() -> None:
    said = render_page(made_up(poolings=("mean",)))
    assert 'id="mitigation"' not in said
    assert "What would help?" not in said
    assert json.loads(packed(said, "data"))["mitigation"] == {}


def test_a_small_subgroup_has_no_number_in_any_table_of_mitigation(small: tuple[ReportInput, Disclosed]) -> None:
    rows = small[1].mitigation.subgroups.filter(subgroup="nh_nhpi")
    assert rows.height
    numbers = ["before", "after", "delta", "ci_low", "ci_high"]
    assert rows.select(numbers).null_count().row(0) == (rows.height,) * len(numbers)
    assert set(rows["status"]) == {"suppressed"}
    assert not rows["harmed"].any()


def test_beside_it_shares_gaps_and_changes_are_in_whole_percent(small: tuple[ReportInput, Disclosed]) -> None:
    shown = small[1].mitigation
    beside = [
        *(shown.subgroups.filter(attribute="race_ethnicity")[name] for name in ("before", "after", "delta", "ci_low")),
        *(
            shown.results.filter(attribute="race_ethnicity")[name]
            for name in ("gap_before", "gap_after", "reduction", "ci_low", "worst_subgroup_udr_delta")
        ),
        *(shown.capacity.filter(attribute="race_ethnicity")[name] for name in ("gap_before", "reduction")),
        *(shown.ladder.filter(attribute="race_ethnicity")[name] for name in ("gap_before", "reduction")),
    ]
    for values in beside:
        assert all(round(100 * one) == pytest.approx(100 * one, abs=1e-9) for one in values.drop_nulls())
    exact = small[0].mitigation_subgroups.filter(attribute="sex")["before"].sort()
    assert shown.subgroups.filter(attribute="sex")["before"].sort().equals(exact)


def test_no_table_of_mitigation_counts_studies_or_patients(small: tuple[ReportInput, Disclosed]) -> None:
    for name, frame in small[1].mitigation.tables().items():
        counted = [
            one for one in frame.columns if re.fullmatch(r"n|n_(pos|neg|train|test|patients|studies|tested)", one)
        ]
        assert counted == [], name


def test_no_file_of_the_report_holds_the_share_of_a_small_subgroup(
    small: tuple[ReportInput, Disclosed], tmp_path: Path
) -> None:
    written = write_report(tmp_path, small[0])
    assert {"mitigation_results", "mitigation_subgroups", "mitigation_leakage", "demographic_probes"} <= set(
        written.tables
    )
    for path in written.all():
        said = path.read_text(encoding="utf-8")
        ours = without_plotly(said) if path == written.page else said
        assert not re.search(
            rf"(?<![\d.])({SMALL_SHARE}|{100 * SMALL_SHARE:.2f}|{100 * SMALL_SHARE:.1f}%)(?!\d)", ours
        ), path.name


def test_the_sentence_of_the_summary_is_the_one_for_machines(inputs: ReportInput, page: Page, tmp_path: Path) -> None:
    told = json.loads(write_report(tmp_path, inputs).summary.read_text(encoding="utf-8"))["recommendations"]
    assert [(one["encoder"], one["task"], one["verdict"]) for one in told] == [
        ("lite0", "pe", "recommended"), ("lite0", "mortality_1m", "no_disparity_shown"),
        ("lite1", "pe", "several_reasons"), ("lite1", "mortality_1m", "none_narrows"),
    ]  # fmt: skip
    assert all(one["sentence"] in page.visible for one in told)


def test_a_recommendation_beside_a_small_subgroup_is_told_in_whole_points() -> None:
    made = mitigated(made_up(small_group=True, poolings=("mean",)), small_group=True)
    race = {"target_attribute": "race_ethnicity", "worst_subgroup": "hispanic"}
    chosen = (pl.col("encoder") == "lite0") & (pl.col("task") == "pe")
    advice = made.mitigation_recommendations.with_columns(
        pl.when(chosen).then(pl.lit(value)).otherwise(name).alias(name) for name, value in race.items()
    )
    said = Page(without_plotly(render_page(dataclasses.replace(made, mitigation_recommendations=advice)))).visible
    found = re.search(
        r"aimed at race and ethnicity, narrows the gap in missed disease from (\S+ points?) to (\S+ points?)", said
    )
    assert found is not None
    assert all(re.fullmatch(r"\d+ points?", one) for one in found.groups())
