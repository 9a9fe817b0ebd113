"""Comparison of modalities (CT, medical record, both) on the studies scored by all. For other pairs see `comparisons.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.paired import paired_auroc
from fmaudit_core.fairness.score_sets import Studies, named, studies_of
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.tables.findings import MODALITY_COMPARISONS

CT, EHR, BOTH = "ct", "ehr", "ct+ehr"
#: single-modality reference models
REFERENCES: Final = {"ct": ("logistic", CT), "ehr": ("logistic", EHR)}
_OVER: Final = ("over_{}", "over_{}_low", "over_{}_high", "p_over_{}")


def modality_comparisons(test: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Compute the AUROC of every model of an encoder and task, and its gain over CT alone and over the record alone.

    Parameters
    ----------
    test : frame
        Predictions of the evaluated split, with one score set per encoder, task, probe and modality.

    Returns
    -------
    Frame of `MODALITY_COMPARISONS`, empty if there is no record. All numbers of an encoder and task are of the studies that all
    its models scored. `over_ct`: AUROC less that of the logistic probe on CT, with its interval and the p of the paired
    clustered DeLong test; nominal, as these models are none of the confirmatory family.
    """
    rows: list[dict[str, Any]] = []
    for _, cell in test.group_by("encoder", "task", maintain_order=True):
        sets = dict(cell.group_by(*SCORE_SET, maintain_order=True))
        if len({key[SCORE_SET.index("modality")] for key in sets}) < 2:
            continue
        common = cell.group_by("study_id").len().filter(pl.col("len") == len(sets)).select("study_id")
        of = {
            key: studies_of(frame.join(common, on="study_id", how="semi").sort("study_id"))
            for key, frame in sets.items()
        }
        rows += _rows(of, settings)
    return MODALITY_COMPARISONS.frame(rows).sort("encoder", "task", "modality", "probe")


def _rows(of: Mapping[tuple[Any, ...], Studies], settings: FairnessSection) -> list[dict[str, Any]]:
    first = next(iter(of.values()))
    n_pos, n_neg = int(first.y_true.sum()), int((~first.y_true).sum())
    status = status_of(first.y_true, first.patient, settings, "all")
    by_kind = {(named(key)["probe"], named(key)["modality"]): studies for key, studies in of.items()}
    rows = []
    for key, studies in of.items():
        score_set = named(key)
        row: dict[str, Any] = {name: score_set[name] for name in SCORE_SET if name != "strategy"} | {"status": status}
        if status in ("tested", "interval_only"):
            found = studies.ranked
            low, high = found.interval(settings.confidence) or (None, None)
            row |= {"n": len(studies.y_true), "n_pos": n_pos, "n_neg": n_neg}
            row |= {"value": found.value, "ci_low": low, "ci_high": high}
            for name, reference in REFERENCES.items():
                if reference in by_kind and reference != (score_set["probe"], score_set["modality"]):
                    row |= _over(name, studies, by_kind[reference], settings, tested=status == "tested")
        rows.append(row)
    return rows


def _over(name: str, one: Studies, other: Studies, settings: FairnessSection, *, tested: bool) -> dict[str, Any]:
    pair = paired_auroc(one.y_true, one.y_score, other.y_score, one.patient)
    if pair is None:
        return {}
    low, high = pair.interval(settings.confidence) or (None, None)
    values = (pair.difference, low, high, pair.p_value() if tested else None)
    return {column.format(name): value for column, value in zip(_OVER, values, strict=True)}
