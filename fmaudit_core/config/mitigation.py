"""The section `mitigation`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section

Strategy = Literal["reweighting", "resampling", "adversarial", "leace", "dfr", "group_dro", "group_thresholds"]
STRATEGIES: tuple[Strategy, ...] = (
    "reweighting", "resampling", "adversarial", "leace", "dfr", "group_dro", "group_thresholds",
)  # fmt: skip


class MitigationSection(Section):
    """Mitigation strategies that may reduce a gap, each compared with the unmitigated probe."""

    #: `false` skips mitigation
    enabled: bool = True
    #: strategies to evaluate
    strategies: tuple[Strategy, ...] = STRATEGIES
    #: coefficients of the adversary; one is chosen on validation
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0)
    #: number of seeds for each strategy with random draws or random training
    seeds: int = Field(default=5, ge=1, le=100)
    #: width of the adversarial encoder
    hidden: int = Field(default=64, ge=2)
    #: largest number of training epochs; for networks without an adversary, validation chooses the number
    epochs: int = Field(default=100, ge=1)
    #: largest number of training batches; for many studies, a few epochs are enough
    max_steps: int = Field(default=1_000, ge=1)
    #: studies per training batch
    batch_size: int = Field(default=256, ge=8)
    #: learning rate of the training (Adam); the adversary uses ten times this rate
    learning_rate: float = Field(default=3e-4, gt=0.0)
    #: number of seeds whose runs are probed again for the attribute, with newly fitted probes
    reprobed_seeds: int = Field(default=1, ge=0)
    #: bootstrap samples of patients for the intervals
    n_bootstrap: int = Field(default=1_999, ge=99)
    #: random permutations of the attribute, as a control for every demographic probe
    control_shuffles: int = Field(default=3, ge=1)
    #: smallest width in the ladder of random projections; 0 disables the ladder
    ladder_from: int = Field(default=64, ge=0)
    #: encoder for the ladder; if not given, the widest encoder that is not a control
    ladder_encoder: str | None = None

    @field_validator("alphas")
    @classmethod
    def _above_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas or any(alpha <= 0 for alpha in alphas) or len(set(alphas)) != len(alphas):
            raise ValueError("alphas must be distinct values above 0")
        return tuple(sorted(alphas))
