"""Figures: valid plotly, and the numbers of the tables."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import plotly.graph_objects as go
import pytest

from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.report.figures import mitigation as mitigation_figures
from fmaudit_core.report.index.score_set_index import Key, ScoreSetIndex
from fmaudit_core.report.sections.encoders import control_figures
from fmaudit_core.report.sections.model_pairs import pair_figures
from fmaudit_core.report.sections.subgroups import cell_figures
from tests.report.frames import made_up

KEY = Key("lite0", "pe", "logistic", "ct", "mean", "none")


@pytest.fixture(scope="module", params=[False, True], ids=["no small group", "a small group"])
def index(request: pytest.FixtureRequest) -> ScoreSetIndex:
    inputs = made_up(small_group=request.param, poolings=("mean",))
    return ScoreSetIndex(inputs, disclose(inputs))


def _painted(spec: Any) -> Any:
    """Theme colours made real ones, as the page's script does."""
    if isinstance(spec, str) and spec.startswith("@"):
        return "rgba(1,2,3,0.5)"
    if isinstance(spec, dict):
        return {key: _painted(value) for key, value in spec.items()}
    return [_painted(value) for value in spec] if isinstance(spec, list) else spec


def test_plotly_accepts_every_figure(index: ScoreSetIndex) -> None:
    drawn = cell_figures(index, KEY)
    specs = [drawn[name] for name in ("udr", "auroc", "gaps", "calibration", "intersections")]
    specs += [one["figure"] for one in drawn["sweeps"]]
    for spec in [*specs, *control_figures(index).values(), *pair_figures(index).values()]:
        go.Figure(_painted(spec))  # plotly validates every property and value
        json.dumps(spec, allow_nan=False)


def test_the_forest_shows_every_subgroup_that_may_be_shown(index: ScoreSetIndex) -> None:
    figure = cell_figures(index, KEY)["udr"]
    marks = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
    shown = sorted(round(x, 4) for trace in marks for x in trace["x"])
    expected = sorted(round(100 * row["value"], 4) for row in index.subgroups(KEY, "udr") if row["value"] is not None)
    assert shown == expected
    labels = [text for text in figure["layout"]["yaxis"]["ticktext"] if not text.startswith("<b>")]
    assert len(labels) == len(index.subgroups(KEY, "udr"))


def test_the_worst_subgroup_of_a_disparity_is_marked_by_shape_too(index: ScoreSetIndex) -> None:
    traces = cell_figures(index, KEY)["udr"]["data"]
    symbols = {trace["marker"]["symbol"]: len(trace["x"]) for trace in traces if trace.get("mode") == "markers"}
    assert symbols["diamond"] == 1


def test_hover_text_tells_counts_interval_and_p(index: ScoreSetIndex) -> None:
    traces = cell_figures(index, KEY)["udr"]["data"]
    said = [text for trace in traces for text in trace.get("hovertext", [])]
    for text in said:
        assert all(
            word in text
            for word in ("studies", "with the outcome", "detectable by its own test", "; adjusted p ", "; q ")
        )


def test_every_gap_is_drawn_beside_its_null(index: ScoreSetIndex) -> None:
    figure = cell_figures(index, KEY)["gaps"]
    bar = next(trace for trace in figure["data"] if trace["type"] == "bar")
    marks = [trace for trace in figure["data"] if trace.get("hovertext")]
    assert len(bar["x"]) == sum(len(trace["x"]) for trace in marks) == 9


def test_a_sweep_has_the_operating_point_and_curves_told_apart_without_colour(index: ScoreSetIndex) -> None:
    figure = next(one["figure"] for one in cell_figures(index, KEY)["sweeps"] if one["title"] == "Age band")
    assert figure["layout"]["shapes"][0]["x0"] == 0.31
    named = [trace for trace in figure["data"] if trace.get("name")]
    assert len({trace["line"]["dash"] for trace in named}) == len(named) == 4


def test_every_curve_has_its_place_in_the_legend(index: ScoreSetIndex) -> None:
    sweeps = [one["figure"] for one in cell_figures(index, KEY)["sweeps"]]
    most = max(sum("name" in trace for trace in figure["data"]) for figure in sweeps)
    # two entries fit beside one another on a phone
    assert {figure["layout"]["margin"]["b"] for figure in sweeps} == {68 + 30 * -(-most // 2)}


def test_calibration_shows_slope_and_intercept_before_their_right_values(index: ScoreSetIndex) -> None:
    figure = cell_figures(index, KEY)["calibration"]
    rows = [row for row in index.calibration(KEY) if row["slope"] is not None]
    for axis, name in (("x", "slope"), ("x2", "intercept")):
        marks = [trace for trace in figure["data"] if trace["xaxis"] == axis]
        assert sorted(x for trace in marks for x in trace["x"]) == sorted(round(row[name], 4) for row in rows)
    right = {shape.get("xref", "x"): shape["x0"] for shape in figure["layout"]["shapes"]}
    assert right == {"x": 1.0, "x2": 0.0}


def test_scores_that_are_no_probabilities_have_no_calibration_figure(index: ScoreSetIndex) -> None:
    assert cell_figures(index, dataclasses.replace(KEY, encoder="grey_histogram"))["calibration"] is None


def test_intersections_stand_in_the_order_of_the_search(index: ScoreSetIndex) -> None:
    figure = cell_figures(index, KEY)["intersections"]
    tested = [row for row in index.intersections(KEY, "udr") if row["rank"] is not None]
    assert [row["rank"] for row in tested] == list(range(1, len(tested) + 1))
    at = {
        y: x
        for trace in figure["data"]
        if trace.get("mode") == "markers"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    assert [x for _, x in sorted(at.items())] == [round(100 * row["value"], 4) for row in tested[:15]]
    symbols = {trace["marker"]["symbol"] for trace in figure["data"] if trace.get("mode") == "markers"}
    assert "diamond" in symbols


def test_pairs_stand_beside_the_margin(index: ScoreSetIndex) -> None:
    figure = pair_figures(index)["pe"]
    band = next(shape for shape in figure["layout"]["shapes"] if shape["type"] == "rect")
    assert (band["x0"], band["x1"]) == (-0.02, 0)
    drawn = sorted(x for trace in figure["data"] for x in trace["x"])
    rows = [row for _, _, rows in index.comparisons("pe") for row in rows]
    shown = [row["difference"] for row in rows if row["attribute"] == "overall" and row["metric"] == "auroc"]
    assert drawn == sorted(round(one, 4) for one in shown)


def test_a_strategy_without_a_mark_of_its_own_is_drawn() -> None:
    point = {"gap": 0.1, "auroc": 0.8, "hover": "new"}
    drawn = mitigation_figures.price(point, [point | {"strategy": "somebody_elses"}], [], [], 0.02)
    assert "hexagon" in [one["marker"]["symbol"] for one in drawn["data"]]
