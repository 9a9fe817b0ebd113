"""Tables as the fairness room makes them, made up here: no statistics, but the columns, the keys and the kinds of row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fmaudit_core.config import Audit, TableCohort
from fmaudit_core.report.inputs import ReportInput, count_series, count_studies

LEVELS = {
    "race_ethnicity": {"hispanic": 0.17, "nh_asian": 0.16, "nh_black": 0.09, "nh_white": 0.53, "unknown": 0.05},
    "sex": {"female": 0.55, "male": 0.45},
    "age_band": {"18-40": 0.15, "41-60": 0.3, "61-74": 0.35, "75-90": 0.2},
}
ENCODERS = ("lite0", "lite1", "grey_histogram")
TASKS = ("pe", "mortality_1m", "readmission_12m")
#: nobody else has this many
SMALL = {"n": 2917, "n_pos": 7, "n_neg": 2910}
SMALL_VALUES = {"value": 0.9917, "ci_low": 0.9911, "ci_high": 0.9923}


def _interval(value: float, n: int) -> tuple[float, float]:
    half = 1.96 * np.sqrt(max(value * (1 - value), 0.01) / n)
    return max(0.0, value - half), min(1.0, value + half)


def _metric_rows(
    key: dict[str, str], attribute: str, level: str, n: int, skill: float, missed: float
) -> list[dict[str, Any]]:
    n_pos = max(1, round(0.2 * n))
    counts = {"n": n, "n_pos": n_pos, "n_neg": n - n_pos}
    status = "tested" if n_pos >= 25 else "interval_only" if n_pos >= 10 else "suppressed"
    if level == "unknown" and status == "tested":
        status = "interval_only"
    false_alarms = 0.2 + 0.3 * (0.3 - missed)
    auroc = skill - 0.2 * (missed - 0.3)
    values = {
        "auroc": (auroc, n_pos), "udr": (missed, n_pos), "tpr": (1 - missed, n_pos), "fpr": (false_alarms, n - n_pos),
    }  # fmt: skip
    rows = []
    for metric, (value, size) in values.items():
        low, high = _interval(value, size)
        row = {**key, "attribute": attribute, "subgroup": level, "metric": metric, "status": status, "threshold": 0.31}
        if status == "suppressed":
            row |= dict.fromkeys(("n", "n_pos", "n_neg", "value", "ci_low", "ci_high", "mde"))
        else:
            mde = None if attribute == "overall" else 2.8 * float(np.sqrt(value * (1 - value) / size))
            row |= counts | {"value": value, "ci_low": low, "ci_high": high, "mde": mde}
        rows.append(row | {"p_rest": 0.2, "p_rest_adjusted": 0.4})
    return rows


def _sweep_rows(
    key: dict[str, str], attribute: str, level: str, shift: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    thresholds = np.sort(rng.uniform(0, 1, 150))
    tpr = 1 - thresholds ** (1.6 - shift)
    fpr = (1 - thresholds) ** 2
    return [
        {
            **key, "attribute": attribute, "subgroup": level, "threshold": float(t), "tpr": float(a), "fpr": float(b),
            "band_low": max(0.0, float(a) - 0.12), "band_high": min(1.0, float(a) + 0.12),
        }
        for t, a, b in zip(thresholds, tpr, fpr, strict=True)
    ]  # fmt: skip


def _gap_row(key: dict[str, str], attribute: str, metric: str, rows: list[dict[str, Any]], p: float) -> dict[str, Any]:
    tested = [row for row in rows if row["metric"] == metric and row["status"] == "tested"]
    if len(tested) < 2:
        blank = dict.fromkeys(
            ("gap", "null_expected_gap", "null_gap_95", "corrected_sd", "best_subgroup", "worst_subgroup", "q_statistic",
             "p_value", "p_gap", "p_adjusted", "q_value")
        )  # fmt: skip
        return {
            **key,
            "attribute": attribute,
            "metric": metric,
            **blank,
            "n_permutations": 0,
            "verdict": "insufficient_evidence",
        }
    best, worst = min(tested, key=lambda row: row["value"]), max(tested, key=lambda row: row["value"])
    if metric == "auroc":
        best, worst = worst, best
    gap = abs(worst["value"] - best["value"])
    verdict = (
        "disparity" if p < 0.01 else "no_disparity_beyond_margin" if attribute == "sex" else "insufficient_evidence"
    )
    return {
        **key, "attribute": attribute, "metric": metric, "gap": gap, "null_expected_gap": 0.06, "null_gap_95": 0.11,
        "corrected_sd": 0.02, "best_subgroup": best["subgroup"], "worst_subgroup": worst["subgroup"], "q_statistic": 4.2,
        "p_value": p, "p_gap": min(1.0, 1.4 * p), "p_adjusted": min(1.0, 3 * p), "q_value": min(1.0, 2 * p),
        "n_permutations": 9999, "verdict": verdict,
    }  # fmt: skip


def made_up(
    *,
    n_test: int = 2400,
    poolings: tuple[str, ...] = ("mean", "max"),
    small_group: bool = False,
    name: str = "CTPA audit, spring",
) -> ReportInput:
    """Tables of an audit of two encoders and a control on three tasks.

    With `small_group`, race has a subgroup with `SMALL` counts, left in the table as no careful room would.
    """
    rng = np.random.default_rng(7)
    metrics, gaps, sweeps = [], [], []
    for e, encoder in enumerate(ENCODERS):
        for t, task in enumerate(TASKS):
            for pooling in poolings:
                key = {
                    "encoder": encoder,
                    "task": task,
                    "probe": "logistic",
                    "modality": "ct",
                    "pooling": pooling,
                    "strategy": "none",
                }
                skill = (0.81, 0.74, 0.6)[e] + 0.02 * t
                metrics += _metric_rows(key, "overall", "all", n_test, skill, 0.31 + 0.05 * e)
                for attribute, levels in LEVELS.items():
                    rows = []
                    for g, (level, share) in enumerate(levels.items()):
                        worse = 0.045 * g if attribute == "age_band" else 0.0
                        missed = float(np.clip(0.28 + 0.05 * e + worse + rng.normal(0, 0.025), 0.02, 0.98))
                        rows += _metric_rows(key, attribute, level, round(share * n_test), skill - 0.6 * worse, missed)
                        sweeps += _sweep_rows(key, attribute, level, worse, rng)
                    if small_group and attribute == "race_ethnicity":
                        rows += [
                            {**row, **SMALL, **SMALL_VALUES, "subgroup": "nh_nhpi", "status": "suppressed"}
                            for row in rows[:4]
                        ]  # fmt: skip
                        sweeps += _sweep_rows(key, attribute, "nh_nhpi", 0.1, rng)
                    metrics += rows
                    p = (0.0004 if e < 2 else 0.04) if attribute == "age_band" else float(rng.uniform(0.1, 0.9))
                    gaps += [_gap_row(key, attribute, metric, rows, p) for metric in ("udr", "fpr", "auroc")]
    findings = [{**row, "sentence": f"A sentence that counts {SMALL['n']} neighbours."} for row in gaps]
    return ReportInput(
        audit=Audit(
            name=name, cohort=TableCohort(kind="table", table=Path("cohort.csv"), images=Path("ct")), tasks=TASKS
        ),
        subgroup_metrics=pl.DataFrame(metrics, infer_schema_length=None),
        fairness_gaps=pl.DataFrame(gaps),
        threshold_sweep=pl.DataFrame(sweeps),
        audit_findings=pl.DataFrame(findings),
        studies=count_studies(_studies(rng, 5 * n_test // 2), tuple(LEVELS)),
        flow=pl.DataFrame(
            {
                "step": ["listed in the table", "age inside the age bands", "outcome known: pe"],
                "n_studies": [6120, 6003, 6000],
                "n_patients": [5211, 5102, 5100],
            }
        ),
        slice_quality=count_series(
            pl.DataFrame(
                {
                    "status": ["accepted"] * 40 + ["quarantined"] * 3,
                    "reason": ["", *[""] * 39, "too_few_slices", "gap_between_slices", "too_few_slices"],
                }
            )
        ),
        encoders=(
            {
                "name": "lite0",
                "title": "EfficientNet-lite0 (ImageNet)",
                "dim": 1280,
                "weights_sha256": "57" * 32,
                "licence": "Apache-2.0",
                "control": False,
                "n_studies": 6000,
            },
            {
                "name": "lite1",
                "title": "EfficientNet-lite1 (ImageNet)",
                "dim": 1280,
                "weights_sha256": "77" * 32,
                "licence": "Apache-2.0",
                "control": False,
                "n_studies": 6000,
            },
            {
                "name": "grey_histogram",
                "title": "HU histogram",
                "dim": 64,
                "weights_sha256": None,
                "licence": "",
                "control": True,
                "n_studies": 6000,
            },
        ),
        provenance={"code_version": "0.1.0", "cohort_digest": "3f" * 16, "run_id": "f00d" * 8},
    )


def _studies(rng: np.random.Generator, n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "patient_id": [f"patient-{i // 2}" for i in range(n)],
            "split": rng.choice(["train", "val", "test"], n, p=[0.5, 0.1, 0.4]),
            **{attribute: rng.choice(list(levels), n, p=list(levels.values())) for attribute, levels in LEVELS.items()},
        }
    )
