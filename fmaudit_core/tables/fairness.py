"""Tables of the statistics of one encoder and task."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import integer, number, text
from fmaudit_core.tables.table import COUNTS, ENCODER_AND_TASK, ESTIMATE, SCORE_SET, declare

#: columns of a gap, here and among the findings
GAP: Final = (
    "gap null_expected_gap corrected_sd corrected_sd_low corrected_sd_high best_subgroup worst_subgroup q_statistic "
    "p_value p_gap p_adjusted q_value n_permutations verdict null_gap_95 n_tested n_untested within_margin confirmatory "
    "within_margin_of_tested not_covered"
)

SUBGROUP_METRICS: Final = declare(
    "subgroup_metrics",
    "A metric in a subgroup.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup metric",
    rest=f"{COUNTS} {ESTIMATE} status mde n_patients se threshold p_rest p_rest_adjusted threshold_source",
)
FAIRNESS_GAPS: Final = declare(
    "fairness_gaps",
    "The gap of a metric by an attribute.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute metric",
    rest=GAP,
)
THRESHOLD_SWEEP: Final = declare(
    "threshold_sweep",
    "A subgroup's rates at a threshold.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup threshold",
    rest="tpr fpr band_low band_high fpr_band_low fpr_band_high",
)
SUBGROUP_CALIBRATION: Final = declare(
    "subgroup_calibration",
    "A subgroup's calibration.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup",
    rest=(f"status {COUNTS} slope slope_low slope_high intercept intercept_low intercept_high ece ece_by_chance"),
    special={"status": text("as in `subgroup_metrics`; `not_probability` if scores are not probabilities")},
)
CALIBRATION_TESTS: Final = declare(
    "calibration_tests",
    "Whether an attribute's subgroups share a calibration parameter.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute parameter",
    rest="status n_subgroups q_statistic p_value q_value",
    special={
        "status": text(
            "`tested`; `too_few_subgroups` if fewer than two are large enough; `not_probability` where scores are none"
        ),
        "q_statistic": number("how far the parameters lie from their weighted mean, in units of their variance"),
        "q_value": number("false discovery rate over all rows of the table"),
    },
)
CROSS_GROUP_AUROC: Final = declare(
    "cross_group_auroc",
    "Positives of one subgroup ranked against negatives of another.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute positives_of negatives_of",
    rest=f"status n_pos n_neg {ESTIMATE}",
)
INTERSECTIONS: Final = declare(
    "intersections",
    "A metric in an intersection of attributes.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup metric",
    rest=f"depth metric {COUNTS} {ESTIMATE} status mde difference p_worse p_worse_adjusted rank",
)
SCORE_WARNINGS: Final = declare(
    "score_warnings",
    "Something to check before a verdict is read.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup code metric other_subgroup",
    rest="withholds value low high other_subgroup other_value message",
    special={
        "code": text("kind of the warning"),
        "subgroup": text("subgroup it is about; `all` for all studies"),
        "metric": text("the metric it is about; blank where it is about several"),
        "value": number(
            "by `code`: AUROC, share called positive, UDR + FPR, the threshold, distinct scores, share of the "
            "most frequent score, studies a patient"
        ),
    },
)
ADJUSTED_GAPS: Final = declare(
    "adjusted_gaps",
    "A subgroup against the other tested ones, before and after standardising for covariates.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup metric",
    rest=(
        "status reason covariates mediators crude crude_low crude_high crude_p adjusted adjusted_low adjusted_high adjusted_p "
        "adjusted_p_within explained explained_low explained_high share share_low share_high att att_low att_high n_effective "
        "imbalance_before imbalance largest_weight outside"
    ),
    special={
        "status": text("`tested`, or `no_overlap` if the subgroup and the rest have too few patients alike"),
        "reason": text(
            "why there is no overlap: `separated` by covariates, `few_effective` studies, `unbalanced` covariates, or "
            "`one_study` with over a tenth of the weight"
        ),
    },
)
TRAINING_COUNTS: Final = declare(
    "training_counts",
    "A subgroup against the other tested ones, with the probe refitted on equal training counts and on as many at random.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup",
    rest=(
        "status n_pos n_neg n_pos_each n_neg_each n_seeds gap_all gap_random gap_equal gap_contrast gap_contrast_low "
        "gap_contrast_high gap_contrast_p subgroup_change subgroup_change_low subgroup_change_high rest_change "
        "rest_change_low rest_change_high"
    ),
    special={
        "status": text(
            "`tested`, or `few_training` if a subgroup has too few training studies with or without the outcome"
        ),
        "n_pos": integer("training studies of the subgroup with the outcome"),
        "n_neg": integer("training studies of the subgroup without the outcome"),
    },
)
LEARNING_CURVES: Final = declare(
    "learning_curves",
    "UDR in a subgroup with the probe refitted on fewer training studies, equally many of every subgroup.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} attribute subgroup step",
    rest="n_pos n_neg value lowest highest",
    special={
        "step": integer("1 to 5: fifths of the smallest subgroup's training studies"),
        "n_pos": integer("training studies of each subgroup with the outcome"),
        "n_neg": integer("training studies of each subgroup without the outcome"),
        "value": number("UDR, mean over the draws"),
    },
)
DISCOVERED_SUBGROUPS: Final = declare(
    "discovered_subgroups",
    "A region that nobody named: found without test studies, tested on them. Without one, a row gives the detectable size.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} region",
    rest=(
        "finder region status confirmed rule share n n_pos udr expected rest_udr rest_expected excess excess_low excess_high "
        "p_value p_adjusted stability detectable"
    ),
    special={
        "status": text("`tested`; `few` patients on one side; `none` if nothing stood out"),
        "share": number("of a direction, the share of studies that it is the top of"),
        "n": integer("test studies of the region"),
        "n_pos": integer("those with the outcome"),
        "p_value": number("one-sided p for no more excess misses than in the rest"),
        "p_adjusted": number(
            "the same, corrected over the regions (Holm, weighted by how far each stood out in the search)"
        ),
    },
)
DISCOVERED_TRAITS: Final = declare(
    "discovered_traits",
    "What patients of a region have more often than the others, on test.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} region column level",
    rest="share_inside share_outside odds_ratio odds_low odds_high q_value",
    special={"q_value": number("false discovery rate over all levels looked at in the region")},
)
DISCOVERED_MEMBERS: Final = declare(
    "discovered_members",
    "A study of a region. Never part of a report.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} region study_id",
    rest="split",
)
