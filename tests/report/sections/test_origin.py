"""From a number on the page to its partition and run in Dagster: links where the UI has an address, names elsewhere."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from fmaudit_core.config import ReportSection
from fmaudit_core.report.page import render_page
from fmaudit_core.report.sections.origin import origins
from tests.report.frames import made_up
from tests.report.reading import Page, without_plotly

URL = "https://dagster.example.org"


@pytest.fixture(scope="module")
def inputs():
    found = made_up()
    encoder, task = found.subgroup_metrics.select("encoder", "task").row(0)
    runs = {(table, encoder, task): f"run-of-{table}" for table in ("subgroup_metrics", "fairness_gaps")}
    return dataclasses.replace(found, cell_runs=runs, runs={"studies": "run-of-studies"}), encoder, task


def page_of(inputs, url):
    audit = inputs.audit.model_copy(update={"report": ReportSection(dagster_url=url)})
    return Page(without_plotly(render_page(dataclasses.replace(inputs, audit=audit))))


def test_with_an_address_numbers_link_to_their_partition_and_its_run(inputs):
    found, encoder, task = inputs
    page = page_of(found, URL + "/")
    assert f"a {URL}/assets/fairness_gaps?view=partitions&partition={encoder}%7C{task}" in page.loads
    assert f"a {URL}/runs/run-of-fairness_gaps" in page.loads
    assert f"a {URL}/runs/run-of-studies" in page.loads
    assert "fmaudit ui shows both" not in page.visible


def test_without_an_address_they_are_named_and_nothing_leads_off_the_page(inputs):
    found, encoder, task = inputs
    page = page_of(found, None)
    assert page.loads == []
    assert f"fairness_gaps , partition {encoder}|{task} , run run-of-fairness_gaps" in page.visible
    assert "fmaudit ui shows both, with their inputs and log." in page.visible


def test_numbers_made_without_dagster_name_no_run():
    assert "Made in Dagster" not in Page(without_plotly(render_page(made_up()))).visible
    assert origins({}, URL, "a", "pe") == []


@pytest.mark.parametrize("url", ["dagster.example.org", "javascript:alert(1)", 'https://a"onclick="b', "https://a b"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValidationError):
        ReportSection(dagster_url=url)
