"""In a notebook: data frames of any library, figures, sentences, and one HTML document."""

from __future__ import annotations

import html
import subprocess

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import polars as pl
import pytest

from fmaudit_core.fairness import assess
from fmaudit_core.fairness.errors import FairnessError

ATTRIBUTES = ["ward", "sex"]


@pytest.fixture(scope="module")
def predictions():
    return pl.read_csv("docs/statistics/wards.csv", schema_overrides={"y_score": pl.Float64, "y_true": pl.Int64})


@pytest.fixture(scope="module")
def found(predictions):
    return assess(predictions, attributes=ATTRIBUTES)


def with_categories(frame):
    return frame.assign(ward=frame["ward"].astype("category"), y_true=frame["y_true"].astype("boolean"))


@pytest.mark.parametrize(
    "form",
    [
        pl.DataFrame.lazy,
        pl.DataFrame.to_arrow,
        pl.DataFrame.to_pandas,
        lambda frame: with_categories(frame.to_pandas()),
        lambda frame: frame.to_pandas().set_index("study_id", drop=False),
        lambda frame: frame.to_dict(as_series=False),
        lambda frame: {name: np.asarray(column) for name, column in frame.to_dict().items()},
        lambda frame: {name: pd.Series(column.to_list()) for name, column in frame.to_dict().items()},
    ],
    ids=["lazy", "arrow", "pandas", "pandas categories", "pandas index", "lists", "arrays", "pandas series"],
)
def test_every_form_of_data_frame_gives_the_same(predictions, found, form):
    same = assess(form(predictions), attributes=ATTRIBUTES)
    for name, table in found.tables().items():
        assert same.tables()[name].equals(table), name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1, 2], "of type list"),
        ("scores.csv", "of type str"),
        ({"study_id": ["a", "b"], "y_true": [1]}, "cannot be read as a table"),
        (pd.DataFrame({"study_id": ["Jane Doe", 3, object()]}), "cannot be read as a table"),
    ],
    ids=["list", "path", "lengths", "objects"],
)
def test_what_is_no_table_is_refused_without_its_cells(given, said):
    with pytest.raises(FairnessError, match=said) as error:
        assess(given, attributes=ATTRIBUTES)
    assert "Doe" not in str(error.value)


def test_subgroups_are_drawn_with_their_intervals(found):
    figure = found.plot.subgroups("udr")
    drawn, withheld = figure.data
    rows = found.subgroup_metrics.filter(pl.col("attribute") != "overall", metric="udr").drop_nulls("value")
    assert list(drawn.y) == ["Sex: Female", "Sex: Male", "Ward: A", "Ward: B", "Ward: C"]
    assert np.allclose(drawn.x, rows.get_column("value") * 100)
    assert np.allclose(drawn.x + drawn.error_x.array, rows.get_column("ci_high") * 100)
    assert figure.layout.yaxis.categoryarray[0] == "Ward: D"
    assert (withheld.y, withheld.text) == (("Ward: D",), ("too few",))
    assert np.allclose(found.plot.subgroups("auroc").data[0].x.max(), found.subgroup_metrics.filter(
        pl.col("attribute") != "overall", metric="auroc").get_column("value").max())  # fmt: skip


def test_gaps_are_drawn_next_to_those_of_equal_subgroups(found):
    equal, expected, gap = found.plot.gaps().data
    rows = found.fairness_gaps.filter(metric="udr")
    assert np.allclose(gap.x, rows.get_column("gap") * 100)
    assert np.allclose(expected.x, rows.get_column("null_expected_gap") * 100)
    assert np.allclose(equal.x, rows.get_column("null_gap_95") * 100)
    assert gap.text[1] == "Disparity (adjusted p < 0.001)"


@pytest.mark.parametrize(("rate", "column"), [("udr", "tpr"), ("tpr", "tpr"), ("fpr", "fpr")])
def test_a_rate_is_drawn_at_every_threshold(found, rate, column):
    figure = found.plot.thresholds("sex", rate=rate)
    of_women = next(one for one in figure.data if one.name == "Female")
    wanted = found.threshold_sweep.filter(attribute="sex", subgroup="female").get_column(column) * 100
    assert np.allclose(of_women.y, 100 - wanted if rate == "udr" else wanted)
    assert figure.layout.shapes[0].x0 == found.subgroup_metrics.item(0, "threshold")


def test_several_models_have_colours_and_names_and_can_be_chosen(predictions):
    both = pl.concat([predictions.with_columns(encoder=pl.lit(name)) for name in ("one", "two")])
    found = assess(both, attributes=["sex"])
    assert [one.name for one in found.plot.subgroups().data] == ["one", "two", None]
    assert len(found.plot.subgroups(encoder="two").data) == 2
    with pytest.raises(FairnessError, match="name one by encoder"):
        found.plot.thresholds("sex")
    assert isinstance(found.plot.thresholds("sex", encoder="one"), go.Figure)
    with pytest.raises(FairnessError, match=r"there is no encoder ane .did you mean one"):
        found.plot.gaps(encoder="ane")


@pytest.mark.parametrize(
    "drawn",
    [
        lambda plot: plot.subgroups("sensitivity"),
        lambda plot: plot.gaps("accuracy"),
        lambda plot: plot.thresholds("age"),
        lambda plot: plot.thresholds("sex", rate="ppv"),
        lambda plot: plot.subgroups(model="a"),
    ],
)
def test_what_does_not_exist_is_named(found, drawn):
    with pytest.raises(FairnessError, match="there is no"):
        drawn(found.plot)


def test_sentences_are_those_of_the_findings(found):
    sentences = found.sentences()
    assert len(sentences) == 2
    assert "the model missed 44.3% in the subgroup C and 12.0% in B" in sentences[1]
    assert found.sentences("auroc") != sentences


def test_the_document_stands_alone_and_escapes(found, tmp_path, chromium):
    page = found.to_html("Wards <b>& more</b>")
    assert "Wards &lt;b&gt;&amp; more&lt;/b&gt;" in page
    assert all(html.escape(sentence) in page for sentence in found.sentences())
    path = tmp_path / "wards.html"
    path.write_text(page, encoding="utf-8")
    printed = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert printed.count('class="main-svg"') >= 2
