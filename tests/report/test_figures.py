"""Figures: valid plotly, and the numbers of the tables."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import pytest

from fmaudit_core.report.book import Book, Key
from fmaudit_core.report.cells import cell_figures
from fmaudit_core.report.disclosure import disclose
from fmaudit_core.report.overview import control_figures
from tests.report.frames import made_up

KEY = Key("lite0", "pe", "logistic", "ct", "mean", "none")


@pytest.fixture(scope="module", params=[False, True], ids=["no small group", "a small group"])
def book(request: pytest.FixtureRequest) -> Book:
    inputs = made_up(small_group=request.param, poolings=("mean",))
    return Book(inputs, disclose(inputs))


def _painted(spec: Any) -> Any:
    """Theme colours made real ones, as the page's script does."""
    if isinstance(spec, str) and spec.startswith("@"):
        return "rgba(1,2,3,0.5)"
    if isinstance(spec, dict):
        return {key: _painted(value) for key, value in spec.items()}
    return [_painted(value) for value in spec] if isinstance(spec, list) else spec


def test_plotly_accepts_every_figure(book: Book) -> None:
    drawn = cell_figures(book, KEY)
    specs = [drawn["udr"], drawn["auroc"], drawn["gaps"], *(one["figure"] for one in drawn["sweeps"])]
    for spec in [*specs, *control_figures(book).values()]:
        go.Figure(_painted(spec))  # plotly validates every property and value
        json.dumps(spec, allow_nan=False)


def test_the_forest_shows_every_subgroup_that_may_be_shown(book: Book) -> None:
    figure = cell_figures(book, KEY)["udr"]
    marks = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
    shown = sorted(round(x, 4) for trace in marks for x in trace["x"])
    expected = sorted(round(100 * row["value"], 4) for row in book.subgroups(KEY, "udr") if row["value"] is not None)
    assert shown == expected
    labels = [text for text in figure["layout"]["yaxis"]["ticktext"] if not text.startswith("<b>")]
    assert len(labels) == len(book.subgroups(KEY, "udr"))


def test_the_worst_subgroup_of_a_disparity_is_marked_by_shape_too(book: Book) -> None:
    traces = cell_figures(book, KEY)["udr"]["data"]
    symbols = {trace["marker"]["symbol"]: len(trace["x"]) for trace in traces if trace.get("mode") == "markers"}
    assert symbols["diamond"] == 1


def test_hover_text_tells_counts_interval_and_p(book: Book) -> None:
    traces = cell_figures(book, KEY)["udr"]["data"]
    said = [text for trace in traces for text in trace.get("hovertext", [])]
    for text in said:
        assert all(
            word in text for word in ("studies", "with the outcome", "would have shown", "; adjusted p ", "; q ")
        )


def test_every_gap_is_drawn_beside_its_null(book: Book) -> None:
    figure = cell_figures(book, KEY)["gaps"]
    bar = next(trace for trace in figure["data"] if trace["type"] == "bar")
    marks = [trace for trace in figure["data"] if trace.get("hovertext")]
    assert len(bar["x"]) == sum(len(trace["x"]) for trace in marks) == 9


def test_a_sweep_has_the_operating_point_and_curves_told_apart_without_colour(book: Book) -> None:
    figure = next(one["figure"] for one in cell_figures(book, KEY)["sweeps"] if one["title"] == "Age band")
    assert figure["layout"]["shapes"][0]["x0"] == 0.31
    named = [trace for trace in figure["data"] if trace.get("name")]
    assert len({trace["line"]["dash"] for trace in named}) == len(named) == 4


def test_every_curve_has_its_place_in_the_legend(book: Book) -> None:
    sweeps = [one["figure"] for one in cell_figures(book, KEY)["sweeps"]]
    most = max(sum("name" in trace for trace in figure["data"]) for figure in sweeps)
    # two entries fit beside one another on a phone
    assert {figure["layout"]["margin"]["b"] for figure in sweeps} == {68 + 30 * -(-most // 2)}
