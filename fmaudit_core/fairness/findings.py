"""From statistics to findings: the correction over the declared family, a verdict, and a sentence that claims no more.

The confirmatory family is declared before looking: the diagnosis task, the primary metric and pooling, every attribute, every
encoder that is not a control. All other rows are exploratory and carry a q-value over the whole grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gap_rows import family_p, judged
from fmaudit_core.fairness.predictions import evaluated
from fmaudit_core.fairness.sentences import among_whom, gap_text, in_full, of_model
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
    wording = gap_sentences(found, metrics, settings.margin, titles)
    out = found.with_columns(sentence=pl.Series(wording, dtype=pl.String)).select(*AUDIT_FINDINGS.schema)
    return out.sort("confirmatory", *_KEYS, descending=[True, *[False] * len(_KEYS)])


def gap_sentences(
    gaps: pl.DataFrame, metrics: pl.DataFrame, margin: float, titles: Mapping[str, str] | None = None
) -> list[str]:
    """Return each gap in words, its task and model in front; `gaps` and `metrics` as in `findings`."""
    by_gap = dict(metrics.group_by(_KEYS))
    return [
        _sentence(row, by_gap.get(tuple(row[name] for name in _KEYS)), margin, titles or {})
        for row in gaps.iter_rows(named=True)
    ]


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


def _sentence(row: Mapping[str, Any], metrics: pl.DataFrame | None, margin: float, titles: Mapping[str, str]) -> str:
    subgroups = {} if metrics is None else {one["subgroup"]: one for one in metrics.iter_rows(named=True)}
    sentence = in_full(gap_text(row, subgroups), among_whom(row["task"]), margin)
    return of_model(row["task"], titles.get(row["encoder"], row["encoder"]), sentence)
