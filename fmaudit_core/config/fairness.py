"""The section `fairness`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fmaudit_core.config.section import Section


class FairnessSection(Section):
    """Statistics of the audit. The defaults are those of the method."""

    #: permutations per test; the smallest possible p is 1 / (n + 1)
    n_permutations: int = Field(default=9_999, ge=99)
    #: random seed; the same inputs and seed give the same results
    seed: int = 20_26
    #: confidence level of every interval
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    #: significance level of the tests, after correction
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    #: a subgroup with fewer patients than this with a positive study, or with a negative one, is suppressed
    suppress_under: int = Field(default=10, ge=1)
    #: a subgroup that is not suppressed but has fewer patients than this has an interval and is never tested
    test_from: int = Field(default=25, ge=2)
    #: policy for choosing the operating threshold on validation
    threshold_policy: Literal["fixed_fpr", "fixed_sensitivity", "youden"] = "fixed_fpr"
    #: for `fixed_fpr`: largest share of negative studies that may be called positive
    fixed_fpr: float = Field(default=0.20, gt=0.0, lt=1.0)
    #: for `fixed_sensitivity`: smallest share of positive studies that must be called positive
    fixed_sensitivity: float = Field(default=0.80, gt=0.0, lt=1.0)
    #: whether intervals of rates include the uncertainty of the threshold, by bootstrap of the validation patients
    threshold_uncertainty: bool = False
    #: number of these bootstrap samples
    n_bootstraps: int = Field(default=1_000, ge=100)
    #: equivalence margin of a gap; differences below it are not clinically relevant
    margin: float = Field(default=0.05, gt=0.0, lt=1.0)
    #: non-inferiority margin in AUROC for comparisons of two models
    auroc_margin: float = Field(default=0.02, gt=0.0, lt=1.0)
    #: largest number of attributes in an intersection; 1 disables intersections
    intersection_depth: int = Field(default=2, ge=1, le=3)
    #: metric of the declared family
    primary_metric: Literal["udr", "auroc", "fpr", "tpr"] = "udr"
    #: primary pooling, used for the findings; other poolings are also reported
    primary_pooling: Literal["mean", "max", "median"] = "mean"

    @model_validator(mode="after")
    def _rule_ordered(self) -> Self:
        if self.test_from < self.suppress_under:
            raise ValueError("test_from must not be less than suppress_under")
        return self
