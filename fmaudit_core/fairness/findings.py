"""From statistics to findings: the correction over the declared family, a verdict, and a sentence that claims no more.

The confirmatory family is declared before looking: the diagnosis task, the primary metric and pooling, every attribute, every
encoder that is not a control. All other rows are exploratory and carry a q-value over the whole grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from fmaudit_core.common.vocabulary import ATTRIBUTE_TITLES, TASK_TITLES, UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gap_rows import family_p, judged
from fmaudit_core.fairness.predictions import evaluated
from fmaudit_core.fairness.small_groups import NO_THRESHOLD
from fmaudit_core.fairness.thresholds import SCORE_SET
from fmaudit_core.tables.findings import AUDIT_FINDINGS

_KEYS: Final = [*SCORE_SET, "attribute", "metric"]
_JUDGEMENT: Final = ("p_adjusted", "q_value", "verdict", "confirmatory")


def findings(
    family: pl.DataFrame,
    gaps: pl.DataFrame,
    metrics: pl.DataFrame,
    *,
    attributes: Sequence[str],
    settings: FairnessSection,
    titles: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Correct every gap over its family, judge it, and say it.

    Parameters
    ----------
    family : frame of predictions with thresholds and attributes
        Those of the confirmatory family: its task and pooling, encoders that are no controls. May be empty.
    gaps, metrics : frames
        `fairness_gaps` and `subgroup_metrics` of all encoders and tasks.
    titles : mapping, optional
        Encoder -> name for people.

    Returns
    -------
    Frame of `AUDIT_FINDINGS`: the rows of `gaps`, corrected, with `verdict` and `sentence`
    """
    family_wise = _family_p(family, attributes, settings)
    rows = gaps.drop("p_adjusted", "confirmatory").join(family_wise, on=_KEYS, how="left", maintain_order="left")
    found = judged(rows.with_columns(pl.col("confirmatory").fill_null(value=False)), settings)
    by_gap = dict(metrics.group_by(_KEYS))
    wording = [
        _sentence(row, by_gap.get(tuple(row[name] for name in _KEYS)), settings, titles or {})
        for row in found.iter_rows(named=True)
    ]
    out = found.with_columns(sentence=pl.Series(wording, dtype=pl.String)).select(*AUDIT_FINDINGS.schema)
    return out.sort("confirmatory", *_KEYS, descending=[True, *[False] * len(_KEYS)])


def judged_as_found(gaps: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps, each with the corrected p and the verdict of its finding; a gap without a finding keeps its own.

    Parameters
    ----------
    gaps : frame of `FAIRNESS_GAPS`
        Corrected over fewer comparisons than the findings, for instance those of one encoder and task.
    found : frame of `AUDIT_FINDINGS`
    """
    judgement = [name for name in _JUDGEMENT if name in gaps.columns and name in found.columns]
    return gaps.update(found.select(*_KEYS, *judgement), on=_KEYS, include_nulls=True)


def _family_p(family: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection) -> pl.DataFrame:
    """Family-wise p of the confirmatory rows, with the same permutations for every model of the family."""
    if family.is_empty():
        empty = dict.fromkeys(_KEYS, pl.String) | {"p_adjusted": pl.Float64, "confirmatory": pl.Boolean}
        return pl.DataFrame(schema=empty)
    fixed = settings.model_copy(update={"threshold_uncertainty": False})  # it widens intervals and moves no p
    return family_p(evaluated(family, attributes, fixed).test, attributes, settings)


def _sentence(
    row: Mapping[str, Any], subgroups: pl.DataFrame | None, settings: FairnessSection, titles: Mapping[str, str]
) -> str:
    attribute = ATTRIBUTE_TITLES.get(row["attribute"], row["attribute"]).lower()
    model = titles.get(row["encoder"], row["encoder"])
    task = TASK_TITLES.get(row["task"], row["task"])
    if row["gap"] is None and subgroups is not None and (subgroups.get_column("status") == NO_THRESHOLD).any():
        return (
            f"{task}, {model}: nothing can be said of {_METRIC_WORDS[row['metric']]} by {attribute}, because without predictions "
            "for validation studies there is no operating threshold."
        )
    if row["gap"] is None or subgroups is None:
        return (
            f"{task}, {model}: fewer than two subgroups by {attribute} have {settings.test_from} patients "
            f"{_PATIENTS[row['metric']]}, so nothing can be said of a difference."
        )
    of = {one["subgroup"]: one for one in subgroups.iter_rows(named=True)}
    worst, best = of[row["worst_subgroup"]], of[row["best_subgroup"]]
    left_out = _left_out(subgroups)
    gap = _points(row["gap"], row["metric"])
    if row["p_value"] is None:
        return (
            f"{task}, {model}: {_METRIC_WORDS[row['metric']]} by {attribute} cannot be compared, since at this threshold every "
            f"study, or none, is called positive in all tested subgroups.{left_out}"
        )
    equal = _points(row["null_expected_gap"], row["metric"])
    p = _p(row)
    margin = _points(settings.margin, row["metric"])
    if row["verdict"] == "disparity":
        return (
            f"{task}, {model}: {_rate(worst)} in the {attribute} group {worst['subgroup']}, against {_rate(best)} in "
            f"{best['subgroup']}. The gap is {gap}, where subgroups with the same true {_NAMES[row['metric']]} would differ by "
            f"about {equal} ({p}).{left_out}"
        )
    if row["verdict"] == "no_disparity_beyond_margin":
        return (
            f"{task}, {model}: all subgroups by {attribute} differ in {_METRIC_WORDS[row['metric']]} by less than {margin} "
            f"(equivalence tests at {settings.alpha:g}).{left_out}"
        )
    if row["verdict"] == "within_margin_of_tested":
        return (
            f"{task}, {model}: the tested subgroups by {attribute} differ in {_METRIC_WORDS[row['metric']]} by less than "
            f"{margin} (equivalence tests at {settings.alpha:g}). This does not cover all subgroups.{left_out}"
        )
    visible = subgroups.filter(pl.col("status") == "tested").get_column("mde").max()
    detectable = _points(float(visible), row["metric"]) if isinstance(visible, float) else "an unknown amount"
    standing = "within" if row["gap"] <= row["null_gap_95"] else "beyond"
    return (
        f"{task}, {model}: we cannot tell whether {_METRIC_WORDS[row['metric']]} differs by {attribute}. The gap is {gap}, "
        f"{standing} what subgroups with the same true {_NAMES[row['metric']]} commonly show (about {equal}; {p}), and in some "
        f"subgroup a difference below {detectable} would go unseen.{left_out}"
    )


_NAMES: Final = {"udr": "UDR", "fpr": "FPR", "auroc": "AUROC"}
_PATIENTS: Final = {
    "udr": "with positives", "fpr": "with negatives", "auroc": "with positives and as many with negatives",
}  # fmt: skip
_METRIC_WORDS: Final = {"udr": "the share missed", "fpr": "the share of false alarms", "auroc": "AUROC"}


def _rate(row: Mapping[str, Any]) -> str:
    if row["metric"] == "auroc":
        return f"AUROC {row['value']:.2f} ({row['ci_low']:.2f}-{row['ci_high']:.2f}; n = {row['n']})"
    of, verb = (row["n_pos"], "positives missed") if row["metric"] == "udr" else (row["n_neg"], "negatives flagged")
    share, low, high = (100 * row[name] for name in ("value", "ci_low", "ci_high"))
    return f"{share:.0f} % of {of} {verb} ({low:.0f}-{high:.0f} %)"


def _points(value: float, metric: str) -> str:
    return f"{value:.2f}" if metric == "auroc" else f"{100 * value:.0f} points"


def _p(row: Mapping[str, Any]) -> str:
    if row["p_adjusted"] is not None:
        return f"p = {row['p_adjusted']:.2g} after correction over the family"
    return f"q = {row['q_value']:.2g} over all comparisons"


def _left_out(subgroups: pl.DataFrame) -> str:
    names = subgroups.filter(pl.col("status") != "tested").get_column("subgroup").sort().to_list()
    small = [name for name in names if name != UNKNOWN]
    wording = f" Not tested, for too few patients: {', '.join(small)}." if small else ""
    if UNKNOWN not in names:
        return wording
    row = subgroups.filter(pl.col("subgroup") == UNKNOWN).row(0, named=True)
    value = f", {_rate(row)}" if row["value"] is not None else ""
    return wording + f" Not recorded, so never tested: {UNKNOWN}{value}."
