"""Tables over all encoders and tasks: findings, comparisons, the report."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import number, text
from fmaudit_core.tables.fairness import GAP
from fmaudit_core.tables.table import COUNTS, ESTIMATE, SCORE_SET, VARIANT, declare

_MODEL: Final = f"encoder {VARIANT}"
_OTHER: Final = " ".join(f"other_{name}" for name in _MODEL.split())

AUDIT_FINDINGS: Final = declare(
    "audit_findings",
    "A gap, corrected over the declared family and judged.",
    key=f"{SCORE_SET} attribute metric",
    rest=f"{GAP} sentence",
)
MODEL_COMPARISONS: Final = declare(
    "model_comparisons",
    "Two models on the same patients.",
    key=f"task {_MODEL} {_OTHER} attribute subgroup metric",
    rest=(
        f"status {COUNTS} value other_value difference ci_low ci_high p_value q_value p_non_inferior non_inferior "
        "verdict"
    ),
    special={"difference": number("the first model minus the other")},
)
MODALITY_COMPARISONS: Final = declare(
    "modality_comparisons",
    "A model on CT, the medical record or both, compared with CT alone and the record alone.",
    key="encoder task probe modality pooling",
    rest=(
        f"status {COUNTS} {ESTIMATE} over_ct over_ct_low over_ct_high p_over_ct over_ehr over_ehr_low "
        "over_ehr_high p_over_ehr"
    ),
    special={"value": number("AUROC on the studies that every model scored")},
)
SPATIAL_AGGREGATION: Final = declare(
    "spatial_aggregation",
    "A way to aggregate slices, or another view, compared with the mean of the slices.",
    key="encoder task comparison aggregation probe view_of",
    rest=(
        f"status {COUNTS} auroc ci_low ci_high reference_auroc difference difference_low difference_high p_value "
        "p_holm q_value equal_difference equal_low equal_high equal_p seeds seed_mean seed_sd n_slices"
    ),
    special={
        "status": text("`reference`, `tested`, `interval_only`, `suppressed`, `not_scored` or `no_slices`"),
        "auroc": number("its AUROC"),
        "difference": number("its AUROC less that of the mean"),
        "n_slices": number("slices of a study, in the mean"),
    },
)
AUDIT_CHANGES: Final = declare(
    "audit_changes",
    "A model compared with itself in the previous audit.",
    key=f"{SCORE_SET} attribute subgroup metric",
    rest=f"status {COUNTS} value previous_value change ci_low ci_high p_value q_value p_worse q_worse worse",
)
UNAUDITED: Final = declare("unaudited", "An encoder and task without findings.", key="encoder task", rest="lacks")
MITIGATION_RECOMMENDATIONS: Final = declare(
    "mitigation_recommendations",
    "The strategy recommended for an encoder and task, or why none is.",
    key="encoder task",
    rest=(
        "strategy target_attribute alpha verdict reduction p_adjusted worst_subgroup worst_subgroup_udr_delta "
        "auroc_delta costs sentence"
    ),
    special={
        "verdict": text(
            "`recommended`, or why none is: `no_disparity_shown`, `none_evaluated`, `none_narrows`, `too_costly`, "
            "`no_gain_shown`, `levelling_down`, `diverged`, or `several_reasons` of these four"
        ),
    },
)
PAPER_COMPARISON: Final = declare(
    "paper_comparison",
    "A figure of the paper next to ours.",
    rest=(
        "id where quantity model task attribute subgroup strategy target_attribute alpha published published_low "
        "published_high ours ours_low ours_high ours_p verdict reason labels_file"
    ),
    special={
        "verdict": text("`same`, `different` or `not_comparable`"),
        "reason": text("why"),
        "alpha": number("weight of the adversary's loss"),
    },
)
REPORT_FILES: Final = declare("report_files", "A file of the report.", key="file", rest="bytes sha256")
