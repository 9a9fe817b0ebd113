"""The file of a site's results for pooling: no row about a study or patient, and no number of a withheld subgroup."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fmaudit_core.sites.document import Document, Part
from fmaudit_core.sites.probe_file import LabelSource, Policy

Metric = Literal["auroc", "udr", "fpr"]


class Site(Part):
    """Who exported the file."""

    #: name on the pooled page
    name: str = Field(min_length=1, max_length=80)
    #: where the labels of the outcomes come from
    labels: LabelSource
    #: whether any subgroup is withheld under the small-group rule; which ones is not reported
    withholds: bool


class AssessedModel(Part):
    """A model of one task."""

    #: its name
    encoder: str
    #: digest of weights, preprocessing and view; none if it is not known, as of embeddings or predictions made elsewhere
    encoder_digest: str | None
    #: name of the outcome
    task: str
    #: its title
    title: str
    #: digest of the probe; none if it is not known, as of predictions made elsewhere
    probe: str | None
    #: how the operating threshold was chosen; `given` if it was given as a number
    policy: Policy | Literal["given"]
    #: the FPR or sensitivity aimed at, or the given threshold
    target: float | None
    #: the threshold; none if the model has none
    threshold: float | None


class AttributeBands(Part):
    """An attribute."""

    #: its name
    attribute: str
    #: its bands as declared; none if its levels are words, or not declared
    bands: tuple[str, ...] | None


class SubgroupResult(Part):
    """A shown subgroup. Differences are on the scale of the tests: logit of AUROC, arcsine of rates."""

    #: name of the subgroup
    subgroup: str
    #: studies of the class that the metric is of, for AUROC of the rarer class, as the page shows them
    n: int = Field(ge=0)
    #: the metric, as the page shows it
    value: float = Field(ge=0, le=1)
    #: independent studies with the same precision
    n_effective: float = Field(gt=0)
    #: the subgroup less the weighted mean of the other shown subgroups, rounded to 0.01
    theta: float
    #: the weighted mean of the other shown subgroups, rounded to 0.01
    others: float
    #: variance of `theta` if all subgroups are equal
    variance: float = Field(gt=0)


class Correlation(Part):
    """The correlation of the estimates of two subgroups that share patients."""

    #: one subgroup
    first: str
    #: the other
    second: str
    #: rounded to 0.01, next to a withheld subgroup to 0.1
    correlation: float = Field(ge=-1, le=1)


class Comparison(Part):
    """The subgroups of one attribute, by one metric of one model."""

    #: name of the model
    encoder: str
    #: name of the outcome
    task: str
    #: name of the attribute
    attribute: str
    #: the metric
    metric: Metric
    #: `rounded` to tens if a subgroup of the attribute is withheld; values then are to whole percent
    counts: Literal["exact", "rounded"]
    #: the shown subgroups
    subgroups: tuple[SubgroupResult, ...] = Field(min_length=2)
    #: of subgroups that share patients; the others are 0
    correlations: tuple[Correlation, ...] = ()


class SiteSummary(Document):
    """Results of one site for pooling."""

    TITLE: ClassVar[str] = "site summary"

    #: what the file is
    kind: Literal["fmaudit.site_summary"] = "fmaudit.site_summary"
    #: who exported it
    site: Site
    #: confidence level of the audit's intervals
    confidence: float = Field(gt=0.5, lt=1)
    #: fewest patients of a subgroup that is shown
    suppress_under: int = Field(ge=1)
    #: fewest patients of a subgroup that the audit tests
    test_from: int = Field(ge=2)
    #: the assessed models
    models: tuple[AssessedModel, ...] = Field(min_length=1)
    #: the attributes
    attributes: tuple[AttributeBands, ...] = Field(min_length=1)
    #: results by model, attribute and metric
    comparisons: tuple[Comparison, ...]

    @model_validator(mode="after")
    def _of_its_models(self) -> Self:
        known = {(one.encoder, one.task) for one in self.models}
        attributes = {one.attribute for one in self.attributes}
        for one in self.comparisons:
            if (one.encoder, one.task) not in known or one.attribute not in attributes:
                raise ValueError("a comparison is of a model or attribute that the file does not list")
        return self

    def model(self, encoder: str, task: str) -> AssessedModel | None:
        """Return a model; None if the site did not assess it."""
        return next((one for one in self.models if (one.encoder, one.task) == (encoder, task)), None)
