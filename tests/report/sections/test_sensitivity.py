"""What encoders see of an altered CT: a table under the encoders that were measured, in words."""

from __future__ import annotations

import dataclasses

from fmaudit_core.common import formatting
from fmaudit_core.report.index.report_data import index_report_data
from fmaudit_core.report.page import render_page
from fmaudit_core.report.sections.sensitivity import sensitivity_views
from fmaudit_core.tables.encoders import ENCODER_SENSITIVITY
from tests.report.frames import made_up

COMMON = {"encoder": "lite0", "scans": "cohort", "spec_digest": "x", "status": "measured", "n": 4}
ROWS = ENCODER_SENSITIVITY.frame([
    {
        **COMMON, "alteration": "another_patient", "kind": "patient", "n": 6, "cosine": 0.8, "cosine_min": 0.7,
        "relative_distance": 1.0,
    },
    {
        **COMMON, "alteration": "flip_left_right", "kind": "axis", "cosine": 0.99, "cosine_min": 0.98,
        "relative_distance": 0.05,
    },
    {**COMMON, "alteration": "clip", "kind": "input", "status": "not_applicable", "n": 0},
])  # fmt: skip


def test_an_encoder_that_was_measured_has_its_table() -> None:
    index = index_report_data(made_up(poolings=("mean",))).index
    (view,) = sensitivity_views(index, ROWS)
    assert view.encoder == index.named("lite0")
    assert view.scans == "4 patients of this cohort"
    assert [(line.cosine, line.cosine_min) for line in view.lines] == [
        ("0.8000", "0.7000"),
        ("0.9900", "0.9800"),
        (formatting.NONE, formatting.NONE),
    ]
    assert view.lines[1].sentence == (
        "A flipped left-right axis moves it less than another patient would (5% as far): it does not see sides."
    )


def test_the_page_shows_it_under_the_encoders_and_nothing_without() -> None:
    inputs = made_up(poolings=("mean",))
    title = "What encoders see of an altered CT"
    text = render_page(dataclasses.replace(inputs, encoder_sensitivity=ROWS))
    assert text.index('<section id="overview"') < text.index(title) < text.index('<section id="cohort"')
    assert "it does not see sides" in text
    assert title not in render_page(inputs)
