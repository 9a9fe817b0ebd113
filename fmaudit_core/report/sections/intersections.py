"""Intersections of attributes as the page shows them: who fares worst, how sure, and how many were looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex

#: rows of the table and of the figure; the CSV has them all
_MOST: Final = 15


@dataclass(frozen=True)
class IntersectionLine:
    """An intersection as text: its counts, its value, and its difference from the mean of the others."""

    rank: str
    title: str
    attribute: str
    n: str
    n_pos: str
    value: Estimate
    difference: str
    p: str
    p_adjusted: str
    note: str


@dataclass(frozen=True)
class IntersectionsView:
    """The intersections of a score set that are shown, worst first; `more` are in the CSV alone, `withheld` nowhere."""

    metric: str
    sentence: str
    rows: Sequence[IntersectionLine]
    more: int
    withheld: int


def intersections_view(index: ScoreSetIndex, key: Key) -> IntersectionsView | None:
    """Return the intersections of a score set by the primary metric; None if none were made."""
    metric = index.telling_metric(key)
    rows = index.intersections(key, metric)
    if not rows:
        return None
    shown = [row for row in rows if row["counts"] != "withheld"]
    return IntersectionsView(
        metric=formatting.metric_title(metric),
        sentence=_sentence(index, metric, [row for row in shown if row["rank"] is not None]),
        rows=[_intersection(index, row) for row in shown[:_MOST]],
        more=max(0, len(shown) - _MOST),
        withheld=len(rows) - len(shown),
    )


def _intersection(index: ScoreSetIndex, row: Row) -> IntersectionLine:
    metric, rounded = row["metric"], row["counts"] == "unsaid"
    least = _least(index, row)
    return IntersectionLine(
        rank=str(row["rank"] or ""),
        title=vocabulary.subgroup_title(row["subgroup"]),
        attribute=formatting.attribute_title(row["attribute"]),
        n=formatting.count(row["n"], row["counts"], 2 * least),
        n_pos=formatting.count(row["n_pos"], row["counts"], least),
        value=formatting.estimate(metric, row, rounded=rounded),
        difference=formatting.difference(metric, row["difference"], rounded=rounded),
        p=formatting.p_number(row["p_worse"]),
        p_adjusted=formatting.p_number(row["p_worse_adjusted"]),
        note="" if row["rank"] is not None else "interval only",
    )


def _least(index: ScoreSetIndex, row: Row) -> int:
    settings = index.audit.fairness
    return settings.test_from if row["status"] == "tested" else settings.suppress_under


def _sentence(index: ScoreSetIndex, metric: str, tested: list[Row]) -> str:
    """Say who fares worst of how many, and whether equal ones would look so bad, the search accounted for."""
    if not tested:
        return "No intersection has enough patients with and without the outcome to be tested and shown."
    worst, wording, many = tested[0], _intersection(index, tested[0]), len(tested) > 1
    title = formatting.metric_title(metric)
    level = title if metric == "auroc" else title[:1].lower() + title[1:]
    first = (
        f"Of {len(tested)} intersections that could be tested and shown, {wording.title} fares worst"
        if many
        else f"One intersection could be tested and shown, {wording.title}"
    )
    adjusted = worst["p_worse_adjusted"]
    p = formatting.p_text(adjusted, "adjusted p")
    if adjusted is not None and adjusted <= index.audit.fairness.alpha:
        end = f"Equal ones would hardly look so bad{', even the worst of so many' if many else ''} ({p})."
    elif many:
        end = f"The worst of so many equal ones would often look this bad: we cannot tell ({p})."
    else:
        end = f"We cannot tell whether it is real ({p})."
    others = f"{wording.difference} from the mean of the other intersections"
    return f"{first}: {level} {wording.value}, {others}. {end}"


def intersections_figure(index: ScoreSetIndex, key: Key) -> figures.Spec | None:
    """Return the forest plot of the tested intersections, worst first; None if there are none."""
    metric = index.telling_metric(key)
    tested = [row for row in index.intersections(key, metric) if row["rank"] is not None][:_MOST]
    if not tested:
        return None
    overall = index.overall(key, metric)
    rows = [_drawn(index, row) for row in tested]
    title = f"{'positives' if metric == 'udr' else 'studies'} · adjusted p"
    return figures.forest(rows, metric, overall["value"] if overall else None, title)


def _drawn(index: ScoreSetIndex, row: Row) -> dict[str, Any]:
    wording, adjusted = _intersection(index, row), row["p_worse_adjusted"]
    n = (wording.n_pos if row["metric"] == "udr" else wording.n).replace(" or more", "+")
    return {
        "attribute": "Worst first",
        "of": formatting.attribute_title(row["attribute"]),
        "label": figures.tick_label(wording.title),
        "value": row["value"], "low": row["ci_low"], "high": row["ci_high"], "mde": row["mde"], "status": row["status"],
        "alarm": adjusted is not None and adjusted <= index.audit.fairness.alpha,
        "hover": (
            f"<b>{figures.plain(wording.title)}</b><br>{figures.plain(wording.attribute)}<br>"
            f"{formatting.metric_title(row['metric'])} {wording.value}<br>"
            f"{wording.n} studies, {wording.n_pos} with the outcome<br>{wording.difference} from all others<br>"
            f"{formatting.exploratory_p_text(row['p_worse'])}; {formatting.p_text(adjusted, 'adjusted p')}"
        ),
        "aside": f"{n} · {wording.p_adjusted}",
    }  # fmt: skip
