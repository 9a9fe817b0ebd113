"""Aggregations of slices on the page and in the files: the table's numbers, what is absent is said, few are not told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import NetworksSection, ProbesSection
from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.report.export import write_report
from fmaudit_core.report.input.report_input import SPATIAL, ReportInput
from fmaudit_core.report.page import render_page
from tests.report.frames import SMALL, made_up
from tests.report.reading import Page, packed, without_plotly


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    return made_up()


@pytest.fixture(scope="module")
def text(inputs: ReportInput) -> str:
    return render_page(inputs)


def test_every_aggregation_stands_with_its_difference_and_adjusted_p(text: str) -> None:
    visible = " ".join(Page(without_plotly(text)).visible.split())
    assert "How slices become a study" in visible
    attention = (
        "Gated attention 2,400 0.810 0.790\N{EN DASH}0.830 +0.052 0.021 to 0.083 against itself with equal weights +0.031 "
        "(0.010 to 0.052; exploratory p = 0.004) 0.001 0.005 5 seeds: 0.801, sd 0.012"
    )
    assert attention in visible
    assert "Maximum 2,400 0.810 0.790\N{EN DASH}0.830 \N{MINUS SIGN}0.004" in visible
    assert "Mean, seen as EfficientNet-lite1 (ImageNet)" in visible
    assert "Median not fitted" in visible
    assert "this encoder gives no slices" in visible


def test_the_figure_draws_what_is_compared(text: str) -> None:
    data = json.loads(packed(text, "data"))
    (figure,) = data["aggregation"].values()  # a task with nothing to compare has none
    drawn = {x for trace in figure["data"] for x in trace["x"]}
    assert drawn == {0.052, -0.004}
    assert [trace["marker"]["symbol"] for trace in figure["data"]] == ["circle", "circle-open"]


def test_under_the_rule_no_number_is_told(inputs: ReportInput, tmp_path: Path) -> None:
    shown = disclose(inputs).aggregations.filter(task="mortality_1m")
    assert shown["status"].to_list() == ["suppressed"]
    numbers = [name for name, kind in SPATIAL.items() if kind != pl.String]
    assert shown.select(pl.any_horizontal(pl.col(numbers).is_not_null())).item() is False
    written = write_report(tmp_path, inputs)
    rows = pl.read_csv(written.tables["spatial_aggregation"]).filter(task="mortality_1m")
    assert rows.select("n", "n_pos", "auroc").null_count().row(0) == (1, 1, 1)
    summary = json.loads(written.summary.read_text())
    assert len(summary["spatial_aggregation"]) == inputs.spatial_aggregation.height
    assert str(SMALL["n"]) not in json.dumps(summary["spatial_aggregation"])


def test_without_networks_and_slices_the_page_says_nothing_of_it(inputs: ReportInput) -> None:
    without = render_page(dataclasses.replace(inputs, spatial_aggregation=pl.DataFrame(schema=SPATIAL)))
    assert "How slices become a study" not in without
    assert "perceptrons" not in without


def test_methods_tell_the_networks_that_were_trained(inputs: ReportInput) -> None:
    probes = ProbesSection(kinds=("logistic", "mlp", "abmil"), networks=NetworksSection(seeds=3, shapes=((64, 32),)))
    told = Page(without_plotly(render_page(dataclasses.replace(
        inputs, audit=inputs.audit.model_copy(update={"probes": probes})
    )))).visible  # fmt: skip
    assert "hidden layers 64\N{EN DASH}32" in told
    assert "trained from 3 seeds" in told
    assert "recurrent network over the slices from the feet" not in told
