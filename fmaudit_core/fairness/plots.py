"""Figures of an assessment for a notebook, as plotly figures. Those of the report: `report/figures/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go
import polars as pl

from fmaudit_core.common.errors import did_you_mean
from fmaudit_core.common.formatting import (
    RATES,
    attribute_title,
    group_title,
    metric_title,
    p_text,
    task_title,
)
from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.sentences import verdict_title

_ROW_PX: Final = 30
_MARGIN_PX: Final = 130
#: Okabe and Ito's colours, told apart by people who are colour-blind
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


class Plots:
    """Figures of one assessment: `found.plot.subgroups()`, `found.plot.gaps()`, `found.plot.thresholds("sex")`.

    Every method takes the names of a score set (`encoder`, `task`, `probe`, ...) to show one of several.
    """

    def __init__(self, metrics: pl.DataFrame, gaps: pl.DataFrame, sweeps: pl.DataFrame) -> None:
        self._metrics, self._gaps, self._sweeps = metrics, gaps, sweeps

    def subgroups(self, metric: str = "udr", **score_set: str) -> go.Figure:
        """Draw the value of every subgroup with its interval, next to that of all studies.

        Parameters
        ----------
        metric : "udr", "tpr", "fpr" or "auroc"
        **score_set : str
            Names of the score sets to show, such as `encoder="a"`.

        Raises
        ------
        FairnessError
            There is no such metric or score set.
        """
        rows = _chosen(self._metrics, score_set | {"metric": metric})
        figure, scale = go.Figure(), 100 if metric in RATES else 1
        places = rows.filter(pl.col("attribute") != OVERALL).select("attribute", "subgroup").unique(maintain_order=True)
        labels = _subgroup_labels(places)
        for (name, one), colour in _coloured(rows):
            joined = places.join(one, on=["attribute", "subgroup"], how="left", maintain_order="left")
            shown = joined.filter(pl.col("value").is_not_null())
            at = _subgroup_labels(shown.select("attribute", "subgroup"))
            value, low, high = (shown.get_column(end).to_numpy() * scale for end in ("value", "ci_low", "ci_high"))
            tested = shown.get_column("status").to_list()
            figure.add_scatter(
                x=value, y=at, mode="markers", name=name,
                marker={"color": colour, "size": 9, "symbol": ["circle" if one == "tested" else "circle-open" for one in tested]},
                error_x={"array": high - value, "arrayminus": value - low, "thickness": 1.5, "width": 0},
                customdata=shown.select("n", "n_pos").to_numpy(),
                hovertemplate="%{y}: %{x:.3g}<br>%{customdata[0]} studies, %{customdata[1]} with the outcome",
            )  # fmt: skip
            overall = one.filter(attribute=OVERALL).get_column("value").to_list()
            if overall and overall[0] is not None:
                figure.add_vline(x=overall[0] * scale, line={"dash": "dot", "color": colour, "width": 1})
        shown_at = {place for trace in figure.data for place in trace.y}
        withheld = [label for label in labels if label not in shown_at]
        figure.add_scatter(
            x=[0.0] * len(withheld), y=withheld, mode="text", text=["too few"] * len(withheld), textposition="middle right",
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        return _laid_out(
            figure, labels, f"{metric_title(metric)}{', %' if scale > 1 else ''} (hollow: too few to test)"
        )

    def gaps(self, metric: str = "udr", **score_set: str) -> go.Figure:
        """Draw the gap of every attribute next to that of equal subgroups: expected, and not exceeded in 95 of 100 samples.

        Raises
        ------
        FairnessError
            There is no such metric or score set.
        """
        rows = _chosen(self._gaps, score_set | {"metric": metric})
        figure, scale = go.Figure(), 100 if metric in RATES else 1
        labels = [attribute_title(one) for one in rows.get_column("attribute").unique(maintain_order=True)]
        for (name, one), colour in _coloured(rows):
            drawn = one.filter(pl.col("gap").is_not_null())
            at = [attribute_title(of) for of in drawn.get_column("attribute")]
            words = [f"{verdict_title(row['verdict'])} ({_p_of(row)})" for row in drawn.iter_rows(named=True)]
            figure.add_bar(
                x=drawn.get_column("null_gap_95").to_numpy() * scale, y=at, orientation="h", width=0.5,
                marker={"color": colour, "opacity": 0.18}, name=f"{name}: equal subgroups, 95 %", hoverinfo="x+name",
            )  # fmt: skip
            figure.add_scatter(
                x=drawn.get_column("null_expected_gap").to_numpy() * scale, y=at, mode="markers",
                marker={"symbol": "line-ns-open", "size": 16, "color": colour}, name=f"{name}: expected if equal",
            )  # fmt: skip
            figure.add_scatter(
                x=drawn.get_column("gap").to_numpy() * scale, y=at, mode="markers+text", text=words,
                textposition="middle right", cliponaxis=False,
                marker={"color": colour, "size": 10, "symbol": "diamond"}, name=f"{name}: gap",
            )  # fmt: skip
        figure.update_layout(barmode="overlay")
        return _laid_out(figure, labels, f"{metric_title(metric)}: gap{' in points' if scale > 1 else ''}")

    def thresholds(self, attribute: str, *, rate: str = "udr", **score_set: str) -> go.Figure:
        """Draw a rate of every subgroup of one attribute at every threshold, within its simultaneous band.

        Parameters
        ----------
        attribute : str
        rate : "udr", "tpr" or "fpr"

        Raises
        ------
        FairnessError
            There is no such attribute, rate or score set, or several score sets are left.
        """
        if rate not in ("udr", "tpr", "fpr"):
            raise FairnessError(f"there is no rate {rate!r}; the rates are udr, tpr and fpr.")
        rows = _chosen(self._sweeps, score_set | {"attribute": attribute})
        names = rows.select(SCORE_SET).unique()
        if names.height > 1:
            several = [name for name in SCORE_SET if names.get_column(name).n_unique() > 1]
            raise FairnessError(f"several score sets are left; name one by {', '.join(several)}.")
        figure = go.Figure()
        column, low, high = (
            ("fpr", "fpr_band_low", "fpr_band_high") if rate == "fpr" else ("tpr", "band_low", "band_high")
        )
        levels = rows.partition_by("subgroup", maintain_order=True)
        for at, one in enumerate(levels):
            colour = _COLOURS[at % len(_COLOURS)]
            x = one.get_column("threshold").to_numpy()
            y, bottom, top = (one.get_column(name).to_numpy() * 100 for name in (column, low, high))
            if rate == "udr":
                y, bottom, top = 100 - y, 100 - top, 100 - bottom
            name = group_title(attribute, one.item(0, "subgroup"))
            outline = {"x": [*x, *x[::-1]], "y": [*top, *bottom[::-1]]}
            figure.add_scatter(
                **outline, fill="toself", fillcolor=colour, opacity=0.12, line={"width": 0}, hoverinfo="skip",
                showlegend=False, legendgroup=name,
            )  # fmt: skip
            figure.add_scatter(
                x=x, y=y, mode="lines", line={"color": colour, "shape": "hv"}, name=name, legendgroup=name
            )
        chosen = self._threshold(names)
        if chosen is not None:
            figure.add_vline(x=chosen, line={"dash": "dot", "color": "#333"}, annotation_text="operating threshold")
        figure.update_layout(
            template="plotly_white", xaxis_title="threshold", yaxis={"title": f"{metric_title(rate)} (%)", "range": [-2, 102]},
            legend_title=attribute_title(attribute), margin={"t": 30},
        )  # fmt: skip
        return figure

    def _threshold(self, names: pl.DataFrame) -> float | None:
        of_set = self._metrics.join(names, on=SCORE_SET, how="semi", nulls_equal=True)
        found = of_set.filter(attribute=OVERALL, metric="udr").get_column("threshold").to_list()
        return found[0] if found else None


def _chosen(frame: pl.DataFrame, named: dict[str, str]) -> pl.DataFrame:
    """Return the rows of names, or raise with the names that exist."""
    for column, name in named.items():
        if column not in (*SCORE_SET, "metric", "attribute"):
            raise FairnessError(
                f"there is no {did_you_mean(column, SCORE_SET)} to choose a score set by.",
                fix=f"There are {', '.join(SCORE_SET)}.",
            )
        there = frame.get_column(column).drop_nulls().unique(maintain_order=True).to_list()
        if name not in there:
            raise FairnessError(
                f"there is no {column} {did_you_mean(name, there)}.",
                fix=f"There are: {', '.join(map(str, there)) or 'none'}.",
            )
        frame = frame.filter(pl.col(column) == name)
    return frame


def _coloured(rows: pl.DataFrame) -> Sequence[tuple[tuple[str, pl.DataFrame], str]]:
    """Return each score set's name, without the parts that all share, its rows, and its colour."""
    several = [name for name in SCORE_SET if rows.get_column(name).n_unique() > 1]
    found = []
    for at, one in enumerate(rows.partition_by(SCORE_SET, maintain_order=True)):
        parts = [task_title(one.item(0, name)) if name == "task" else str(one.item(0, name)) for name in several]
        found.append(((", ".join(parts) or "model", one), _COLOURS[at % len(_COLOURS)]))
    return found


def _subgroup_labels(places: pl.DataFrame) -> list[str]:
    return [f"{attribute_title(of)}: {group_title(of, level)}" for of, level in places.iter_rows()]


def _p_of(row: dict[str, Any]) -> str:
    if row["p_adjusted"] is not None:
        return p_text(row["p_adjusted"], "adjusted p")
    return p_text(row["q_value"], "q")


def _laid_out(figure: go.Figure, labels: Sequence[str], title: str) -> go.Figure:
    named = [one for one in figure.data if one.showlegend is not False]
    figure.update_layout(
        template="plotly_white", height=_MARGIN_PX + _ROW_PX * len(labels), xaxis={"title": title, "rangemode": "tozero"},
        yaxis={"categoryorder": "array", "categoryarray": list(labels)[::-1], "automargin": True},
        showlegend=len(named) > 1, margin={"t": 40, "r": 220},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0},
    )  # fmt: skip
    return figure
