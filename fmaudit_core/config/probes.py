"""The section `probes`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from fmaudit_core.config.networks import NetworksSection
from fmaudit_core.config.section import Section

ProbeKind = Literal["logistic", "mlp", "abmil", "lrcn"]
Modality = Literal["ct", "ehr", "ct+ehr"]


class ProbesSection(Section):
    """Probes on frozen embeddings, and on the medical record if the cohort has one."""

    #: kinds of probes; findings use only the logistic probe. Networks are opt-in: mlp (perceptrons), abmil (gated attention over
    #: slices), lrcn (a recurrent network over slices). They take minutes on a small cohort, hours on a large one without a GPU
    kinds: tuple[ProbeKind, ...] = ("logistic",)
    #: candidate inverse regularisation strengths; validation chooses one per task and pooling
    c_grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    #: methods that pool slice embeddings to one vector per study
    poolings: tuple[Literal["mean", "max", "median"], ...] = ("mean", "max")
    #: inputs of the probes; all except `ct` need a medical record and are skipped without one
    modalities: tuple[Modality, ...] = ("ct", "ehr", "ct+ehr")
    #: largest number of training studies; of more, whole patients are drawn by a hash of their id. All of val and test are scored
    max_training: int = Field(default=500_000, ge=100)
    #: training of the networks
    networks: NetworksSection = NetworksSection()

    @field_validator("kinds")
    @classmethod
    def _with_logistic(cls, kinds: tuple[ProbeKind, ...]) -> tuple[ProbeKind, ...]:
        if "logistic" not in kinds or len(set(kinds)) != len(kinds):
            raise ValueError("kinds must be distinct and include logistic, which the primary findings use")
        return kinds

    @field_validator("c_grid")
    @classmethod
    def _positive(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if not grid or any(c <= 0 for c in grid) or len(set(grid)) != len(grid):
            raise ValueError("c_grid must be distinct values above 0")
        return tuple(sorted(grid))

    @field_validator("modalities")
    @classmethod
    def _imaging_always(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if "ct" not in modalities or ("ct+ehr" in modalities and "ehr" not in modalities):
            raise ValueError("modalities must include ct, and ehr if it includes ct+ehr: late fusion uses both")
        return modalities
