"""What a run of a strategy is, and the tables that hold runs: scores, and how each was fitted."""

from __future__ import annotations

from typing import Final

import polars as pl

#: the probe as it was, against which every strategy is held
NONE: Final = "none"

#: what names one run: a strategy aimed at an attribute; alpha and seed where it has them
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
