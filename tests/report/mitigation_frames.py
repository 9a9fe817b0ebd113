"""Tables as the mitigation room makes them, made up here, put into a made-up audit: every kind of row a page must tell apart."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import polars as pl

from fmaudit_core.config import STRATEGIES
from fmaudit_core.report.input.report_input import (
    ADVICE,
    CAPACITY,
    INTERACTIONS,
    LADDER,
    LEAKAGE,
    MITIGATED,
    MITIGATION,
    PROBES,
    ReportInput,
)
from tests.report.frames import LEVELS

ENCODERS = ("lite0", "lite1")
TASKS = ("pe", "mortality_1m")
SEEDED = ("resampling", "adversarial", "group_dro")
#: nobody else has this share missed
SMALL_SHARE = 0.9319


def _run(encoder: str, task: str, strategy: str, target: str, alpha: float | None, seed: int | None) -> dict[str, Any]:
    return {
        "encoder": encoder, "task": task, "strategy": strategy, "target_attribute": target, "alpha": alpha, "seed": seed,
    }  # fmt: skip


def _results(rng: np.random.Generator, run: dict[str, Any], attribute: str, *, chosen: bool) -> dict[str, Any]:
    own, before = (
        attribute == run["target_attribute"],
        {"age_band": 0.31, "sex": 0.04, "race_ethnicity": 0.09}[attribute],
    )
    reduction = float(rng.uniform(0.01, 0.03)) if own else float(rng.uniform(-0.02, 0.02))
    auroc_delta, worst, best, p, low = -0.004, -0.03, 0.01, 0.6, reduction - 0.08
    levelling = False
    helps = ("leace", "resampling") if run["encoder"] == "lite1" else ("dfr", "leace", "resampling")
    if own and attribute == "age_band" and run["strategy"] in helps:
        reduction, p, low = 0.213, 0.003, 0.11
        if run["strategy"] == "leace":
            worst, best, levelling = 0.0, 0.21, True
        if run["strategy"] == "resampling":
            auroc_delta = -0.19
        if run["strategy"] == "dfr":
            worst = -0.172
    high, wider = reduction + 0.08, 0.9
    if own and attribute == "sex" and run["strategy"] == "reweighting" and run["encoder"] == "lite0":
        reduction, p, low, high, wider = -0.12, 1.0, -0.2, -0.04, 0.004
    seeded = run["strategy"] in SEEDED and run["seed"] is None
    speaks = own and chosen and run["seed"] is None
    return {
        **run, "attribute": attribute, "status": "evaluated", "chosen": chosen, "interpretable": auroc_delta > -0.02,
        "levelling_down": levelling, "auroc": 0.81 + auroc_delta, "auroc_before": 0.81, "auroc_delta": auroc_delta,
        "auroc_delta_low": auroc_delta - 0.01, "auroc_delta_high": auroc_delta + 0.01, "gap_before": before,
        "gap_after": before - reduction, "reduction": reduction, "ci_low": low, "ci_high": high,
        "p_reduction": p, "p_adjusted": p if speaks else None, "p_widened": wider if speaks else None,
        "worst_subgroup": next(iter(LEVELS[attribute])), "best_subgroup": list(LEVELS[attribute])[1],
        "worst_subgroup_udr_delta": worst, "best_subgroup_udr_delta": best, "udr_before": 0.3, "udr_after": 0.29,
        "fpr_before": 0.2, "fpr_after": 0.21, "n_seeds": 5 if seeded else 1, "n_collapsed": 1 if seeded else 0,
        "n_diverged": 2 if seeded and run["strategy"] == "group_dro" else 0,
        "gap_seed_sd": 0.013 if seeded else None, "auroc_seed_sd": 0.004 if seeded else None, "gap_sampling_se": 0.04,
    }  # fmt: skip


def _subgroups(rng: np.random.Generator, run: dict[str, Any], attribute: str, *, chosen: bool) -> list[dict[str, Any]]:
    rows = []
    for (level, share), metric in itertools.product(LEVELS[attribute].items(), ("udr", "fpr")):
        before, delta = float(rng.uniform(0.2, 0.5)), float(rng.normal(0, 0.01))
        status = "interval_only" if level == "unknown" else "tested"
        half = 0.03 / np.sqrt(share)
        if run["strategy"] == "dfr" and level == "61-74" and metric == "fpr":
            delta, half = 0.063, 0.02
        rows.append(
            {
                **run, "attribute": attribute, "subgroup": level, "metric": metric, "status": status, "chosen": chosen,
                "before": before, "after": before + delta, "delta": delta, "ci_low": delta - half, "ci_high": delta + half,
            }
        )  # fmt: skip
    return rows


def mitigated(inputs: ReportInput, *, small_group: bool = False) -> ReportInput:
    """A made-up audit with mitigation. Age on PE: DFR helps and costs, LEACE levels down, resampling costs AUROC.

    With `small_group`, the small subgroup of `frames` has rows with `SMALL_SHARE`, left there as no careful room would.
    """
    rng = np.random.default_rng(5)
    results, subgroups, leakage = [], [], []
    for encoder, task in itertools.product(ENCODERS, TASKS):
        for strategy, target in itertools.product(STRATEGIES, LEVELS):
            if strategy == "group_dro" and target == "race_ethnicity":
                failed = _run(encoder, task, strategy, target, None, None)
                results.append({**failed, "attribute": target, "status": "not_fitted", "reason": "too few patients"})
                continue
            for alpha in (0.5, 1.0, 2.0) if strategy == "adversarial" else (None,):
                chosen = alpha in (None, 1.0)
                for seed in (None, 0, 1) if strategy in SEEDED else (None,):
                    run = _run(encoder, task, strategy, target, alpha, seed)
                    for attribute in LEVELS:
                        results.append(_results(rng, run, attribute, chosen=chosen))
                        subgroups += [] if seed is not None else _subgroups(rng, run, attribute, chosen=chosen)
        for attribute in LEVELS:
            free = _run(encoder, task, "adversarial", "none", 0.0, None)
            results.append({**_results(rng, free, attribute, chosen=False), "p_adjusted": None, "p_widened": None})
            for (stage, alpha), probe in itertools.product((("before", 0.0), ("after", 1.0)), ("logistic", "mlp")):
                value = 0.83 if stage == "before" else 0.58
                leakage.append(
                    {
                        **_run(encoder, task, "adversarial", attribute, alpha, 0), "stage": stage, "probe": probe,
                        "macro_f1": 0.5, "balanced_auroc": value, "ci_low": value - 0.04, "ci_high": value + 0.04,
                        "control_balanced_auroc": 0.5 if probe == "logistic" else None,
                    }
                )  # fmt: skip
    if small_group:
        subgroups += [
            {**row, "subgroup": "nh_nhpi", "before": SMALL_SHARE, "after": SMALL_SHARE, "delta": SMALL_SHARE, "status": "tested",
             "ci_low": SMALL_SHARE, "ci_high": SMALL_SHARE}
            for row in subgroups
            if row["subgroup"] == "hispanic"
        ]  # fmt: skip
    verdicts = {
        ("lite0", "pe"): {"strategy": "dfr", "target_attribute": "age_band", "verdict": "recommended", "reduction": 0.213,
                          "p_adjusted": 0.003, "worst_subgroup": "18-40", "worst_subgroup_udr_delta": -0.172,
                          "auroc_delta": -0.004},
        ("lite1", "pe"): {"verdict": "several_reasons"},
        ("lite0", "mortality_1m"): {"verdict": "no_disparity_shown"},
        ("lite1", "mortality_1m"): {"verdict": "none_narrows"},
    }  # fmt: skip
    advice = [
        {"encoder": encoder, "task": task, "strategy": "none", "target_attribute": "none"} | told
        for (encoder, task), told in verdicts.items()
    ]
    own = [row for row in results if row["status"] == "evaluated" and row["attribute"] == row["target_attribute"]]
    capacity = [
        {name: row[name] for name in CAPACITY if name in row}
        | {"width": 1280, "balanced_auroc": 0.83, "control_balanced_auroc": 0.5}
        for row in own
        if row["chosen"] and row["seed"] is None
    ]  # fmt: skip
    pairs = [
        {"task": task, "strategy": strategy, "attribute": attribute, "encoder": "lite0", "other_encoder": "lite1",
         "reduction": 0.1, "other_reduction": 0.04, "difference": 0.06, "ci_low": -0.02, "ci_high": 0.14, "p_value": 0.15,
         "q_value": 0.4}
        for task, strategy, attribute in itertools.product(TASKS, ("leace", "dfr"), LEVELS)
    ]  # fmt: skip
    ladder = [
        {"encoder": "lite0", "task": "pe", "strategy": "leace", "attribute": attribute, "width": width, "balanced_auroc": 0.7,
         "auroc": 0.8, "gap_before": 0.3, "reduction": 0.05, "ci_low": -0.01, "ci_high": 0.11, "interpretable": True}
        for attribute, width in itertools.product(LEVELS, (64, 256, 1280))
    ]  # fmt: skip
    probes = [
        {"encoder": encoder, "attribute": attribute, "probe": probe, "macro_f1": 0.61, "balanced_auroc": 0.82,
         "control_macro_f1": 0.3, "control_balanced_auroc": 0.5, "ci_low": 0.78, "ci_high": 0.86, "status": "probed",
         "width": 1280}
        for encoder, attribute, probe in itertools.product(ENCODERS, LEVELS, ("logistic", "mlp"))
    ]  # fmt: skip
    return dataclasses.replace(
        inputs,
        mitigation_results=pl.DataFrame(results, schema=MITIGATION),
        mitigation_subgroups=pl.DataFrame(subgroups, schema=MITIGATED),
        mitigation_recommendations=pl.DataFrame(advice, schema=ADVICE),
        mitigation_leakage=pl.DataFrame(leakage, schema=LEAKAGE),
        demographic_probes=pl.DataFrame(probes, schema=PROBES),
        mitigation_capacity=pl.DataFrame(capacity, schema=CAPACITY),
        mitigation_interactions=pl.DataFrame(pairs, schema=INTERACTIONS),
        mitigation_ladder=pl.DataFrame(ladder, schema=LADDER),
    )
