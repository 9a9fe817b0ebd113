"""Warnings about scores, labels and thresholds that a reader must check before reading a verdict.

A warning is not a fairness test. It reports a suspect number (scores that rank backwards, a threshold on another scale, ties,
patients with more studies in one subgroup) and what to check. The most serious warnings withhold the verdict:
`withhold_verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET, THRESHOLD_GIVEN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.gaps import GAP_METRICS
from fmaudit_core.fairness.intervals import difference_interval
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.score_sets import ScoreSet, ScoreSets, Studies, named
from fmaudit_core.fairness.sentences import of_model, withheld_because
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.tables.fairness import SCORE_WARNINGS

#: AUROC below 0.5, including its whole interval
AUROC_BELOW_HALF: Final = "auroc_below_half"
#: no study, or every study, is called positive; for all studies or for one true class
NONE_OR_ALL_CALLED: Final = "none_or_all_called"
#: nearly no study, or nearly every study, is called positive
NEARLY_NONE_OR_ALL_CALLED: Final = "nearly_none_or_all_called"
#: UDR + FPR above 1, including its whole interval
WORSE_THAN_COIN: Final = "worse_than_coin"
#: the threshold looks like a probability, the scores do not
THRESHOLD_SCALE: Final = "threshold_scale"
#: few distinct scores
FEW_DISTINCT_SCORES: Final = "few_distinct_scores"
#: many studies share one score
FREQUENT_SCORE: Final = "frequent_score"
#: patients of a subgroup have twice as many studies as those of another
STUDIES_PER_PATIENT: Final = "studies_per_patient"

#: codes that concern rates and not AUROC
_OF_RATES: Final = (NONE_OR_ALL_CALLED, NEARLY_NONE_OR_ALL_CALLED, WORSE_THAN_COIN, THRESHOLD_SCALE)
_RATES: Final = ("udr", "fpr")
#: for one true class only: within a subgroup, all studies or none may still be called
_IN_PART: Final = tuple((NONE_OR_ALL_CALLED, metric) for metric in _RATES)
#: a share called positive outside these is suspect
_SHARES_CALLED: Final = (0.01, 0.99)
_FEW_SCORES: Final = 20
_FREQUENT: Final = 0.2
_TIMES_THE_STUDIES: Final = 2.0


def score_warnings(cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection) -> Iterator[dict[str, Any]]:
    """Yield rows of `SCORE_WARNINGS`, of the evaluated split.

    `code` is the kind of warning, `metric` the metric concerned if it is a single one, `withholds` whether verdicts on it are
    withheld. `attribute` and `subgroup` are `overall` and `all` if the warning is about all studies. Subgroups are named only if
    the small-group rule allows them to be tested. For a score set with too few patients overall, only the scale of the threshold
    is checked.

    `value`, `low` and `high` are, depending on the kind: AUROC and its interval; the share called positive; UDR + FPR and its
    interval; the threshold; the number of distinct scores; the share of studies with the most frequent score; studies per
    patient, with the value of `other_subgroup` in `other_value`.

    Intervals of all studies are at `confidence`; those of a subgroup at 1 - (1 - confidence) / G for an attribute with G tested
    subgroups.
    """
    for key, score_set in cohort.items():
        found = [*_of_scale(score_set.studies), *_of_all(score_set.studies, settings)]
        for attribute in attributes:
            found += _of_subgroups(score_set, attribute, settings)
        for one in _without_repeats(found):
            row = dict.fromkeys(SCORE_WARNINGS.schema) | named(key) | {"withholds": False} | one
            yield row | {"message": message(row)}


def withheld(warnings: pl.DataFrame, title: Callable[[str], str] = str) -> pl.DataFrame:
    """Return the score sets and metrics without a verdict: the columns of a score set, `metric` and `reason`.

    Parameters
    ----------
    warnings : frame of `SCORE_WARNINGS`
    title : callable, optional
        Name of a subgroup for people.
    """
    rows = [
        {**{name: row[name] for name in SCORE_SET}, "metric": metric, "reason": reason(row, title)}
        for row in warnings.filter("withholds").iter_rows(named=True)
        for metric in concerned(row)
    ]
    schema = dict.fromkeys((*SCORE_SET, "metric", "reason"), pl.String)
    found = pl.DataFrame(rows, schema=schema).group_by(*SCORE_SET, "metric", maintain_order=True)
    return found.agg(pl.col("reason").str.join(" "))


def withhold_verdicts(
    gaps: pl.DataFrame, warnings: pl.DataFrame, titles: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Return gaps or findings with `insufficient_evidence` in place of each withheld verdict.

    Parameters
    ----------
    gaps : frame with the columns of a score set, `attribute`, `metric`, `verdict`, and maybe `sentence`
        A `sentence` gives the reason.
    warnings : frame of `SCORE_WARNINGS`
    titles : mapping, optional
        Encoder -> name for people.
    """
    joined = gaps.join(withheld(warnings), on=[*SCORE_SET, "metric"], how="left", maintain_order="left")
    held = pl.col("reason").is_not_null()
    changes = {"verdict": pl.when(held).then(pl.lit("insufficient_evidence")).otherwise("verdict")}
    if "sentence" in gaps.columns:
        wording = [
            of_model(row["task"], (titles or {}).get(row["encoder"], row["encoder"]), withheld_because(row["reason"]))
            if row["reason"] is not None
            else row["sentence"]
            for row in joined.iter_rows(named=True)
        ]
        changes["sentence"] = pl.lit(pl.Series(wording, dtype=pl.String))
    return joined.with_columns(**changes).select(gaps.columns)


def concerned(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics whose findings a warning concerns."""
    if row["code"] == AUROC_BELOW_HALF:
        return tuple(GAP_METRICS)
    if row["metric"] is not None:
        return (row["metric"],)
    return _RATES if row["code"] in _OF_RATES else tuple(GAP_METRICS)


def message(row: Mapping[str, Any], title: Callable[[str], str] = str) -> str:
    """Return the message of a warning: what was found, what to check, and which verdicts are withheld.

    Parameters
    ----------
    row : a row of `SCORE_WARNINGS`
    title : callable, optional
        Name of a subgroup for people.
    """
    found, check = _MESSAGES[row["code"]](row, title)
    return f"{found} {check}{_withheld_note(row) if row['withholds'] else ''}"


def reason(row: Mapping[str, Any], title: Callable[[str], str] = str) -> str:
    """Return the first part of `message`: what was found."""
    return _MESSAGES[row["code"]](row, title)[0]


def _withheld_note(row: Mapping[str, Any]) -> str:
    metrics = concerned(row)
    of = "" if set(metrics) == set(GAP_METRICS) else f" on {' and '.join(metric.upper() for metric in metrics)}"
    return f" No verdict{of} is given."


def _of_scale(whole: Studies) -> Iterator[dict[str, Any]]:
    """Yield a warning if a given threshold may be a probability and not all scores can be probabilities."""
    if whole.threshold_source != THRESHOLD_GIVEN or not 0 < whole.threshold < 1:
        return
    if whole.y_score.min() < 0 or whole.y_score.max() > 1:
        yield _overall(THRESHOLD_SCALE, value=whole.threshold)


def _of_all(whole: Studies, settings: FairnessSection) -> Iterator[dict[str, Any]]:
    """Yield warnings about all studies together; none if there are too few to show."""
    if status_of(whole.y_true, whole.patient, settings) not in ("tested", "interval_only"):
        return
    backwards = _auroc_below_half(whole, settings.confidence)
    if backwards:
        yield _overall(AUROC_BELOW_HALF, metric="auroc", withholds=True, **backwards)
    if whole.has_threshold:
        yield from _of_calls(whole, settings)
    yield from _of_ties(whole.y_score)


def _of_calls(whole: Studies, settings: FairnessSection) -> Iterator[dict[str, Any]]:
    called = whole.y_score >= whole.threshold
    share = float(called.mean())
    if share in (0.0, 1.0):
        yield _overall(NONE_OR_ALL_CALLED, withholds=True, value=share)
        return
    for metric, of in (("udr", whole.y_true), ("fpr", ~whole.y_true)):
        of_class = float(called[of].mean())
        if of_class in (0.0, 1.0):
            yield _overall(NONE_OR_ALL_CALLED, metric=metric, withholds=True, value=of_class)
    if not _SHARES_CALLED[0] <= share <= _SHARES_CALLED[1]:
        yield _overall(NEARLY_NONE_OR_ALL_CALLED, value=share)
    worse = _worse_than_coin(whole, settings.confidence)
    if worse:
        yield _overall(WORSE_THAN_COIN, **worse)


def _of_ties(score: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    counts = np.unique(score, return_counts=True)[1]
    if len(counts) < min(_FEW_SCORES, len(score)):
        yield _overall(FEW_DISTINCT_SCORES, value=float(len(counts)))
    elif counts.max() > _FREQUENT * len(score):
        yield _overall(FREQUENT_SCORE, value=float(counts.max() / len(score)))


def _of_subgroups(score_set: ScoreSet, attribute: str, settings: FairnessSection) -> Iterator[dict[str, Any]]:
    """Yield warnings about the tested subgroups of an attribute."""
    groups = score_set.by_level(attribute)
    tested = {
        level: one for level, one in groups.items() if status_of(one.y_true, one.patient, settings, level) == "tested"
    }
    confidence = 1 - (1 - settings.confidence) / max(len(tested), 1)
    for level, one in tested.items():
        of = {"attribute": attribute, "subgroup": level}
        backwards = _auroc_below_half(one, confidence)
        if backwards:
            yield of | {"code": AUROC_BELOW_HALF, "metric": "auroc"} | backwards
        if one.has_threshold:
            share = float((one.y_score >= one.threshold).mean())
            if share in (0.0, 1.0):
                yield of | {"code": NONE_OR_ALL_CALLED, "value": share}
            elif worse := _worse_than_coin(one, confidence):
                yield of | {"code": WORSE_THAN_COIN} | worse
    per_patient = {level: len(one.patient) / n_patients(one.patient) for level, one in tested.items()}
    if per_patient:
        least = min(per_patient, key=lambda level: per_patient[level])
        for level, mean in per_patient.items():
            if mean >= _TIMES_THE_STUDIES * per_patient[least]:
                row = {"attribute": attribute, "subgroup": level, "code": STUDIES_PER_PATIENT}
                yield row | {"value": mean, "other_subgroup": least, "other_value": per_patient[least]}


def _auroc_below_half(one: Studies, confidence: float) -> dict[str, float] | None:
    found = one.ranked
    if found.value is None or found.value >= 0.5:
        return None
    interval = found.interval(confidence)
    if interval is None or interval[1] >= 0.5:
        return None
    return {"value": found.value, "low": interval[0], "high": interval[1]}


def _worse_than_coin(one: Studies, confidence: float) -> dict[str, float] | None:
    """Return UDR + FPR with its interval if the whole interval lies above 1, else None.

    The interval of the sum is computed from the intervals of both rates (MOVER). These are clustered by patient and valid at
    rates of 0 and 1. Calls that agree within a patient make the interval too wide, never too narrow.

    References
    ----------
    Zou & Donner 2008, Statistics in Medicine 27:1693. UDR + FPR is one minus Youden's index (1950).
    """
    called, y = one.y_score >= one.threshold, one.y_true
    if called[~y].mean() <= called[y].mean():
        return None
    udr, fpr = rate(called[y], one.patient[y]).complement(), rate(called[~y], one.patient[~y])
    if udr.value is None or fpr.value is None:
        return None
    of_udr, of_fpr = udr.interval(confidence), fpr.interval(confidence)
    if of_udr is None or of_fpr is None:
        return None
    low, high = difference_interval(udr.value, of_udr, -fpr.value, (-of_fpr[1], -of_fpr[0]))
    return {"value": udr.value + fpr.value, "low": low, "high": min(high, 2.0)} if low > 1 else None


def _without_repeats(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each warning once: for all studies if it holds for them; AUROC below 0.5 replaces UDR + FPR above 1."""
    of_all = {
        row["code"] for row in rows if row["attribute"] == OVERALL and (row["code"], row.get("metric")) not in _IN_PART
    }
    backwards = {(row["attribute"], row["subgroup"]) for row in rows if row["code"] == AUROC_BELOW_HALF}
    for row in rows:
        repeats = row["attribute"] != OVERALL and row["code"] in of_all
        follows = row["code"] == WORSE_THAN_COIN and (
            AUROC_BELOW_HALF in of_all or (row["attribute"], row["subgroup"]) in backwards
        )
        if not (repeats or follows):
            yield row


def _overall(code: str, **columns: Any) -> dict[str, Any]:
    return {"attribute": OVERALL, "subgroup": "all", "code": code} | columns


#: (row, name of a subgroup) -> (what was found, what to check)
MessageParts = Callable[[Mapping[str, Any], Callable[[str], str]], tuple[str, str]]


def _auroc_message(row: Mapping[str, Any], title: Callable[[str], str]) -> tuple[str, str]:
    of_all = row["attribute"] == OVERALL
    found = (
        f"AUROC of {'all studies' if of_all else title(row['subgroup'])} is {row['value']:.2f} (interval {_interval(row)}), "
        "below 0.5: scores are higher without the outcome than with it."
    )
    if of_all:
        return found, "Check whether labels or scores are inverted, and whether each score belongs to its own study."
    return found, "Check how labels and scores of this subgroup were produced."


def _called_message(row: Mapping[str, Any], title: Callable[[str], str]) -> tuple[str, str]:
    check = "Check the threshold and the scale of the scores."
    which = "Every study" if row["value"] == 1 else "No study"
    if row["attribute"] != OVERALL:
        return f"{which} of {title(row['subgroup'])} is called positive.", check
    whom = {None: "", "udr": " with the outcome", "fpr": " without the outcome"}[row["metric"]]
    rates = {None: "UDR and FPR", "udr": "UDR", "fpr": "FPR"}[row["metric"]]
    return f"{which}{whom} is called positive, so subgroups cannot differ in {rates}.", check


def _nearly_message(row: Mapping[str, Any], _title: Callable[[str], str]) -> tuple[str, str]:
    share = f"{100 * min(row['value'], 1 - row['value']):.1f} % of studies"
    found = f"Only {share} are called positive." if row["value"] < 0.5 else f"All but {share} are called positive."
    return found, "Check the threshold and the scale of the scores."


def _coin_message(row: Mapping[str, Any], title: Callable[[str], str]) -> tuple[str, str]:
    whom = "all studies" if row["attribute"] == OVERALL else title(row["subgroup"])
    return (
        f"UDR and FPR of {whom} add up to {row['value']:.2f} (interval {_interval(row)}), above 1: this threshold "
        "performs worse than chance.",
        "Check whether labels or scores are inverted.",
    )


def _scale_message(row: Mapping[str, Any], _title: Callable[[str], str]) -> tuple[str, str]:
    return (
        f"The given threshold {row['value']:g} lies between 0 and 1, and some scores do not.",
        "Check whether the scores are log odds or per cent, and the threshold a probability.",
    )


_TIED: Final = "AUROC counts ties as half, and only a few thresholds are possible."
_CUT: Final = "Check whether scores were rounded or clipped."


def _few_message(row: Mapping[str, Any], _title: Callable[[str], str]) -> tuple[str, str]:
    return f"The scores have only {row['value']:.0f} distinct values. {_TIED}", _CUT


def _frequent_message(row: Mapping[str, Any], _title: Callable[[str], str]) -> tuple[str, str]:
    return f"{100 * row['value']:.0f} % of studies have the same score. {_TIED}", _CUT


def _studies_message(row: Mapping[str, Any], title: Callable[[str], str]) -> tuple[str, str]:
    return (
        f"Patients of {title(row['subgroup'])} have {row['value']:.1f} studies on average, those of "
        f"{title(row['other_subgroup'])} {row['other_value']:.1f}.",
        "The tests account for this. Check whether a study is defined in the same way in both.",
    )


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.2f}-{row['high']:.2f}"


_MESSAGES: Final[Mapping[str, MessageParts]] = {
    AUROC_BELOW_HALF: _auroc_message,
    NONE_OR_ALL_CALLED: _called_message,
    NEARLY_NONE_OR_ALL_CALLED: _nearly_message,
    WORSE_THAN_COIN: _coin_message,
    THRESHOLD_SCALE: _scale_message,
    FEW_DISTINCT_SCORES: _few_message,
    FREQUENT_SCORE: _frequent_message,
    STUDIES_PER_PATIENT: _studies_message,
}
