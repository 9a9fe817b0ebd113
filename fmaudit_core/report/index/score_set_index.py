"""The disclosed tables, looked up by encoder, task and model. Nothing else of the inputs' tables reaches a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fmaudit_core.common.formatting import task_title
from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK, MODEL, OVERALL, SCORE_SET, VARIANT
from fmaudit_core.config import Audit
from fmaudit_core.fairness.score_warnings import withheld
from fmaudit_core.fairness.small_groups import NO_THRESHOLD
from fmaudit_core.report.disclosure.disclosure import Disclosed
from fmaudit_core.report.input.report_input import AGGREGATIONS, ReportInput

Row = dict[str, Any]

#: metrics of a cell's table, in the order of its columns
SHOWN_METRICS: Final = ("udr", "fpr", "auroc")
#: suffix of a control's title
CONTROL: Final = " (control)"


@dataclass(frozen=True, order=True)
class Key:
    """A score set."""

    encoder: str
    task: str
    probe: str
    modality: str
    pooling: str
    strategy: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Key:
        """Return the score set a table's row belongs to."""
        return cls(*(str(row[name]) for name in SCORE_SET))

    @property
    def variant(self) -> tuple[str, ...]:
        """Return the columns of a score set other than encoder and task."""
        return (self.probe, self.modality, self.pooling, self.strategy)


class ScoreSetIndex:
    """The disclosed tables, looked up by score set; rows of other columns never get in.

    Parameters
    ----------
    inputs : ReportInput
    tables : Disclosed
    """

    def __init__(self, inputs: ReportInput, tables: Disclosed) -> None:
        self.audit: Audit = inputs.audit
        self.encoders: list[Row] = _encoders(inputs)
        self._titles = {one["name"]: one["title"] for one in self.encoders}
        self._metrics = by_key(tables.metrics)
        self._sweeps = by_key(tables.sweep)
        self._findings = by_key(_all_findings(tables))
        self._calibration = by_key(tables.calibration)
        self._cross = by_key(tables.cross)
        self._intersections = by_key(tables.intersections)
        self._comparisons = tables.comparisons.rows(named=True)
        self._changes = by_key(tables.changes)
        self._aggregations = tables.aggregations.rows(named=True)
        self._warnings = by_key(tables.warnings)
        self._withheld = {
            (Key.of(row), row["metric"]): str(row["reason"]) for row in withheld(tables.warnings).iter_rows(named=True)
        }
        # models without a finding are shown together with the others, not one by one
        spoken = {Key.of(row) for row in tables.findings.select(SCORE_SET).unique().to_dicts()}
        shown = [key for key in self._metrics if key in spoken] or list(self._metrics)
        variants = sorted({key.variant for key in shown}, key=self._preference)
        self.variants = [dict(zip(VARIANT, variant, strict=True)) for variant in variants]
        order = {name: at for at, name in enumerate(self._titles)}
        tasks = self.tasks
        self.keys = sorted(
            shown, key=lambda key: (order[key.encoder], tasks.index(key.task), variants.index(key.variant))
        )

    @property
    def tasks(self) -> list[str]:
        """Return tasks with results, in the order of the config."""
        found = {key.task for key in self._metrics}
        return [task for task in self.audit.tasks if task in found] + sorted(found - set(self.audit.tasks))

    @property
    def main_task(self) -> str:
        """Return the task the findings are about: the diagnosis where it was audited."""
        return DIAGNOSIS_TASK if DIAGNOSIS_TASK in self.tasks else next(iter(self.tasks), DIAGNOSIS_TASK)

    def encoder_title(self, name: str) -> str:
        """Return the title of an encoder."""
        return str(self._titles.get(name, name))

    @property
    def task_titles(self) -> Mapping[str, str]:
        """Return the titles of tasks that the audit gives."""
        return self.audit.task_titles

    def main_key(self, encoder: str, task: str) -> Key | None:
        """Return the primary score set of an encoder on a task: the primary pooling, imaging alone, unmitigated."""
        keys = [key for key in self._metrics if key.encoder == encoder and key.task == task]
        return min(keys, key=lambda key: self._preference(key.variant), default=None)

    def variant_index(self, key: Key) -> int:
        """Return the place of a score set's variant among `variants`."""
        return [tuple(one.values()) for one in self.variants].index(key.variant)

    @property
    def primary_metric(self) -> str:
        """Return the metric the findings are about; the share missed is how a configured TPR is reported."""
        metric = self.audit.fairness.primary_metric
        return "udr" if metric == "tpr" else metric

    def overall(self, key: Key, metric: str) -> Row | None:
        """Return the metric of all studies together."""
        rows = self._metrics.get(key, [])
        return next((row for row in rows if row["attribute"] == OVERALL and row["metric"] == metric), None)

    def threshold(self, key: Key) -> float | None:
        """Return the operating threshold."""
        return next((row["threshold"] for row in self._metrics.get(key, []) if row.get("threshold") is not None), None)

    def threshold_source(self, key: Key) -> str | None:
        """Return the origin of the operating threshold: ``given`` or ``validation``; None if it is not known."""
        rows = self._metrics.get(key, [])
        return next((row["threshold_source"] for row in rows if row.get("threshold_source") is not None), None)

    def threshold_sources(self) -> set[str]:
        """Return origins of the operating thresholds of all score sets."""
        return {source for key in self._metrics if (source := self.threshold_source(key)) is not None}

    def warnings(self, key: Key) -> list[Row]:
        """Return warnings about a score set: of all studies first, then by attribute in the order of the config."""
        rows = self._warnings.get(key, [])
        return sorted(
            rows, key=lambda row: (row["attribute"] != OVERALL, self._rank(row["attribute"]), row["subgroup"])
        )

    def withheld_because(self, key: Key, metric: str) -> str | None:
        """Return why no verdict on a metric is given; None if one is."""
        return self._withheld.get((key, metric))

    def findings(self, key: Key) -> list[Row]:
        """Return findings of a score set, in order of attribute and metric."""
        metrics = [self.primary_metric, *SHOWN_METRICS]
        rows = self._findings.get(key, [])
        return sorted(
            rows, key=lambda row: (self._rank(row["attribute"]), _index(metrics, row["metric"]), row["metric"])
        )

    def finding(self, key: Key, attribute: str, metric: str) -> Row | None:
        """Return one finding."""
        rows = self._findings.get(key, [])
        return next((row for row in rows if row["attribute"] == attribute and row["metric"] == metric), None)

    def subgroups(self, key: Key, metric: str, attribute: str | None = None) -> list[Row]:
        """Return rows of one metric, attributes in the order of the config, subgroups by name with the unrecorded last."""
        rows = [
            row
            for row in self._metrics.get(key, [])
            if row["metric"] == metric and row["attribute"] != OVERALL and attribute in (None, row["attribute"])
        ]
        return sorted(
            rows, key=lambda row: (self._rank(row["attribute"]), row["subgroup"] == "unknown", row["subgroup"])
        )

    def subgroup(self, key: Key, metric: str, attribute: str, subgroup: str | None) -> Row | None:
        """Return one subgroup's row."""
        rows = self.subgroups(key, metric, attribute)
        return next((row for row in rows if row["subgroup"] == subgroup), None)

    def curves(self, key: Key, attribute: str) -> list[Row]:
        """Return rows of the sweep for one attribute."""
        return [row for row in self._sweeps.get(key, []) if row["attribute"] == attribute]

    def calibration(self, key: Key) -> list[Row]:
        """Return calibration of all studies first, then of each subgroup in the order of `subgroups`."""
        rows = self._calibration.get(key, [])
        return sorted(
            rows,
            key=lambda row: (
                row["attribute"] != OVERALL, self._rank(row["attribute"]), row["subgroup"] == "unknown", row["subgroup"],
            ),
        )  # fmt: skip

    def cross(self, key: Key, attribute: str) -> dict[tuple[str, str], Row]:
        """Return cross-group AUROC of one attribute, by the subgroups of the positives and of the negatives."""
        rows = self._cross.get(key, [])
        return {(row["positives_of"], row["negatives_of"]): row for row in rows if row["attribute"] == attribute}

    def intersections(self, key: Key, metric: str) -> list[Row]:
        """Return intersections by how they fare, worst first, then those not tested by name, then those withheld."""
        rows = [row for row in self._intersections.get(key, []) if row["metric"] == metric]
        return sorted(
            rows,
            key=lambda row: (
                row["counts"] == "withheld", row["rank"] is None, row["rank"] or 0, row["attribute"], row["subgroup"],
            ),
        )  # fmt: skip

    def comparisons(self, task: str) -> list[tuple[Key, Key, list[Row]]]:
        """Return pairs of models of one task with their rows: the models the findings are about first."""
        pairs: dict[tuple[Key, Key], list[Row]] = {}
        for row in self._comparisons:
            if row["task"] == task:
                other = {"task": task} | {name: row[f"other_{name}"] for name in MODEL}
                pairs.setdefault((Key.of(row), Key.of(other)), []).append(row)
        ordered = sorted(pairs, key=lambda pair: self._pair_preference(*pair))
        return [(first, second, self._compared(pairs[first, second])) for first, second in ordered]

    def changes(self) -> list[tuple[Key, list[Row]]]:
        """Return changes since the previous audit, for every model that it audited too."""
        return [(key, self._compared(self._changes[key])) for key in self.keys if key in self._changes]

    def aggregations(self, task: str) -> list[Row]:
        """Return aggregations of slices of one task, by encoder in the order of display, then as `AGGREGATIONS` has them."""
        names, kinds = list(self._titles), list(AGGREGATIONS)
        rows = [row for row in self._aggregations if row["task"] == task]
        return sorted(
            rows,
            key=lambda row: (
                _index(names, row["encoder"]), row["comparison"], _index(kinds, row["aggregation"] or ""), row["view_of"] or "",
            ),
        )  # fmt: skip

    def _compared(self, rows: list[Row]) -> list[Row]:
        metrics = ["auroc", *SHOWN_METRICS]
        return sorted(
            rows,
            key=lambda row: (
                row["attribute"] != OVERALL, self._rank(row["attribute"]), row["subgroup"] == "unknown", row["subgroup"],
                _index(metrics, row["metric"]),
            ),
        )  # fmt: skip

    def _pair_preference(self, first: Key, second: Key) -> tuple[Any, ...]:
        names = list(self._titles)
        worse = max(self._preference(first.variant), self._preference(second.variant))
        aside = not (self.is_main(first) and self.is_main(second))
        against = not self.is_audited_against_baseline(first.encoder, second.encoder)
        return aside, against, worse, _index(names, first.encoder), _index(names, second.encoder), first, second

    def is_main(self, key: Key) -> bool:
        """Return whether a score set is the one that is primary for its encoder."""
        return self.main_key(key.encoder, key.task) == key

    def is_control(self, encoder: str) -> bool:
        """Return whether an encoder is the control."""
        return any(one["name"] == encoder and one["control"] for one in self.encoders)

    def is_baseline(self, encoder: str) -> bool:
        """Return whether a model is audited by its predictions alone."""
        return any(one["name"] == encoder and one["baseline"] for one in self.encoders)

    def is_audited_against_baseline(self, encoder: str, other: str) -> bool:
        """Return whether a pair is an encoder under audit against a baseline."""
        under_audit = not (self.is_control(encoder) or self.is_baseline(encoder))
        return self.is_baseline(other) and under_audit

    def role(self, encoder: str) -> str:
        """Return the role to append to the title of a control or baseline; empty if the title has it already."""
        role = CONTROL if self.is_control(encoder) else " (baseline)" if self.is_baseline(encoder) else ""
        return "" if self.encoder_title(encoder).endswith(role) else role

    def named(self, encoder: str) -> str:
        """Return the title of an encoder with its role."""
        return f"{self.encoder_title(encoder)}{self.role(encoder)}"

    def outcome(self, key: Key) -> str:
        """Return the title of a score set's task."""
        return task_title(key.task, self.task_titles)

    def has_threshold(self, key: Key) -> bool:
        """Return whether a score set has an operating threshold; without, AUROC alone is reported."""
        return not any(row["status"] == NO_THRESHOLD for row in self._metrics.get(key, []))

    def telling_metric(self, key: Key) -> str:
        """Return the metric that is primary for a score set: AUROC if there is no threshold."""
        return self.primary_metric if self.has_threshold(key) else "auroc"

    def attributes(self, key: Key) -> list[str]:
        """Return attributes of a score set, in the order of the config."""
        found = {row["attribute"] for row in self._metrics.get(key, [])} - {OVERALL}
        return sorted(found, key=self._rank)

    def _rank(self, attribute: str) -> tuple[int, str]:
        return _index(self.audit.attributes, attribute), attribute

    def _preference(self, variant: tuple[str, ...]) -> tuple[bool, bool, bool, bool, tuple[str, ...]]:
        probe, modality, pooling, strategy = variant
        primary = self.audit.fairness.primary_pooling
        return strategy != "none", modality != "ct", pooling != primary, probe != "logistic", variant


def _index(names: Sequence[str], name: str) -> int:
    return list(names).index(name) if name in names else len(names)


def by_key(frame: pl.DataFrame) -> dict[Key, list[Row]]:
    """Return the rows of each score set, in their order."""
    out: dict[Key, list[Row]] = {}
    for row in frame.iter_rows(named=True):
        out.setdefault(Key.of(row), []).append(row)
    return out


def _all_findings(tables: Disclosed) -> pl.DataFrame:
    """Return findings, and the gaps without a finding."""
    on = [*SCORE_SET, "attribute", "metric"]
    further = [name for name in tables.gaps.columns if name in on or name not in tables.findings.columns]
    found = tables.findings.join(tables.gaps.select(further), on=on, how="left", maintain_order="left")
    without = tables.gaps.join(tables.findings.select(on), on=on, how="anti", maintain_order="left")
    return pl.concat([found, without], how="diagonal_relaxed")


def _encoders(inputs: ReportInput) -> list[Row]:
    """Return encoders as given, then those only the tables know; baselines after them, controls last."""
    blank = dict.fromkeys(("dim", "n_studies", "licence", "weights_sha256")) | {"control": False, "baseline": False}
    given = [{**blank, **one, "title": one.get("title") or one["name"]} for one in inputs.encoders]
    names = {one["name"] for one in given}
    found = inputs.subgroup_metrics.get_column("encoder").unique().sort().to_list()
    given += [{**blank, "name": name, "title": name} for name in found if name not in names]
    return sorted(given, key=lambda one: (bool(one["control"]), bool(one["baseline"])))
