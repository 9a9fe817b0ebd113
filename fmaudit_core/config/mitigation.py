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
    """Strategies that might close a gap, each held against the probe as it was."""

    #: `false` leaves mitigation out
    enabled: bool = True
    #: which are tried
    strategies: tuple[Strategy, ...] = STRATEGIES
    #: strengths of the adversary; one is chosen on validation
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0)
    #: runs of each strategy that is drawn or trained at random
    seeds: int = Field(default=5, ge=1, le=100)
    #: width of the adversarial encoder
    hidden: int = Field(default=64, ge=2)
    #: how long it is trained at most; networks without an adversary tell on validation how long is best
    epochs: int = Field(default=100, ge=1)
    #: training ends after so many batches at the latest: of many studies a few passes are enough
    max_steps: int = Field(default=1_000, ge=1)
    #: studies of one step of its training
    batch_size: int = Field(default=256, ge=8)
    #: size of a step of its training (Adam); the adversary's own are ten times as large
    learning_rate: float = Field(default=3e-4, gt=0.0)
    #: runs of these seeds are read again by fresh probes for the attribute
    reprobed_seeds: int = Field(default=1, ge=0)
    #: draws of patients for the intervals
    n_bootstrap: int = Field(default=1_999, ge=99)
    #: labellings dealt at random beside every demographic probe
    control_shuffles: int = Field(default=3, ge=1)
    #: the narrowest rung of the ladder of random projections; 0 builds none
    ladder_from: int = Field(default=64, ge=0)
    #: the encoder of the ladder; the widest that is no control where not given
    ladder_encoder: str | None = None

    @field_validator("alphas")
    @classmethod
    def _above_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas or any(alpha <= 0 for alpha in alphas) or len(set(alphas)) != len(alphas):
            raise ValueError("alphas needs distinct values above 0")
        return tuple(sorted(alphas))
