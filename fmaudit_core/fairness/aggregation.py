"""Comparison of methods that aggregate slice embeddings to one score per study. The reference is mean pooling.

The methods are mean, maximum and median per dimension under the same logistic probe, and gated attention and a recurrent network,
which learn how to weight slices. Encoders with the same weights and another view (other windows, another stride) are separate
encoders in the registry; they are compared too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.encoders.pooling import OF_SLICES, POOLINGS
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, holm
from fmaudit_core.fairness.paired import paired_auroc
from fmaudit_core.fairness.score_sets import studies_of
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.probes.primary_score_set import PRIMARY_MODALITY, PRIMARY_PROBE
from fmaudit_core.tables.findings import SPATIAL_AGGREGATION

REFERENCE: Final = "mean"
_ATTENTION: Final = "abmil"
#: aggregation -> probe that uses it
AGGREGATIONS: Final[dict[str, str]] = {
    **dict.fromkeys(POOLINGS, PRIMARY_PROBE), **{pooling: probe for probe, pooling in OF_SLICES.items()},
}  # fmt: skip


def spatial_aggregation(
    test: pl.DataFrame,
    settings: FairnessSection,
    *,
    n_slices: Mapping[str, Mapping[str, int]],
    alike: Mapping[str, Sequence[str]],
    seeds: pl.DataFrame,
    equal: pl.DataFrame,
) -> pl.DataFrame:
    """Compare each aggregation and each other view with mean pooling under the logistic probe, for every encoder and task.

    Parameters
    ----------
    test : frame of predictions of the test split
        Every score set, of all encoders.
    n_slices : encoder -> study -> slices
        Encoders without slice embeddings are absent.
    alike : encoder -> other encoders of the same weights with another view
    seeds : frame of `PROBE_SEEDS`
    equal : frame of `EQUAL_ATTENTION`
        Attention with equal weights.

    Returns
    -------
    Frame of `SPATIAL_AGGREGATION`, patients paired. `comparison` is ``aggregation`` or ``window``, where `view_of` names the
    other encoder; `difference` is the row's AUROC minus that of mean pooling. `status`: ``reference``, ``tested``,
    ``interval_only`` (no p), ``suppressed``, ``not_scored`` (the probe is not configured, or could not be fitted), ``no_slices``
    (the encoder sees whole volumes, or was run elsewhere). `p_holm` and `q_value` are over the rows of one encoder and task.
    `n_slices` is the median over the studies; `seed_mean` and `seed_sd` are of the test AUROC of the single networks whose
    mean is the score. Attention differs from mean pooling in its linear probe too (principal components, another
    regularisation): `equal_difference`, with its interval and p, is what it gains over itself with equal weights, by
    attention alone.
    """
    rows: list[dict[str, Any]] = []
    of_ct = test.filter((pl.col("modality") == PRIMARY_MODALITY) & (pl.col("strategy") == "none"))
    by_cell = {(str(key[0]), str(key[1])): frame for key, frame in of_ct.group_by("encoder", "task")}
    for (encoder, task), frame in sorted(by_cell.items(), key=lambda cell: cell[0]):
        cell = {"encoder": encoder, "task": task}
        slices = n_slices.get(encoder)
        if not slices:
            rows.append(cell | {"comparison": "aggregation", "status": "no_slices"})
            continue
        others = {other: by_cell.get((other, task)) for other in alike.get(encoder, ())}
        alone = [one.filter(encoder=encoder, task=task) for one in (seeds, equal)]
        found = _of_cell(frame, others, alone[0], alone[1], settings, slices)
        rows += _adjusted([cell | row for row in found])
    return SPATIAL_AGGREGATION.frame(rows)


def _of_cell(
    frame: pl.DataFrame,
    others: Mapping[str, pl.DataFrame | None],
    seeds: pl.DataFrame,
    equal: pl.DataFrame,
    settings: FairnessSection,
    slices: Mapping[str, int],
) -> list[dict[str, Any]]:
    reference = frame.filter(probe=PRIMARY_PROBE, pooling=REFERENCE)
    rows = []
    for aggregation, probe in AGGREGATIONS.items():
        named = {"comparison": "aggregation", "aggregation": aggregation, "probe": probe}
        scores = frame.filter(probe=probe, pooling=aggregation)
        row = named | _of_seeds(seeds, probe) | _compared(scores, reference, settings, slices)
        rows.append(row | _by_attention(scores, equal, row["status"], settings) if probe == _ATTENTION else row)
    for other, of_other in others.items():
        named = {"comparison": "window", "aggregation": REFERENCE, "probe": PRIMARY_PROBE, "view_of": other}
        scores = frame.clear() if of_other is None else of_other.filter(probe=PRIMARY_PROBE, pooling=REFERENCE)
        rows.append(named | _compared(scores, reference, settings, slices))
    return rows


def _of_seeds(seeds: pl.DataFrame, probe: str) -> dict[str, Any]:
    """Return the number of chosen networks of a probe, with mean and standard deviation of their test AUROC."""
    of_probe = seeds.filter((pl.col("probe") == probe) & pl.col("chosen")).get_column("test_auroc").drop_nulls()
    if of_probe.is_empty():
        return {}
    return {"seeds": len(of_probe), "seed_mean": of_probe.mean(), "seed_sd": of_probe.std()}


def _compared(
    scores: pl.DataFrame, reference: pl.DataFrame, settings: FairnessSection, slices: Mapping[str, int]
) -> dict[str, Any]:
    """Return the AUROC and its difference from the reference, on the studies scored by both."""
    one = scores.join(reference, on="study_id", how="semi").sort("study_id")
    if one.is_empty():
        return {"status": "not_scored"}
    first = studies_of(one)
    n_pos = int(first.y_true.sum())
    status = status_of(first.y_true, first.patient, settings, "all")
    if status not in ("tested", "interval_only"):
        return {"status": "suppressed"}
    level = first.ranked
    low, high = level.interval(settings.confidence) or (None, None)
    row = {
        "n": len(first.y_true), "n_pos": n_pos, "n_neg": len(first.y_true) - n_pos,
        "auroc": level.value, "ci_low": low, "ci_high": high,
        "n_slices": float(np.median([slices[study] for study in one.get_column("study_id") if study in slices])),
    }  # fmt: skip
    if scores is reference or scores.equals(reference):
        return row | {"status": "reference", "reference_auroc": level.value}
    second = studies_of(reference.join(scores, on="study_id", how="semi").sort("study_id"))
    pair = paired_auroc(first.y_true, first.y_score, second.y_score, first.patient)
    if pair is None:
        return row | {"status": "not_estimable"}
    low, high = pair.interval(settings.confidence) or (None, None)
    return row | {
        "status": status, "reference_auroc": pair.second,
        "difference": pair.difference, "difference_low": low, "difference_high": high,
        "p_value": pair.p_value() if status == "tested" else None,
    }  # fmt: skip


def _by_attention(scores: pl.DataFrame, equal: pl.DataFrame, status: str, settings: FairnessSection) -> dict[str, Any]:
    """Return the gain of attention over equal weights, with the same linear probe on the same components."""
    if status != "tested" or equal.is_empty():
        return {}
    both = scores.join(equal.select("study_id", alike="y_score"), on="study_id").sort("study_id")
    one = studies_of(both)
    pair = paired_auroc(one.y_true, one.y_score, both.get_column("alike").to_numpy(), one.patient)
    if pair is None:
        return {}
    low, high = pair.interval(settings.confidence) or (None, None)
    return {"equal_difference": pair.difference, "equal_low": low, "equal_high": high, "equal_p": pair.p_value()}


def _adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one encoder and task, with p adjusted over them."""
    p = np.array([np.nan if row.get("p_value") is None else row["p_value"] for row in rows])
    for row, by_holm, q in zip(rows, holm(p), benjamini_hochberg(p), strict=True):
        if not np.isnan(by_holm):
            row |= {"p_holm": float(by_holm), "q_value": float(q)}
    return rows
