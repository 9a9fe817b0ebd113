"""The page: alone, the same each time, and in words that claim no more than the tables."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import Audit, PhantomCohort
from fmaudit_core.report.errors import ReportError
from fmaudit_core.report.export import write_report
from fmaudit_core.report.index.report_data import index_report_data
from fmaudit_core.report.input.report_input import MODALITIES, ReportInput
from fmaudit_core.report.page import render_page
from fmaudit_core.report.sections.subgroups import gap_view
from tests.report.frames import TASKS, made_up
from tests.report.reading import Page, packed, without_plotly


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    return made_up()


@pytest.fixture(scope="module")
def text(inputs: ReportInput) -> str:
    return render_page(inputs)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(without_plotly(text))


def test_the_page_loads_nothing(text: str, page: Page) -> None:
    assert page.loads == []
    assert not re.search(r"url\(|@import", "".join(page.styles))
    assert not re.search(r"https?:", without_plotly(text))
    assert "default-src 'none'" in text


def test_the_same_inputs_in_any_row_order_give_the_same_page(inputs: ReportInput, text: str) -> None:
    names = (
        "subgroup_metrics", "fairness_gaps", "threshold_sweep", "audit_findings", "studies", "subgroup_calibration",
        "cross_group_auroc", "intersections", "model_comparisons", "score_warnings",
    )  # fmt: skip
    shuffled = {name: getattr(inputs, name).sample(fraction=1.0, shuffle=True, seed=3) for name in names}
    assert render_page(dataclasses.replace(inputs, **shuffled)) == text


def test_warnings_stand_at_the_top_beside_the_finding_and_with_the_model(text: str) -> None:
    words = without_plotly(text)
    summary, findings, rest = (
        words[words.index(f'<section id="{one}"') : words.index(f'<section id="{other}"')]
        for one, other in (("summary", "findings"), ("findings", "explore"), ("explore", "methods"))
    )
    assert "Check first" in summary
    for said in ("31 % of studies have the same score", "AUROC of Black is 0.41 (interval 0.37-0.46), below 0.5",
                 "Patients of 75\N{EN DASH}90 have 2.2 studies on average", "No study of Asian is called positive"):  # fmt: skip
        assert said in summary
        assert said in rest
    beside = [one for one in re.findall(r'<tr class="sentence">.*?</tr>', findings) if "warned" in one]
    assert any("Patients of 75\N{EN DASH}90" in one for one in beside)
    assert not any("31 % of studies" in one for one in beside)


def test_where_no_verdict_is_given_the_reason_takes_the_place_of_the_finding(inputs: ReportInput) -> None:
    index = index_report_data(inputs).index
    key = next(
        key
        for key in index.keys
        if (key.encoder, key.task, key.pooling) == ("grey_histogram", "readmission_12m", "mean")
    )
    for row in index.findings(key):
        said = gap_view(index, key, row)
        assert said.sentence == said.short
        assert said.sentence.startswith("No verdict is given. AUROC of all studies is 0.44 (interval 0.41-0.47)")
    other = next(one for one in index.keys if one.encoder == "lite0")
    assert not any("No verdict" in gap_view(index, other, row).sentence for row in index.findings(other))


def test_without_warnings_there_is_no_box(inputs: ReportInput) -> None:
    words = without_plotly(render_page(dataclasses.replace(inputs, score_warnings=inputs.score_warnings.clear())))
    assert "Check first" not in words
    assert '<ul class="warnings">' not in words


def test_a_given_threshold_is_told_as_given(inputs: ReportInput) -> None:
    said = {}
    for one in ("given", "validation"):
        metrics = inputs.subgroup_metrics.with_columns(threshold_source=pl.lit(one))
        words = Page(without_plotly(render_page(dataclasses.replace(inputs, subgroup_metrics=metrics))))
        said[one] = words.visible
    assert "Given by the user with the predictions, not chosen by the audit." in said["given"]
    assert "at the threshold that was given" in said["given"]
    assert "Chosen on the validation part alone, for each model separately" not in said["given"]
    assert "Chosen on the validation part alone, for each model separately" in said["validation"]
    assert "that was given" not in said["validation"]


def test_a_date_stands_only_where_it_was_given(inputs: ReportInput, text: str) -> None:
    assert "2026-03-01" not in without_plotly(text)
    dated = Page(without_plotly(render_page(dataclasses.replace(inputs, generated_at="2026-03-01"))))
    assert "2026-03-01" in dated.visible


def test_every_confirmatory_finding_is_told_with_its_gap_beside_chance_and_its_p(
    inputs: ReportInput, page: Page
) -> None:
    told = inputs.audit_findings.filter(task="pe", pooling="mean", metric="udr")
    assert told.height == 9
    for row in told.iter_rows(named=True):
        shown = [f"{100 * row[name]:.1f} points" for name in ("gap", "null_expected_gap")]
        assert any(set(shown) <= set(cells) for cells in page.rows), shown
    assert page.visible.count("This is more than equal subgroups would show (adjusted p = 0.001)") >= 2


def test_each_score_set_has_a_table_with_the_numbers_of_the_metrics(inputs: ReportInput, page: Page) -> None:
    auroc = inputs.subgroup_metrics.filter(metric="auroc", status="tested")
    rows = [" ".join(row) for row in page.rows]
    for row in auroc.iter_rows(named=True):
        said = f"{row['value']:.3f} {row['ci_low']:.3f}\N{EN DASH}{row['ci_high']:.3f}"
        assert any(said in one and f"{row['n']:,}" in one for one in rows)


def test_calibration_is_told_beside_what_perfect_calibration_would_show(inputs: ReportInput, page: Page) -> None:
    for row in inputs.subgroup_calibration.filter(status="tested", pooling="mean").iter_rows(named=True):
        said = [f"{row['ece']:.3f}", f"{row['ece_by_chance']:.3f}"]
        assert any(f"{row['n']:,}" in cells and cells[-3:-1] == said for cells in page.rows), said


def test_scores_that_are_no_probabilities_are_said_to_be_none(page: Page) -> None:
    # the control's, three tasks by two poolings
    assert page.visible.count("The scores of this model are not probabilities") == 3 * 2


def test_auroc_across_subgroups_is_a_matrix_hatched_where_untested(inputs: ReportInput, text: str, page: Page) -> None:
    rows = inputs.cross_group_auroc.filter(encoder="lite0", task="pe", pooling="mean", attribute="age_band")
    for (positives,), of in rows.group_by("positives_of", maintain_order=True):
        low, high = str(positives).split("-")
        cells = [
            f"{row['value']:.3f} {row['ci_low']:.3f}\N{EN DASH}{row['ci_high']:.3f}" for row in of.iter_rows(named=True)
        ]
        assert any(" ".join(row).startswith(" ".join([f"{low}\N{EN DASH}{high}", *cells])) for row in page.rows)
    hatched = re.findall(r'<td class="s\d few" title="[^"]+; interval only">', text)
    assert len(hatched) == inputs.cross_group_auroc.filter(status="interval_only").height


def test_intersections_tell_the_worst_of_how_many_and_what_is_not_shown(inputs: ReportInput, page: Page) -> None:
    rows = inputs.intersections.filter(encoder="lite0", task="pe", pooling="mean", metric="udr")
    assert rows.filter(status="suppressed").height
    said = re.search(
        r"Of (\d+) intersections that could be tested and shown, (.+?) fares worst: missed \(UDR\) (\S+)", page.visible
    )
    assert said is not None
    assert int(said[1]) <= rows.filter(status="tested").height
    assert "Equal ones would hardly look so bad, even the worst of so many (adjusted p = 0.020)" in page.visible
    assert "intersections are not shown: too small, empty, or needed to hide one that is" in page.visible


def test_counts_of_intersections_beside_a_small_one_are_told_as_what_the_rule_asks_for(page: Page) -> None:
    told = [row for row in page.rows if len(row) == 9 and row[0].isdigit()]
    assert any(row[2:4] == ["50 or more", "25 or more"] for row in told)
    assert any(row[1] == "Female \N{MULTIPLICATION SIGN} 41\N{EN DASH}60" and row[2].isdigit() for row in told)


def test_pairs_of_models_are_told_with_difference_p_and_margin(inputs: ReportInput, page: Page) -> None:
    rows = inputs.model_comparisons.filter(task="pe", attribute="overall", metric="auroc")
    for row in rows.iter_rows(named=True):
        first, second = (f"{row[name]:.3f}" for name in ("value", "other_value"))
        assert f"AUROC is {first} with" in page.visible
        difference = f"{row['difference']:+.3f}".replace("-", "\N{MINUS SIGN}")
        assert any(
            cells[1:3] == [first, second] and cells[3].startswith(difference) for cells in page.rows if len(cells) == 7
        )
    assert "yes, not worse by 0.02 or more (exploratory p = 0.010)" in page.visible
    assert "yes, not worse by 5 points or more (exploratory p = 0.010)" in page.visible


def test_what_got_worse_since_the_audit_before_is_named_first(inputs: ReportInput, page: Page) -> None:
    assert "Worse beyond the margin, and by more than chance explains: Sex: Male." in page.visible
    rows = [row for row in page.rows if len(row) == 9 and row[-1] == "worse"]
    told = ["Missed (UDR)", "30.0%", "42.0%"]
    assert rows
    assert all(row[0] == "Sex: Male" and [row[1], *row[3:5]] == told and "+12.0 points" in row[5] for row in rows), rows
    blank = dataclasses.replace(inputs, audit_changes=inputs.audit_changes.clear())
    assert "Since the audit before" not in Page(without_plotly(render_page(blank))).visible


def test_a_model_that_may_be_worse_is_not_called_otherwise(inputs: ReportInput) -> None:
    rows = inputs.model_comparisons.with_columns(
        non_inferior=pl.when(pl.col("non_inferior").is_not_null()).then(pl.lit(value=False)), p_non_inferior=pl.lit(0.4)
    )
    page = Page(without_plotly(render_page(dataclasses.replace(inputs, model_comparisons=rows))))
    assert "not shown, margin 0.02 (exploratory p = 0.40)" in page.visible
    assert "is worse by 0.02 or more cannot be ruled out." in page.visible
    assert "can be ruled out" not in page.visible.replace("a gap beyond 5 points can be ruled out", "").replace(
        "A difference beyond 5 points can be ruled out", ""
    ).replace("More than 5 points can be ruled out", "")


def test_nobody_is_called_fair_and_nothing_significant(page: Page) -> None:
    said = (page.visible + " ".join(page.attributes)).lower()
    assert not re.search(r"\b(un)?fair(ly|ness)?\b", said)
    assert "signific" not in said


def test_insufficient_evidence_reads_as_cannot_tell_with_what_a_subgroups_own_test_finds(page: Page) -> None:
    sentences = re.findall(
        r"We cannot tell whether it is real \(adjusted p = [\d.]+\)\. A test of [^.]+ alone against the other",
        page.visible,
    )
    assert sentences
    assert "insufficient_evidence" not in page.visible


def test_the_share_missed_is_explained_once(page: Page) -> None:
    assert page.visible.count("share missed (underdiagnosis rate, UDR)") == 1
    assert re.search(r"missed [\d.]+% \([^)]+\) of patients with an embolism", page.visible)


def test_the_control_is_told_apart_and_compared(page: Page) -> None:
    assert (
        "EfficientNet-lite0 (ImageNet) and EfficientNet-lite1 (ImageNet) rank patients better than the control"
        in page.visible
    )
    assert "HU histogram (control)" in page.visible


def test_an_encoder_within_the_controls_interval_is_not_said_to_beat_it(inputs: ReportInput) -> None:
    weak = pl.when(pl.col("encoder") == "lite1", pl.col("metric") == "auroc")
    metrics = inputs.subgroup_metrics.with_columns(
        value=weak.then(0.6).otherwise("value"), ci_low=weak.then(0.55).otherwise("ci_low"),
        ci_high=weak.then(0.65).otherwise("ci_high"),
    )  # fmt: skip
    page = Page(without_plotly(render_page(dataclasses.replace(inputs, subgroup_metrics=metrics))))
    assert "EfficientNet-lite1 (ImageNet) is not shown to rank them better than the control" in page.visible


def test_without_a_control_the_page_says_what_that_means(inputs: ReportInput) -> None:
    named = [{**one, "control": False} for one in inputs.encoders]
    page = Page(without_plotly(render_page(dataclasses.replace(inputs, encoders=named))))
    assert "No control encoder was audited" in page.visible


def test_the_summary_says_it_short_and_the_findings_in_full(page: Page) -> None:
    at = page.visible.index("One line for each encoder and attribute")
    summary, rest = page.visible[:at], page.visible[at:]
    assert "would differ by about" not in summary
    assert "would differ by about" in rest
    assert re.search(r"A gap of [\d.]+ points between \S+ and \S+, about [\d.]+ points if equal \(adjusted p", summary)
    # cards show the first encoder, a table beneath all of them, and a sentence the other outcomes
    assert "EfficientNet-lite0 (ImageNet) missed" in summary
    assert "share missed (UDR) by EfficientNet-lite0 (ImageNet) in the test part" in summary
    assert [row[0] for row in page.rows if len(row) == 5 and row[1].endswith("%") and row[0] in summary][:2] == [
        "EfficientNet-lite0 (ImageNet)", "EfficientNet-lite1 (ImageNet)",
    ]  # fmt: skip
    assert re.search(r"2 other outcomes \(exploratory\): of 12 comparisons \w+ shows? a disparity", summary)


def test_of_one_encoder_there_is_no_table_of_encoders(inputs: ReportInput) -> None:
    names = ("subgroup_metrics", "fairness_gaps", "threshold_sweep", "audit_findings")
    alone = {name: getattr(inputs, name).filter(pl.col("encoder") != "lite1") for name in names}
    encoders = [one for one in inputs.encoders if one["name"] != "lite1"]
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, encoders=encoders, **alone)))).visible
    assert "Shown first" not in said
    assert "Missed overall" not in said


def test_thresholds_span_what_scores_can_be(inputs: ReportInput) -> None:
    from fmaudit_core.report.disclosure.disclosure import disclose
    from fmaudit_core.report.index.score_set_index import ScoreSetIndex
    from fmaudit_core.report.sections.subgroups import cell_figures

    shifted = inputs.threshold_sweep.with_columns(
        threshold=pl.when(pl.col("encoder") == "grey_histogram")
        .then(10 * pl.col("threshold") - 4)
        .otherwise("threshold")
    )
    told = dataclasses.replace(inputs, threshold_sweep=shifted)
    unjudged = dataclasses.replace(told, subgroup_calibration=told.subgroup_calibration.clear())
    for given in (told, unjudged):
        index = ScoreSetIndex(given, disclose(given))
        for encoder in ("lite0", "grey_histogram"):
            key = index.main_key(encoder, "pe")
            assert key is not None
            for one in cell_figures(index, key)["sweeps"]:
                low, high = one["figure"]["layout"]["xaxis"]["range"]
                xs = [x for trace in one["figure"]["data"] for x in trace["x"]]
                assert low <= min(xs)
                assert max(xs) <= high
                assert (low, high) == (-0.02, 1.02) if encoder == "lite0" else high - low > 1.5


def test_methods_are_those_of_the_config(inputs: ReportInput) -> None:
    settings = inputs.audit.fairness.model_copy(
        update={
            "n_permutations": 4321,
            "threshold_policy": "youden",
            "margin": 0.075,
            "suppress_under": 13,
            "confidence": 0.9,
        }
    )
    audit = inputs.audit.model_copy(update={"fairness": settings})
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, audit=audit)))).visible
    assert "4,321 permutations" in said
    assert "(Youden)" in said
    assert "below 7.5 points" in said
    assert "fewer than 13 patients with a positive study, or with a negative one" in said
    assert "90% intervals" in said
    assert "of the validation patients" not in said
    assert "Crossed: two attributes at a time" in said
    assert "0.02 in AUROC, 7.5 points in rates" in said


def test_a_threshold_drawn_again_is_told(inputs: ReportInput) -> None:
    settings = inputs.audit.fairness.model_copy(update={"threshold_uncertainty": True, "n_bootstraps": 1234})
    audit = inputs.audit.model_copy(update={"fairness": settings})
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, audit=audit)))).visible
    assert "chosen again on 1,234 draws of the validation patients" in said


def test_an_audit_that_crosses_nothing_says_nothing_of_it(inputs: ReportInput) -> None:
    audit = inputs.audit.model_copy(
        update={"fairness": inputs.audit.fairness.model_copy(update={"intersection_depth": 1})}
    )
    blank = {name: getattr(inputs, name).clear() for name in ("intersections", "model_comparisons")}
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, audit=audit, **blank)))).visible
    assert "Crossed:" not in said
    assert "Two models on the same patients" not in said


def test_the_spread_beyond_sampling_has_its_interval_where_the_table_has_one(inputs: ReportInput, page: Page) -> None:
    assert "2.0 points 1.0 to 3.0" not in page.visible
    gaps, findings = (
        getattr(inputs, name).with_columns(corrected_sd_low=pl.lit(0.01), corrected_sd_high=pl.lit(0.03))
        for name in ("fairness_gaps", "audit_findings")
    )
    told = render_page(dataclasses.replace(inputs, fairness_gaps=gaps, audit_findings=findings))
    assert "2.0 points 1.0 to 3.0" in Page(without_plotly(told)).visible


def test_a_phantom_is_said_to_be_synthetic(inputs: ReportInput) -> None:
    audit = Audit(cohort=PhantomCohort(kind="phantom"), tasks=TASKS)
    said = Page(without_plotly(render_page(dataclasses.replace(inputs, audit=audit)))).visible
    assert "These are synthetic patients" in said


def test_predictions_alone_make_a_page_without_cohort_and_encoders(inputs: ReportInput) -> None:
    alone = ReportInput(
        audit=inputs.audit,
        subgroup_metrics=inputs.subgroup_metrics,
        fairness_gaps=inputs.fairness_gaps,
        threshold_sweep=inputs.threshold_sweep,
        audit_findings=inputs.audit_findings,
    )
    page = Page(without_plotly(render_page(alone)))
    assert "Encoders and probes" not in page.visible
    assert "lite0" in page.visible


def test_an_audit_in_which_nothing_could_be_tested_still_has_a_page(inputs: ReportInput) -> None:
    untested = [
        pl.lit(None).cast(pl.String if name.endswith("subgroup") else pl.Float64).alias(name)
        for name in (
            "gap",
            "null_expected_gap",
            "best_subgroup",
            "worst_subgroup",
            "p_value",
            "p_gap",
            "p_adjusted",
            "q_value",
        )
    ]
    told = {name: getattr(inputs, name).with_columns(untested) for name in ("fairness_gaps", "audit_findings")}
    page = Page(without_plotly(render_page(dataclasses.replace(inputs, **told))))
    assert "we cannot tell whether they differ" in page.visible
    # the map hatches what could not be tested, as it hatches what cannot be told
    assert any(title == "not tested: too few subgroups of sufficient size" for title in page.attributes)
    assert "insufficient_evidence" in " ".join(page.attributes)


def test_text_from_the_tables_stays_text(inputs: ReportInput) -> None:
    evil = "</script><script>alert(1)</script>"
    metrics, sweep, gaps, findings = (
        getattr(inputs, name).with_columns(
            pl.col(column).replace("75-90", evil)
            for column in ("subgroup", "best_subgroup", "worst_subgroup")
            if column in getattr(inputs, name).columns
        )
        for name in ("subgroup_metrics", "threshold_sweep", "fairness_gaps", "audit_findings")
    )
    audit = inputs.audit.model_copy(update={"name": f"a {evil}"})
    text = render_page(
        ReportInput(
            audit=audit, subgroup_metrics=metrics, fairness_gaps=gaps, threshold_sweep=sweep, audit_findings=findings,
            provenance={"run": evil},
        )
    )  # fmt: skip
    assert "<script>alert" not in text
    assert "alert(1)" in Page(without_plotly(text)).visible


@pytest.mark.parametrize(
    "table",
    [
        "subgroup_calibration",
        "calibration_tests",
        "cross_group_auroc",
        "intersections",
        "model_comparisons",
        "audit_changes",
    ],
)
def test_the_tables_beside_are_checked_as_the_others(inputs: ReportInput, table: str) -> None:
    frame = getattr(inputs, table)
    with pytest.raises(ReportError, match=f"{table}: the table lacks status"):
        dataclasses.replace(inputs, **{table: frame.drop("status")})
    with pytest.raises(ReportError, match=f"{table}: the table has the column study_id"):
        dataclasses.replace(inputs, **{table: frame.with_columns(study_id=pl.lit("s"))})


def test_what_each_modality_adds_is_a_small_table_and_other_models_have_no_cell(inputs: ReportInput) -> None:
    blank = dict.fromkeys(MODALITIES)
    named = {
        "encoder": "lite0",
        "task": "pe",
        "pooling": "mean",
        "status": "tested",
        "n": 900,
        "n_pos": 180,
        "n_neg": 720,
    }
    both = {"probe": "late_fusion", "modality": "ct+ehr", "value": 0.876, "ci_low": 0.85, "ci_high": 0.9}
    over = {"over_ct": 0.031, "over_ct_low": 0.012, "over_ct_high": 0.05, "p_over_ct": 0.0013}
    on_ct = {"probe": "logistic", "modality": "ct", "value": 0.845, "ci_low": 0.82, "ci_high": 0.87}
    rows = [blank | named | both | over, blank | named | on_ct, blank | named | both | {"task": "other", "value": None}]
    table = pl.DataFrame(rows, schema=MODALITIES)
    secondary = inputs.subgroup_metrics.with_columns(probe=pl.lit("late_fusion"), modality=pl.lit("ct+ehr"))
    told = dataclasses.replace(
        inputs, modality_comparisons=table, subgroup_metrics=pl.concat([inputs.subgroup_metrics, secondary])
    )
    text = render_page(told)
    page = Page(without_plotly(text))
    lines = [row for row in page.rows if len(row) == 6 and row[0] in ("CT", "CT and record, late fusion")]
    assert [row[0] for row in lines] == ["CT", "CT and record, late fusion"]
    assert lines[1][1].startswith("0.876")
    assert lines[1][2].startswith("+0.031")
    assert lines[1][3] == "0.001"
    assert len(json.loads(packed(text, "data"))["cells"]) == 3 * 3 * 2  # as without them
    assert "What each modality adds" not in Page(without_plotly(render_page(inputs))).visible
    control = dataclasses.replace(
        told,
        modality_comparisons=table.with_columns(encoder=pl.lit("grey_histogram")),
        encoders=[{**one, "title": "HU histogram (control)"} if one["control"] else one for one in inputs.encoders],
    )
    said = Page(without_plotly(render_page(control)))
    assert "(control) (control)" not in said.visible
    assert ["HU histogram (control)"] in said.rows


@pytest.mark.parametrize("name", ["study_id", "patient_id", "y_score"])
def test_rows_about_single_people_are_refused(inputs: ReportInput, name: str) -> None:
    with pytest.raises(ReportError, match=f"studies: the table has the column {name}"):
        dataclasses.replace(inputs, studies=inputs.studies.with_columns(pl.lit("x").alias(name)))


def test_a_missing_column_is_named(inputs: ReportInput) -> None:
    with pytest.raises(ReportError, match=r"subgroup_metrics: the table lacks mde\."):
        dataclasses.replace(inputs, subgroup_metrics=inputs.subgroup_metrics.drop("mde"))


def test_embedded_figures_are_json_a_browser_reads(text: str) -> None:
    embedded = packed(text, "data")
    data = json.loads(embedded)
    assert len(data["cells"]) == 3 * 3 * 2
    assert set(data["control"]) == set(data["pairs"]) == set(TASKS)
    # what stands for a shared array is one that is there
    places = [int(place) for place in re.findall(r'\{"\$":(\d+)\}', embedded)]
    assert set(places) == set(range(len(data["arrays"])))
    assert len(places) > 2 * len(data["arrays"])


def test_a_page_is_replaced_whole(inputs: ReportInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(tmp_path, inputs).page
    whole = page.read_bytes()

    def torn(*_: object, **__: object) -> str:
        raise ReportError("broke off")

    monkeypatch.setattr("fmaudit_core.report.export.render_page", torn)
    with pytest.raises(ReportError):
        write_report(tmp_path, inputs)
    assert page.read_bytes() == whole


def test_a_title_of_audit_yaml_is_shown_instead_of_the_usual_one(inputs: ReportInput, text: str) -> None:
    audit = inputs.audit.model_copy(update={"task_titles": {"mortality_1m": "Death within a month"}})
    titled = without_plotly(render_page(dataclasses.replace(inputs, audit=audit)))
    assert "Mortality, 1 month" in without_plotly(text)
    assert "Mortality, 1 month" not in titled
    assert "Death within a month" in titled
