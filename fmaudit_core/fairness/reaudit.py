"""Changes of an encoder's metrics since the previous audit, on the same patients. For two encoders see `comparisons.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection, ReauditSection
from fmaudit_core.fairness.comparisons import pair_rows
from fmaudit_core.fairness.multiplicity import benjamini_hochberg
from fmaudit_core.tables.findings import AUDIT_CHANGES


def audit_changes(
    now: pl.DataFrame,
    before: pl.DataFrame,
    attributes: Sequence[str],
    settings: FairnessSection,
    gate: ReauditSection,
) -> pl.DataFrame:
    """Compare every score set with the same score set in the previous audit.

    Parameters
    ----------
    now, before : frames of predictions with `threshold`
        Only studies in the split `test` of both are compared. Labels and attributes are those of `now`; each audit uses its own
        threshold.
    attributes : sequence of str
        Columns of `now`.
    gate : ReauditSection
        The margins.

    Returns
    -------
    Frame of `AUDIT_CHANGES`, empty where nothing was audited before: `change` is now minus before, of AUROC, UDR and FPR, over
    all studies and in each subgroup. `p_worse` is one-sided: of no worsening. Only `tested` rows carry p; each q-value is that of
    Benjamini and Hochberg over all rows.

    Notes
    -----
    A subgroup is `worse` if the worsening exceeds the margin **and** `q_worse` is at most alpha: it is large enough to matter,
    and not explained by chance. The margin alone would raise alarms in small subgroups, whose metrics vary by chance. The test
    alone would raise alarms for negligible changes in large subgroups. Requiring proof that the worsening exceeds the margin
    would hardly ever raise an alarm in a small subgroup, and a gate should prefer false alarms to misses. At most a share alpha
    of the alarms is expected to be false (Benjamini & Hochberg 1995).
    """
    evaluated = dict(_test(before).group_by(*SCORE_SET))
    rows = []
    for key, frame in _test(now).group_by(*SCORE_SET, maintain_order=True):
        if key in evaluated:
            score_set = dict(zip(SCORE_SET, key, strict=True))
            rows += list(pair_rows(score_set, frame, evaluated[key], attributes, settings))
    worsening = pl.when(pl.col("metric") == "auroc").then(-pl.col("change")).otherwise(pl.col("change"))
    margin = pl.when(pl.col("metric") == "auroc").then(gate.auroc_margin).otherwise(gate.margin)
    half = pl.col("p_value") / 2
    out = (
        pl.DataFrame(rows, schema={**AUDIT_CHANGES.schema, "other_value": pl.Float64, "difference": pl.Float64})
        .with_columns(previous_value="other_value", change="difference")
        .with_columns(p_worse=pl.when(worsening > 0).then(half).otherwise(1 - half))
        .with_columns(q_value=_corrected("p_value"), q_worse=_corrected("p_worse"))
        .with_columns(worse=(pl.col("q_worse") <= settings.alpha) & (worsening > margin))
    )
    return out.select(*AUDIT_CHANGES.schema)


def worsenings(changes: pl.DataFrame) -> list[str]:
    """Return a sentence for every subgroup that got worse, largest change first."""
    worse = changes.filter("worse").sort(pl.col("change").abs(), descending=True)
    return [
        f"{row['encoder']}, {row['task']}: {row['metric'].upper()} of {row['attribute']} {row['subgroup']} went from "
        f"{row['previous_value']:.3f} to {row['value']:.3f} (q {row['q_worse']:.2g})."
        for row in worse.iter_rows(named=True)
    ]


def _test(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.filter(pl.col("split") == "test")


def _corrected(name: str) -> pl.Expr:
    return pl.col(name).map_batches(
        lambda p: pl.Series(benjamini_hochberg(p.fill_null(np.nan).to_numpy()), dtype=pl.Float64).fill_nan(None),
        return_dtype=pl.Float64,
    )
