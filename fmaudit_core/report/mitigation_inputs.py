"""Columns that the report reads of the tables of `mitigation/`. The other tables: `inputs.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

_Columns = dict[str, type[pl.DataType]]
_NUMBER: Final = pl.Float64


def _columns(names: Sequence[str], of: type[pl.DataType]) -> _Columns:
    return dict.fromkeys(names, of)


#: a run of a strategy
RUN: Final = ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")
_RUN: Final[_Columns] = {
    **_columns(RUN[:4], pl.String),
    **_columns(("alpha",), _NUMBER),
    **_columns(("seed",), pl.Int64),
}
MITIGATION: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("attribute", "status", "reason"), pl.String),
        **_columns(("chosen", "interpretable", "levelling_down"), pl.Boolean),
        **_columns(("auroc", "auroc_before", "auroc_delta", "auroc_delta_low", "auroc_delta_high"), _NUMBER),
        **_columns(("gap_before", "gap_after", "reduction", "ci_low", "ci_high"), _NUMBER),
        **_columns(("p_reduction", "p_adjusted", "p_widened"), _NUMBER),
        **_columns(("worst_subgroup", "best_subgroup"), pl.String),
        **_columns(("worst_subgroup_udr_delta", "best_subgroup_udr_delta"), _NUMBER),
        **_columns(("udr_before", "udr_after", "fpr_before", "fpr_after"), _NUMBER),
        **_columns(("n_seeds", "n_collapsed", "n_diverged"), pl.Int64),
        **_columns(("gap_seed_sd", "auroc_seed_sd", "gap_sampling_se"), _NUMBER),
    }
)
MITIGATED: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("attribute", "subgroup", "metric", "status"), pl.String),
        **_columns(("chosen",), pl.Boolean),
        **_columns(("before", "after", "delta", "ci_low", "ci_high"), _NUMBER),
    }
)
ADVICE: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "target_attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("verdict",), pl.String),
        **_columns(("reduction", "p_adjusted"), _NUMBER),
        **_columns(("worst_subgroup",), pl.String),
        **_columns(("worst_subgroup_udr_delta", "auroc_delta"), _NUMBER),
    }
)
LEAKAGE: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("stage", "probe"), pl.String),
        **_columns(("macro_f1", "balanced_auroc", "ci_low", "ci_high", "control_balanced_auroc"), _NUMBER),
    }
)
PROBES: Final = pl.Schema(
    {
        **_columns(("encoder", "attribute", "probe"), pl.String),
        **_columns(("macro_f1", "balanced_auroc", "control_macro_f1", "control_balanced_auroc"), _NUMBER),
        **_columns(("ci_low", "ci_high"), _NUMBER),
        **_columns(("status",), pl.String),
        **_columns(("width",), pl.Int64),
    }
)
CAPACITY: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("width",), pl.Int64),
        **_columns(
            ("balanced_auroc", "control_balanced_auroc", "gap_before", "reduction", "ci_low", "ci_high"), _NUMBER
        ),
        **_columns(("p_reduction", "auroc_delta"), _NUMBER),
        **_columns(("interpretable",), pl.Boolean),
    }
)
INTERACTIONS: Final = pl.Schema(
    {
        **_columns(("task", "strategy", "attribute", "encoder", "other_encoder"), pl.String),
        **_columns(("reduction", "other_reduction", "difference", "ci_low", "ci_high", "p_value", "q_value"), _NUMBER),
    }
)
LADDER: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("width",), pl.Int64),
        **_columns(("balanced_auroc", "auroc", "gap_before", "reduction", "ci_low", "ci_high"), _NUMBER),
        **_columns(("interpretable",), pl.Boolean),
    }
)
