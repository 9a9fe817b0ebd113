"""What stands beside the findings: outcomes that are censored, notes, baselines, published figures. Small numbers stay unseen."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmaudit_core.config import FairnessSection, InspectCohort
from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.report.disclosure.outcomes import shown_label_flow
from fmaudit_core.report.export import write_report
from fmaudit_core.report.input.report_input import LABEL_FLOW, NOTES, STUDIES, ReportInput
from fmaudit_core.report.page import render_page
from fmaudit_core.tables.findings import PAPER_COMPARISON
from fmaudit_core.tables.probes import BASELINE_JOINS
from tests.report.frames import made_up
from tests.report.reading import Page, without_plotly

RULE = FairnessSection()
NOBODY = pl.DataFrame(schema={"task": pl.String, "attribute": pl.String, "subgroup": pl.String})
NO_STUDIES = pl.DataFrame(schema={**STUDIES, "counts": pl.String})


def _flow(cells: dict[str, tuple[int, int]], task: str = "readmission_12m", attribute: str = "sex") -> pl.DataFrame:
    """Label flow of one attribute: (known, censored) per subgroup, all in test, and the row of all."""
    whole = (sum(known for known, _ in cells.values()), sum(censored for _, censored in cells.values()))
    rows = [("all", "all", *whole), *((attribute, name, *counts) for name, counts in cells.items())]
    return pl.DataFrame(
        [
            {
                "task": task, "split": "test", "attribute": of, "subgroup": name, "n_studies": known + censored,
                "n_patients": known + censored, "n_positive": known // 4, "n_negative": known - known // 4,
                "n_censored": censored,
            }
            for of, name, known, censored in rows
        ],
        schema=LABEL_FLOW,
    )  # fmt: skip


def _shown(cells: dict[str, tuple[int, int]]) -> dict[str, Any]:
    frame = shown_label_flow(_flow(cells), NOBODY, NO_STUDIES, RULE)
    return {row["subgroup"]: row for row in frame.iter_rows(named=True)}


def test_large_subgroups_are_told_as_they_are() -> None:
    rows = _shown({"female": (900, 100), "male": (800, 240)})
    assert [(row["n_known"], row["n_censored"], row["counts"]) for row in rows.values()] == [
        (1700, 340, "exact"), (900, 100, "exact"), (800, 240, "exact"),
    ]  # fmt: skip


def test_few_censored_are_withheld_and_their_neighbours_rounded() -> None:
    rows = _shown({"a": (900, 7), "b": (800, 243), "c": (700, 98)})
    assert (rows["a"]["counts"], rows["a"]["n_known"], rows["a"]["n_censored"]) == ("withheld", None, None)
    assert {rows[one]["counts"] for one in "bc"} == {"rounded"}
    assert all(rows[one]["n_censored"] % 10 == 0 for one in "bc")


turning = st.one_of(st.sampled_from([0, 1, 5, 9, 10, 11, 14, 15, 24, 25, 26, 60, 95]), st.integers(0, 130))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(30, 400), turning), min_size=2, max_size=3))
def test_how_many_are_censored_of_a_hidden_subgroup_does_not_follow(counts: list[tuple[int, int]]) -> None:
    """Other numbers of a hidden subgroup, its absorbing subgroup the other way, give the very same table: so many worlds are
    possible."""
    cells = dict(zip("abc", counts, strict=False))
    rows = _shown(cells)
    hidden = [name for name in cells if rows.get(name, {}).get("counts") == "withheld"]
    shown = [name for name in cells if name in rows and name not in hidden]
    if len(hidden) != 1 or not shown:
        return
    total, alike = cells[hidden[0]][1], 0
    for other in range(10):
        for absorbing in shown:
            moved = cells[absorbing][1] + total - other
            if other == total or moved < 0:
                continue
            world = cells | {hidden[0]: (cells[hidden[0]][0], other), absorbing: (cells[absorbing][0], moved)}
            alike += _shown(world) == rows
    assert alike >= 4


def test_a_subgroup_hidden_elsewhere_is_hidden_here() -> None:
    cells = {"a": (900, 100), "b": (800, 243)}
    metrics = pl.DataFrame([("readmission_12m", "sex", "a")], schema=NOBODY.schema, orient="row")
    part = pl.DataFrame(
        [{"split": "val", "attribute": "sex", "subgroup": "a", "counts": "withheld"}], schema=NO_STUDIES.schema
    )
    for protected, studies in ((metrics, NO_STUDIES), (NOBODY, part)):
        rows = shown_label_flow(_flow(cells), protected, studies, RULE)
        assert dict(rows.select("subgroup", "counts").iter_rows()) == {"all": "exact", "a": "withheld", "b": "rounded"}


def test_a_task_of_which_nothing_is_censored_is_one_line() -> None:
    assert list(_shown({"a": (900, 0), "b": (800, 0)})) == ["all"]


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    """A made-up audit of INSPECT with a baseline and everything that stands beside its findings."""
    base = made_up(poolings=("mean",))
    flow = pl.concat(
        [_flow({"18-40": (700, 90), "41-60": (900, 300), "61-74": (900, 200), "75-90": (500, 4)}, attribute="age_band"),
         _flow({"female": (1500, 0), "male": (1500, 0)}, task="pe")]
    )  # fmt: skip
    notes = pl.DataFrame(
        [("release v2025-06", 1, "files", "labels_20250611.tsv"), ("no time", 3, "studies", "kept for CT"),
         ("time of the note", 212, "studies", "after the scan")], schema=NOTES, orient="row",
    )  # fmt: skip
    joins = {
        "encoder": "lite1", "task": "pe", "joined_by": "image_id", "threshold": "none", "n_rows": 2410, "n_missed": 4,
        "n_train": 0, "n_unlabelled": 0, "n_scored": 2406, "n_unscored": 0, "n_labels": 2406, "n_labels_apart": 37,
    }  # fmt: skip
    blank = {
        "where": "3.1",
        "attribute": "",
        "subgroup": "",
        "strategy": "",
        "target_attribute": "",
        "labels_file": "labels_20250611.tsv",
    }
    paper = [
        {
            **blank, "id": "pe_auroc_fm", "quantity": "auroc", "model": "lite0", "task": "pe", "published": "0.68 to 0.684",
            "ours": 0.681, "ours_low": 0.66, "ours_high": 0.70, "verdict": "same", "reason": "it lies within our interval",
        },
        {
            **blank, "id": "udr_18_40", "quantity": "udr", "model": "lite0", "task": "pe", "attribute": "age_band",
            "subgroup": "18-40", "published": "0.63 to 0.8", "ours": 0.233, "ours_low": 0.17, "ours_high": 0.29,
            "verdict": "different", "reason": "it lies above our interval",
        },
        {
            **blank, "id": "udr_gap_race", "quantity": "udr_gap", "model": "lite0", "task": "pe", "attribute": "race_ethnicity",
            "published": "0.21 to 0.29", "verdict": "not_comparable", "reason": "other groups",
        },
    ]  # fmt: skip
    encoders = [{**one, "baseline": one["name"] == "lite1"} for one in base.encoders]
    audit = base.audit.model_copy(update={"cohort": InspectCohort(kind="inspect", root=Path("r"))})
    return dataclasses.replace(
        base, audit=audit, label_flow=flow, notes=notes, baselines=BASELINE_JOINS.frame([joins]),
        paper_comparison=PAPER_COMPARISON.frame(paper), encoders=encoders,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(inputs: ReportInput) -> Page:
    return Page(without_plotly(render_page(inputs)))


def test_outcomes_are_told_by_subgroup_with_the_share_that_is_censored(page: Page) -> None:
    assert "Readmission, 12 months: 3,000 known, 594 censored (16.5%)" in page.visible
    assert "Pulmonary embolism: 3,000 known, none censored" in page.visible
    assert any(
        cells[1].startswith("Too few to show")
        for cells in page.rows
        if cells[:1] == ["75\N{EN DASH}90"] and len(cells) == 2
    )
    assert any(
        cells[:1] == ["41\N{EN DASH}60"] and cells[1].startswith("\N{ALMOST EQUAL TO}") and cells[3] == "25%"
        for cells in page.rows
        if len(cells) == 4
    )


def test_notes_are_told_and_a_few_studies_are_not_counted(page: Page) -> None:
    told = [cells[:3] for cells in page.rows]
    assert ["No time", "fewer than 10", "studies"] in told
    assert ["Time of the note", "212", "studies"] in told
    assert ["Release v2025-06", "1", "files"] in told


def test_a_baseline_is_named_so_and_is_no_part_of_the_declared_family(inputs: ReportInput, page: Page) -> None:
    assert "EfficientNet-lite1 (ImageNet) (baseline)" in page.visible
    assert "of 3 comparisons between subgroups" in page.visible
    joined = next(cells for cells in page.rows if "image_id" in cells)
    assert joined[1:8] == ["Pulmonary embolism", "image_id", "2,410", "2,406", "fewer than 10", "0", "37 of 2,406"]
    assert joined[8].startswith("none: AUROC only")
    assert "Models audited by predictions that were made elsewhere" in page.visible
    assert "EfficientNet-lite0 (ImageNet) against EfficientNet-lite1 (ImageNet) (baseline)" in page.visible


def test_published_figures_stand_beside_ours_with_verdict_and_reason(page: Page) -> None:
    row = next(
        cells for cells in page.rows if cells[:1] == ["AUROC, EfficientNet-lite0 (ImageNet), Pulmonary embolism"]
    )
    assert row[1:5] == ["3.1", "0.68 to 0.684", "0.681 0.660 to 0.700", "Same"]
    assert "1 same 1 different 1 not comparable" in page.visible
    assert "Our labels are those of labels_20250611.tsv" in page.visible
    assert "Other groups" in page.visible


def test_published_figures_are_shown_of_the_papers_own_cohort_alone(inputs: ReportInput, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(inputs, audit=made_up(poolings=("mean",)).audit)
    written = write_report(tmp_path, elsewhere)
    assert "paper_comparison" not in written.tables
    assert json.loads(written.summary.read_text(encoding="utf-8"))["paper_comparison"] == []
    assert 'id="paper"' not in written.page.read_text(encoding="utf-8")


def test_our_number_of_a_small_subgroup_is_not_told_beside_the_papers(inputs: ReportInput, tmp_path: Path) -> None:
    small = dataclasses.replace(
        inputs,
        subgroup_metrics=inputs.subgroup_metrics.with_columns(
            status=pl.when(subgroup="18-40", task="pe").then(pl.lit("suppressed")).otherwise("status")
        ),
    )
    rows = disclose(small).paper.filter(id="udr_18_40")
    assert rows.select("ours", "ours_low", "ours_high").null_count().row(0) == (1, 1, 1)
    assert rows["verdict"].item() == "not_comparable"
    for path in write_report(tmp_path, small).all():
        if path.stem in ("paper_comparison", "audit"):
            assert not re.search(r"(?<![\d.])0\.233(?!\d)", path.read_text()), path.name


def test_the_files_for_machines_carry_them(inputs: ReportInput, tmp_path: Path) -> None:
    written = write_report(tmp_path, inputs)
    assert {"label_flow", "paper_comparison"} <= set(written.tables)
    told = json.loads(written.summary.read_text(encoding="utf-8"))
    assert [one["verdict"] for one in told["paper_comparison"]] == ["same", "different", "not_comparable"]
    assert pl.read_csv(written.tables["label_flow"])["n_censored"].null_count() == 1


def test_an_audit_has_none_of_it_where_there_is_none() -> None:
    said = render_page(made_up(poolings=("mean",)))
    for name in ('id="paper"', "Known and censored outcomes", "Notes on the files", "Baselines, by their predictions"):
        assert name not in said
