"""The key of a run of a strategy, and the tables of runs: scores, and how each run was fitted."""

from __future__ import annotations

from typing import Final

import polars as pl

#: the unmitigated probe, with which every strategy is compared
NONE: Final = "none"

#: key of one run: a strategy with its target attribute, and alpha and seed if it has them
RUN: Final = ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")
RUN_SCHEMA: Final = {
    "encoder": pl.String,
    "task": pl.String,
    "strategy": pl.String,
    "target_attribute": pl.String,
    "alpha": pl.Float64,
    "seed": pl.Int64,
}
SCORES_SCHEMA: Final = pl.Schema(
    {
        **RUN_SCHEMA,
        "study_id": pl.String,
        "patient_id": pl.String,
        "split": pl.String,
        "y_true": pl.Boolean,
        "y_score": pl.Float64,
        "threshold": pl.Float64,
    }
)
#: status: fitted, collapsed (scored, but it ranks no better than chance), diverged (not finite, not scored) or not_fitted
RUNS_SCHEMA: Final = pl.Schema(
    {
        **RUN_SCHEMA,
        "status": pl.String,
        "reason": pl.String,
        "c": pl.Float64,
        "epochs": pl.Int64,
        "val_auroc": pl.Float64,
        "val_worst_udr": pl.Float64,
        "val_within_margin": pl.Boolean,
        "chosen": pl.Boolean,
    }
)
STRATEGY_TITLES: Final = {
    "reweighting": "importance weighting",
    "resampling": "group resampling",
    "adversarial": "adversarial training",
    "leace": "linear erasure (LEACE)",
    "dfr": "last-layer balanced retraining (DFR)",
    "group_dro": "worst-group training (GroupDRO)",
    "group_thresholds": "group-specific thresholds",
}
