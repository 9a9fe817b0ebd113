"""Tables as the fairness room makes them, made up here: no statistics, but the columns, the keys and the kinds of row."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fmaudit_core.config import Audit, TableCohort
from fmaudit_core.fairness.score_warnings import message
from fmaudit_core.report.input.report_input import (
    CALIBRATION,
    CALIBRATION_TESTS,
    CHANGES,
    COMPARISONS,
    CROSS,
    INTERSECTIONS,
    SPATIAL,
    WARNINGS,
    ReportInput,
    count_series,
    count_studies,
)

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


def _status(n_pos: int, level: str) -> str:
    if n_pos < 10:
        return "suppressed"
    return "tested" if n_pos >= 25 and "unknown" not in level.split(" x ") else "interval_only"


def _counts(n: int) -> dict[str, int]:
    n_pos = max(1, round(0.2 * n))
    return {"n": n, "n_pos": n_pos, "n_neg": n - n_pos}


def _calibration_rows(key: dict[str, str], n_test: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    groups = {"overall": {"all": 1.0}, **LEVELS}
    for attribute, levels in groups.items():
        for level, share in levels.items():
            counts = _counts(round(share * n_test))
            slope, intercept = rng.normal(0.95, 0.1), rng.normal(0, 0.15)
            half = 4 / np.sqrt(counts["n_pos"])
            rows.append(
                {
                    **key, "attribute": attribute, "subgroup": level, "status": _status(counts["n_pos"], level), **counts,
                    "slope": slope, "slope_low": slope - half, "slope_high": slope + half,
                    "intercept": intercept, "intercept_low": intercept - half, "intercept_high": intercept + half,
                    "ece": float(rng.uniform(0.02, 0.06)), "ece_by_chance": float(0.9 / np.sqrt(counts["n"])),
                }
            )  # fmt: skip
    return rows


def _calibration_test_rows(key: dict[str, str], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of the first attribute tests, of the others none: too few subgroups are large enough."""
    first, *others = LEVELS
    rows = []
    for parameter in ("slope", "intercept"):
        p = float(rng.uniform())
        tested = {"status": "tested", "n_subgroups": 3, "q_statistic": -2 * np.log(p), "p_value": p, "q_value": p}
        rows.append({**key, "attribute": first, "parameter": parameter, **tested})
        few = {"status": "too_few_subgroups", "n_subgroups": 1}
        rows += [{**key, "attribute": other, "parameter": parameter, **few} for other in others]
    return rows


def _cross_rows(key: dict[str, str], n_test: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for attribute, levels in LEVELS.items():
        for first, second in itertools.product(levels, repeat=2):
            n_pos = _counts(round(levels[first] * n_test))["n_pos"]
            n_neg = _counts(round(levels[second] * n_test))["n_neg"]
            value = float(rng.uniform(0.65, 0.85))
            low, high = _interval(value, n_pos)
            status = "interval_only" if "unknown" in (first, second) else "tested"
            rows.append(
                {
                    **key, "attribute": attribute, "positives_of": first, "negatives_of": second, "status": status,
                    "n_pos": n_pos, "n_neg": n_neg, "value": value, "ci_low": low, "ci_high": high,
                }
            )  # fmt: skip
    return rows


def _intersection_rows(key: dict[str, str], n_test: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    blank = dict.fromkeys(("n", "n_pos", "n_neg", "value", "ci_low", "ci_high", "mde"))
    untested = dict.fromkeys(("difference", "p_worse", "p_worse_adjusted", "rank"))
    out = []
    for metric in ("udr", "fpr", "auroc"):
        rows = []
        for one, other in itertools.combinations(LEVELS, 2):
            for (first, share), (second, part) in itertools.product(LEVELS[one].items(), LEVELS[other].items()):
                counts, level = _counts(round(share * part * n_test)), f"{first} x {second}"
                status = _status(counts["n_pos"], level)
                row = {**key, "attribute": f"{one} x {other}", "subgroup": level, "depth": 2, "metric": metric}
                if status != "suppressed":
                    value = float(rng.uniform(0.2, 0.5))
                    low, high = _interval(value, counts["n_pos"])
                    row |= {**counts, "value": value, "ci_low": low, "ci_high": high, "mde": 0.2}
                else:
                    row |= blank
                rows.append(row | {"status": status} | untested)
        tested = sorted((row for row in rows if row["status"] == "tested"), key=lambda row: -row["value"])
        for rank, row in enumerate(tested, start=1):
            row |= {
                "difference": row["value"] - 0.3,
                "p_worse": 0.001 * rank,
                "p_worse_adjusted": min(1.0, 0.02 * rank),
            }
            row["rank"] = rank
        out += rows
    return out


def _comparison_rows(
    first: dict[str, str], second: dict[str, str], n_test: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    groups = {"overall": {"all": 1.0}, **LEVELS}
    for attribute, levels in groups.items():
        for level, share in levels.items():
            counts = _counts(round(share * n_test))
            status = _status(counts["n_pos"], level)
            for metric in ("auroc", "udr", "fpr"):
                value, other = (float(rng.uniform(0.3, 0.4)) for _ in range(2))
                half = 2 / np.sqrt(counts["n_pos"]) / 5
                row = {
                    **first, **{f"other_{name}": one for name, one in second.items() if name != "task"},
                    "attribute": attribute, "subgroup": level, "metric": metric, "status": status, **counts,
                    "value": value, "other_value": other, "difference": value - other,
                    "ci_low": value - other - half, "ci_high": value - other + half,
                }  # fmt: skip
                tested = {"p_value": 0.03, "q_value": 0.2, "p_non_inferior": 0.01, "non_inferior": True}
                rows.append(row | (tested if status == "tested" else dict.fromkeys(tested)))
    return rows


def _changed(compared: dict[str, Any]) -> dict[str, Any]:
    """A comparison of two models as one of a model with itself before: missed alarms of men have grown by 12 points."""
    worse = compared["subgroup"] == "male" and compared["metric"] == "udr"
    row = compared | {"previous_value": compared["other_value"], "change": compared["difference"], "worse": False}
    row |= {"p_worse": compared["p_value"], "q_worse": compared["q_value"]}
    if worse:
        row |= {"value": 0.42, "previous_value": 0.3, "change": 0.12, "ci_low": 0.07, "ci_high": 0.17, "worse": True}
        row |= {"p_worse": 0.0004, "q_worse": 0.006}
    return row


def _with_small(rows: list[dict[str, Any]], values: dict[str, float], ends: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of another subgroup with `SMALL` counts, made of those of hispanic studies, and left in as no careful room would."""
    small = []
    for row in rows:
        for end in ends:
            level = row[end].split(" x ")
            if level[0] == "hispanic" and row["attribute"].startswith("race_ethnicity"):
                named = " x ".join(["nh_nhpi", *level[1:]])
                counts = {name: SMALL[name] for name in SMALL if name in row}
                small.append({**row, **counts, **values, end: named, "status": "suppressed"})
    return rows + small


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
    further = _further(n_test, poolings, small_group=small_group) | {"spatial_aggregation": _aggregations(n_test)}
    further["score_warnings"] = _warnings(small_group=small_group)
    findings = [{**row, "sentence": f"A sentence that counts {SMALL['n']} neighbours."} for row in gaps]
    return ReportInput(
        audit=Audit(
            name=name, cohort=TableCohort(kind="table", table=Path("cohort.csv"), images=Path("ct")), tasks=TASKS
        ),
        subgroup_metrics=pl.DataFrame(metrics, infer_schema_length=None),
        fairness_gaps=pl.DataFrame(gaps),
        threshold_sweep=pl.DataFrame(sweeps),
        audit_findings=pl.DataFrame(findings),
        **further,
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
                    "used": [True] * 38 + [False] * 5,
                    "choice": ["only_candidate"] * 36 + ["thinnest"] * 4 + [""] * 3,
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


def _further(n_test: int, poolings: tuple[str, ...], *, small_group: bool) -> dict[str, pl.DataFrame]:
    """The tables beside the gaps; `grey_histogram` scores are no probabilities."""
    rng = np.random.default_rng(11)
    tables: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in (
            "subgroup_calibration",
            "calibration_tests",
            "cross_group_auroc",
            "intersections",
            "model_comparisons",
            "audit_changes",
        )
    }
    fixed = {"probe": "logistic", "modality": "ct", "strategy": "none"}
    for encoder, task, pooling in itertools.product(ENCODERS, TASKS, poolings):
        key = {"encoder": encoder, "task": task, **fixed, "pooling": pooling}
        calibrated = _calibration_rows(key, n_test, rng)
        if encoder == "grey_histogram":
            told = {*key, "attribute", "subgroup"}
            calibrated = [
                {name: one if name in told else None for name, one in row.items()} | {"status": "not_probability"}
                for row in calibrated
            ]
        tables["subgroup_calibration"] += calibrated
        if encoder != "grey_histogram":
            tables["calibration_tests"] += _calibration_test_rows(key, np.random.default_rng(12))
        tables["cross_group_auroc"] += _cross_rows(key, n_test, rng)
        tables["intersections"] += _intersection_rows(key, n_test, rng)
    for task, (first, second) in itertools.product(TASKS, itertools.combinations(ENCODERS, 2)):
        pair = [{"encoder": one, "task": task, **fixed, "pooling": "mean"} for one in (first, second)]
        tables["model_comparisons"] += _comparison_rows(pair[0], pair[1], n_test, rng)
    pairs = [
        row for row in tables["model_comparisons"] if row["encoder"] == "lite0" and row["other_encoder"] == "lite1"
    ]
    tables["audit_changes"] = [_changed(row) for row in pairs]
    if small_group:
        told = {"ece": SMALL_VALUES["value"], "slope": SMALL_VALUES["ci_low"], "intercept": SMALL_VALUES["ci_high"]}
        ends = ("positives_of", "negatives_of")
        tables["subgroup_calibration"] = _with_small(tables["subgroup_calibration"], told, ("subgroup",))
        tables["cross_group_auroc"] = _with_small(tables["cross_group_auroc"], SMALL_VALUES, ends)
        tables["intersections"] = _with_small(tables["intersections"], SMALL_VALUES, ("subgroup",))
        tables["model_comparisons"] = _with_small(tables["model_comparisons"], SMALL_VALUES, ("subgroup",))
        tables["audit_changes"] = _with_small(tables["audit_changes"], SMALL_VALUES, ("subgroup",))
    schemas = {
        "subgroup_calibration": CALIBRATION, "calibration_tests": CALIBRATION_TESTS, "cross_group_auroc": CROSS,
        "intersections": INTERSECTIONS, "model_comparisons": COMPARISONS, "audit_changes": CHANGES,
    }  # fmt: skip
    return {
        name: pl.DataFrame(rows, schema=schemas[name], orient="row").select(schemas[name].names())
        for name, rows in tables.items()
    }


def _warnings(*, small_group: bool) -> pl.DataFrame:
    """Warnings about the first encoder, and one about the control under which no verdict is given.

    With `small_group` the small subgroup is warned of, too, as no careful room would.
    """
    fixed = {"probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none", "withholds": False}
    first = {"encoder": "lite0", "task": "pe", **fixed}
    race = {"attribute": "race_ethnicity"}
    below = {"code": "auroc_below_half", "metric": "auroc"}
    often = {"code": "studies_per_patient", "other_value": 1.04}
    rows: list[dict[str, Any]] = [
        first | {"attribute": "overall", "subgroup": "all", "code": "frequent_score", "value": 0.3127},
        first | race | below | {"subgroup": "nh_black", "value": 0.4123, "low": 0.3712, "high": 0.4567},
        first | race | {"subgroup": "nh_asian", "code": "none_or_all_called", "value": 0.0},
        first | often | {"attribute": "age_band", "subgroup": "75-90", "value": 2.24, "other_subgroup": "18-40"},
        {"encoder": "grey_histogram", "task": "readmission_12m", **fixed, "attribute": "overall", "subgroup": "all", **below}
        | {"value": 0.4412, "low": 0.4101, "high": 0.4733, "withholds": True},
    ]  # fmt: skip
    if small_group:
        small = {"value": SMALL_VALUES["value"], "low": SMALL_VALUES["ci_low"], "high": SMALL_VALUES["ci_high"]}
        rows += [
            first | race | below | {"subgroup": "nh_nhpi", **small},
            first | race | often | {"subgroup": "nh_white", "value": SMALL["n"], "other_subgroup": "nh_nhpi"},
        ]
    blank = dict.fromkeys(WARNINGS)
    told = [blank | row | {"message": message(blank | row)} for row in rows]
    return pl.DataFrame(told, schema=WARNINGS, orient="row")


def _aggregations(n_test: int) -> pl.DataFrame:
    """Aggregations of the first encoder; the second gives no slices; on the second task too few are positive."""
    counts = _counts(n_test)
    level = {"auroc": 0.81, "ci_low": 0.79, "ci_high": 0.83, "reference_auroc": 0.81, "n_slices": 96.0}
    apart = level | {
        "difference": 0.052, "difference_low": 0.021, "difference_high": 0.083,
        "p_value": 0.0012, "p_holm": 0.0048, "q_value": 0.004,
    }  # fmt: skip
    seeds = {"seeds": 5, "seed_mean": 0.801, "seed_sd": 0.012}
    seeds |= {"equal_difference": 0.031, "equal_low": 0.01, "equal_high": 0.052, "equal_p": 0.0041}
    first = {"encoder": "lite0", "task": "pe", "comparison": "aggregation", "probe": "logistic"}
    small = {"n": SMALL["n"], "n_pos": 7, "n_neg": SMALL["n_neg"], **apart, "auroc": SMALL_VALUES["value"]}
    rows = [
        first | counts | level | {"aggregation": "mean", "status": "reference"},
        first | counts | apart | {"aggregation": "max", "status": "tested", "difference": -0.004, "p_holm": 0.61},
        first | {"aggregation": "median", "status": "not_scored"},
        first | counts | apart | seeds | {"aggregation": "attention", "probe": "abmil", "status": "tested"},
        first
        | counts
        | apart
        | {"comparison": "window", "aggregation": "mean", "view_of": "lite1", "status": "tested"},
        first | {"encoder": "lite1", "aggregation": None, "probe": None, "status": "no_slices"},
        first | small | {"task": "mortality_1m", "aggregation": "max", "status": "tested"},
    ]
    return pl.DataFrame(rows, schema=SPATIAL)


def _studies(rng: np.random.Generator, n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "patient_id": [f"patient-{i // 2}" for i in range(n)],
            "split": rng.choice(["train", "val", "test"], n, p=[0.5, 0.1, 0.4]),
            **{attribute: rng.choice(list(levels), n, p=list(levels.values())) for attribute, levels in LEVELS.items()},
        }
    )
