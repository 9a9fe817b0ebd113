"""The file of a frozen probe: all that another hospital needs to score its own embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.special import expit

from fmaudit_core.config import FairnessSection
from fmaudit_core.probes.logistic import logits
from fmaudit_core.sites.document import Document, Part
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.storage.digests import digest

Policy = Literal["fixed_fpr", "fixed_sensitivity", "youden"]
#: sources of outcomes
LabelSource = Literal["report", "code", "adjudicated", "other"]


class EncoderIdentity(Part):
    """The encoder of some embeddings."""

    #: name in the registry of the exporting site
    name: str = Field(min_length=1)
    #: digest of weights, preprocessing and view; none if the embeddings were computed elsewhere, so that only the name is known
    digest: str | None = None
    #: length of an embedding
    dim: int = Field(ge=1)


class Task(Part):
    """An outcome."""

    #: name in the audit of the exporting site
    name: str = Field(min_length=1)
    #: its title
    title: str
    #: where its labels come from
    labels: LabelSource


class Threshold(Part):
    """An operating threshold, chosen on the validation patients of the exporting site."""

    #: how it was chosen
    policy: Policy
    #: the FPR or sensitivity aimed at; none for `youden`
    target: float | None = Field(default=None, gt=0, lt=1)
    #: studies with this score or a higher one are called positive
    value: float


class Counts(Part):
    """Studies that the probe was fitted and its thresholds chosen on; none for a number under the small-group rule."""

    #: training studies with a known label
    n_train: int = Field(ge=1)
    #: those with the outcome
    n_train_positive: int | None = Field(default=None, ge=0)
    #: validation studies
    n_validation: int = Field(ge=1)
    #: those with the outcome
    n_validation_positive: int | None = Field(default=None, ge=0)


class ProbeFile(Document):
    """A frozen logistic probe. Its score is a probability that was not recalibrated: expit(coefficients x + intercept)."""

    TITLE: ClassVar[str] = "probe"

    #: what the file is
    kind: Literal["fmaudit.probe"] = "fmaudit.probe"
    #: the encoder whose embeddings it reads
    encoder: EncoderIdentity
    #: the outcome
    task: Task
    #: pooling of the slices of a study
    pooling: str
    #: inverse regularisation strength, chosen on validation
    c: float = Field(gt=0)
    #: for raw embeddings: the standardisation is folded in
    coefficients: tuple[float, ...]
    #: log odds of an embedding of zeros
    intercept: float
    #: one of each policy; the first is that of the exporting audit
    thresholds: tuple[Threshold, ...] = Field(min_length=1)
    #: how many studies it was made from
    counts: Counts

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.coefficients) != self.encoder.dim:
            raise ValueError(f"there are {len(self.coefficients)} coefficients for {self.encoder.dim} dimensions")
        policies = [one.policy for one in self.thresholds]
        if len(set(policies)) != len(policies):
            raise ValueError("a policy has two thresholds")
        return self

    @property
    def digest(self) -> str:
        """Return the identity of the probe, which thresholds are no part of."""
        return probe_digest(self.encoder, self.task.name, self.pooling, self.coefficients, self.intercept)

    def threshold(self, policy: str | None = None) -> Threshold:
        """Return the threshold of a policy; that of the exporting audit if none is named.

        Raises
        ------
        SiteError
            The probe has no such threshold.
        """
        for one in self.thresholds:
            if policy in (None, one.policy):
                return one
        known = ", ".join(one.policy for one in self.thresholds)
        raise SiteError("policy_unknown", f"the probe has no threshold of the policy {policy}; it has {known}.")

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probability of the outcome for (n, d) raw embeddings, (n,).

        Raises
        ------
        SiteError
            The embeddings have another length.
        ProbeError
            A score is not finite.
        """
        if x.shape[1] != self.encoder.dim:
            raise SiteError(
                "dimension_differs",
                f"the embeddings have {x.shape[1]} dimensions, but the probe has {self.encoder.dim} coefficients.",
            )
        found: npt.NDArray[np.float64] = expit(
            logits(x, np.array(self.coefficients)[None], np.array([self.intercept]))[:, 0]
        )
        return found


def probe_digest(
    encoder: EncoderIdentity, task: str, pooling: str, coefficients: tuple[float, ...], intercept: float
) -> str:
    """Return the identity of a probe: two probes with the same one give the same scores."""
    return digest("probe", encoder.digest or encoder.name, task, pooling, list(coefficients), intercept)


def with_policy(settings: FairnessSection, threshold: Threshold) -> FairnessSection:
    """Return the settings with the policy and target of a threshold."""
    target: dict[str, float] = {} if threshold.target is None else {threshold.policy: threshold.target}
    return settings.model_copy(update={"threshold_policy": threshold.policy, **target})
