"""A site's results for pooling, from what its own page shows: a workspace, or the output folder of `fmaudit assess`.

Values and counts are those of audit.json, which passed the small-group rule. Of the estimates that only this export needs,
effective sizes next to a withheld subgroup are computed from the rounded counts, and correlations are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from fmaudit_core.common.formatting import task_title
from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET, THRESHOLD_GIVEN, UNKNOWN, acquisition_column
from fmaudit_core.config import Audit
from fmaudit_core.fairness.site_contrasts import Shown, site_contrasts
from fmaudit_core.fairness.site_estimates import SITE_ESTIMATES, site_estimates
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.export_probe import chosen_fit, encoder_identity
from fmaudit_core.sites.identity import encoder_key, probe_key
from fmaudit_core.sites.probe_file import LabelSource, probe_digest
from fmaudit_core.sites.summary_file import (
    AssessedModel,
    AttributeBands,
    Comparison,
    Correlation,
    Site,
    SiteSummary,
    SubgroupResult,
)
from fmaudit_core.standalone.assess_file import SITE_TABLE
from fmaudit_core.standalone.compare_audits import Audited, opened

_METRICS: Final = ("udr", "fpr", "auroc")
#: studies that a metric is of, by the columns of their counts
_COUNTED: Final[Mapping[str, tuple[str, ...]]] = {"udr": ("n_pos",), "fpr": ("n_neg",), "auroc": ("n_pos", "n_neg")}
_COMPARED: Final = ("encoder", "task", "attribute", "metric")
#: two estimates are never taken for the same one
_MOST_CORRELATED: Final = 0.99
_RUN_AGAIN: Final = "Run `fmaudit run`, or `fmaudit assess`, again."


def export_summary(source: Path, *, site: str, labels: LabelSource) -> SiteSummary:
    """Return the summary of an audited workspace (its audit.yaml or folder), or of an output folder of `fmaudit assess`.

    Parameters
    ----------
    site : str
        Name of the site on the pooled page.
    labels : str
        Source of the outcomes' labels.

    Raises
    ------
    ReportError
        There is no audit.
    SiteError
        The report is not of the predictions, or was written by an earlier version.
    """
    audited = opened(source)
    summary = audited.audit_summary
    rows = [row for row in summary["subgroup_metrics"] if row["metric"] in _METRICS]
    estimates = {
        tuple(row[name] for name in (*SCORE_SET, "attribute", "metric", "subgroup")): row
        for row in _estimates(audited).iter_rows(named=True)
    }
    fairness = summary["config"]["fairness"]
    return SiteSummary(
        site=Site(name=site, labels=labels, withholds=any(row["counts"] == "withheld" for row in rows)),
        confidence=fairness["confidence"],
        suppress_under=fairness["suppress_under"],
        test_from=fairness["test_from"],
        models=tuple(_models(audited, rows)),
        attributes=tuple(_bands(name, audited.workspace) for name in summary["config"]["attributes"]),
        comparisons=tuple(comparisons(rows, estimates, fairness["suppress_under"], source)),
    )


def _estimates(audited: Audited) -> pl.DataFrame:
    if audited.workspace is not None:
        workspace = audited.workspace
        test = queries.compared_predictions(workspace, snapshot_of(workspace).audited_cells())
        return site_estimates(test, workspace.audit.attributes, workspace.audit.fairness)
    folder = audited.path if audited.path.is_dir() else audited.path.parent
    path = folder / SITE_TABLE
    if not path.is_file():
        raise SiteError("audit_older", f"has no {SITE_TABLE}.", where=str(folder), fix=_RUN_AGAIN)
    found = pl.read_parquet(path)
    if found.schema != SITE_ESTIMATES:
        raise SiteError("audit_older", "has other columns than this version reads.", where=str(path), fix=_RUN_AGAIN)
    return found


def _models(audited: Audited, rows: Sequence[Mapping[str, Any]]) -> Iterator[AssessedModel]:
    summary, workspace = audited.audit_summary, audited.workspace
    config, provenance = summary["config"], summary["provenance"]
    of_all = {
        (row["encoder"], row["task"]): row for row in rows if row["attribute"] == OVERALL and row["metric"] == "udr"
    }
    for (encoder, task), row in of_all.items():
        if workspace is not None:
            encoder_digest, probe = _identities(workspace, encoder, task)
        else:
            encoder_digest, probe = provenance.get(encoder_key(encoder)), provenance.get(probe_key(encoder, task))
        # the threshold of an applied probe was given, but by the policy of the site that it comes from
        given = row.get("threshold_source") == THRESHOLD_GIVEN and probe is None
        policy: Any = "given" if given else config["fairness"]["threshold_policy"]
        yield AssessedModel(
            encoder=encoder,
            encoder_digest=encoder_digest,
            task=task,
            title=task_title(task, config.get("task_titles", {})),
            probe=probe,
            policy=policy,
            target=row.get("threshold") if given else config["fairness"].get(policy),
            threshold=row.get("threshold"),
        )


def _identities(workspace: Workspace, encoder: str, task: str) -> tuple[str | None, str | None]:
    """Return the digests of an encoder and of its probe; None of what is not known."""
    spec = workspace.registry.spec(encoder)
    if not spec.embeds:
        return None, None
    identity, fit = encoder_identity(spec), chosen_fit(workspace, encoder, task)
    return identity.digest, probe_digest(identity, task, fit["pooling"], tuple(fit["coefficients"]), fit["intercept"])


def _bands(attribute: str, workspace: Workspace | None) -> AttributeBands:
    return AttributeBands(
        attribute=attribute, bands=None if workspace is None else _declared(attribute, workspace.audit)
    )


def _declared(attribute: str, audit: Audit) -> tuple[str, ...] | None:
    """Return the bands that a number is grouped into; None if the levels are words."""
    if attribute == "age_band":
        return tuple(one.label for one in audit.age_bands)
    column = acquisition_column(attribute)
    edges = audit.acquisition.edges(column) if column is not None else ()
    return tuple(f"<= {edge:g}" for edge in edges) if edges else None


def comparisons(
    rows: Sequence[Mapping[str, Any]], estimates: Mapping[tuple[Any, ...], Mapping[str, Any]], least: int, source: Path
) -> Iterator[Comparison]:
    """Yield the comparisons of rows of audit.json.

    Parameters
    ----------
    rows : rows of `subgroup_metrics`
    estimates : rows of `SITE_ESTIMATES` by score set, attribute, metric and subgroup
    least : int
        Fewest patients of a subgroup that is shown.

    Raises
    ------
    SiteError
        A shown row has no estimate, or another value.
    """
    shown: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        of_people = row["attribute"] != OVERALL and row["subgroup"] != UNKNOWN
        if of_people and row["counts"] != "withheld" and row["value"] is not None:
            shown.setdefault(tuple(row[name] for name in _COMPARED), []).append(row)
    for key, of_attribute in shown.items():
        found = [
            (row, _estimate_of(row, estimates, source)) for row in sorted(of_attribute, key=lambda one: one["subgroup"])
        ]
        if len(found) > 1:
            yield _comparison(dict(zip(_COMPARED, key, strict=True)), found, least)


def _estimate_of(
    row: Mapping[str, Any], estimates: Mapping[tuple[Any, ...], Mapping[str, Any]], source: Path
) -> Mapping[str, Any]:
    found = estimates.get(tuple(row[name] for name in (*SCORE_SET, "attribute", "metric", "subgroup")))
    most = 0.51 * 10.0**-DECIMALS if row["counts"] == "rounded" else 1e-9
    if found is None or abs(found["value"] - row["value"]) > most:
        raise SiteError("audit_older", "the report is not of these predictions.", where=str(source), fix=_RUN_AGAIN)
    return found


def _comparison(
    named: Mapping[str, Any], found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], least: int
) -> Comparison:
    rounded = any(row["counts"] == "rounded" for row, _ in found)
    shown = {row["subgroup"]: _shown(row, estimate, least) for row, estimate in found}
    n = {row["subgroup"]: _counted(row) for row, _ in found}
    correlations = {
        (first, second): min(max(round(value, 1 if rounded else 2), -_MOST_CORRELATED), _MOST_CORRELATED)
        for first, one in ((row["subgroup"], estimate) for row, estimate in found)
        for second, value in zip(one["others"], one["correlations"], strict=True)
        if first < second and second in shown
    }
    contrasts = site_contrasts(named["metric"], list(shown.values()), correlations)
    return Comparison(
        **named,
        counts="rounded" if rounded else "exact",
        subgroups=tuple(
            SubgroupResult(
                subgroup=one.subgroup,
                n=n[one.subgroup],
                value=shown[one.subgroup].value,
                n_effective=shown[one.subgroup].n_effective,
                theta=one.theta,
                others=one.others,
                variance=one.variance,
            )
            for one in contrasts
        ),
        correlations=tuple(
            Correlation(first=first, second=second, correlation=value)
            for (first, second), value in sorted(correlations.items())
            if value
        ),
    )


def _counted(row: Mapping[str, Any]) -> int:
    return min(int(row[name]) for name in _COUNTED[row["metric"]])


def _shown(row: Mapping[str, Any], estimate: Mapping[str, Any], least: int) -> Shown:
    """Return a subgroup with its effective size: next to a withheld subgroup, the rounded count times a rounded ratio."""
    size = estimate["n_effective"]
    if row["counts"] == "rounded":
        ratio = max(round(size / estimate["n"], 1), 0.1)
        size = max(_counted(row), least) * ratio
    return Shown(row["subgroup"], row["value"], size)
