"""The section `fairness`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fmaudit_core.config.section import Section


class FairnessSection(Section):
    """The statistics of the audit; the defaults are those of the method."""

    #: permutations of each test; the smallest p there can be is 1 / (n + 1)
    n_permutations: int = Field(default=9_999, ge=99)
    #: same inputs and seed, same numbers
    seed: int = 20_26
    #: of every interval
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    #: level of the tests, after correction
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    #: under this many patients with a positive study, or with a negative one, a subgroup is suppressed
    suppress_under: int = Field(default=10, ge=1)
    #: under this many it gets an interval but is never tested
    test_from: int = Field(default=25, ge=2)
    #: how validation chooses the operating threshold
    threshold_policy: Literal["fixed_fpr", "fixed_sensitivity", "youden"] = "fixed_fpr"
    #: with `fixed_fpr`: the share of healthy studies that may be called positive
    fixed_fpr: float = Field(default=0.20, gt=0.0, lt=1.0)
    #: with `fixed_sensitivity`: the share of diseased studies that must be called positive
    fixed_sensitivity: float = Field(default=0.80, gt=0.0, lt=1.0)
    #: whether intervals of rates tell how uncertain the threshold is too, by other validation patients drawn
    threshold_uncertainty: bool = False
    #: draws of validation patients for that
    n_bootstraps: int = Field(default=1_000, ge=100)
    #: equivalence margin on a gap; differences below it do not matter clinically
    margin: float = Field(default=0.05, gt=0.0, lt=1.0)
    #: margin of non-inferiority in AUROC, where two models are compared
    auroc_margin: float = Field(default=0.02, gt=0.0, lt=1.0)
    #: how many attributes are crossed at most; 1 crosses none
    intersection_depth: int = Field(default=2, ge=1, le=3)
    #: the metric of the declared family
    primary_metric: Literal["udr", "auroc", "fpr", "tpr"] = "udr"
    #: the pooling the findings speak of; the others are reported beside it
    primary_pooling: Literal["mean", "max", "median"] = "mean"

    @model_validator(mode="after")
    def _rule_ordered(self) -> Self:
        if self.test_from < self.suppress_under:
            raise ValueError("test_from must not lie below suppress_under")
        return self
