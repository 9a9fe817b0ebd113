"""The disclosed tables of mitigation, looked up by encoder and task. The audit's other tables: `score_set_index.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from fmaudit_core.config import STRATEGIES, Audit
from fmaudit_core.probes.primary_score_set import is_logistic_on_ct, of_primary_pooling
from fmaudit_core.report.disclosure.disclosure import Disclosed

Row = dict[str, Any]
Cell = tuple[str, str]

#: what makes runs of one strategy the same but for their seed
AIMED: Final = ("strategy", "target_attribute", "alpha")
#: a run that is aimed at nobody: the adversarial encoder without an adversary
NOBODY: Final = "none"


class MitigationIndex:
    """Results of strategies by encoder and task; rows of other columns than the disclosed ones never get in.

    Parameters
    ----------
    audit : Audit
    tables : Disclosed
    """

    def __init__(self, audit: Audit, tables: Disclosed) -> None:
        self.audit = audit
        shown = tables.mitigation
        self._results = _by_cell(shown.results)
        self._subgroups = _by_cell(shown.subgroups)
        self._advice = {cell: rows[0] for cell, rows in _by_cell(shown.advice).items()}
        self._leakage = _by_cell(shown.leakage)
        self.probes: list[Row] = shown.probes.to_dicts()
        self.capacity: list[Row] = shown.capacity.to_dicts()
        self.interactions: list[Row] = shown.interactions.to_dicts()
        self.ladder: list[Row] = shown.ladder.to_dicts()
        unequal = mitigated_findings(tables.findings, audit).filter(verdict="disparity")
        self._unequal: dict[Cell, set[str]] = {}
        for encoder, task, attribute in unequal.select("encoder", "task", "attribute").iter_rows():
            self._unequal.setdefault((encoder, task), set()).add(attribute)

    @property
    def cells(self) -> list[Cell]:
        """Return encoders and tasks with results."""
        return list(self._results)

    def attributes(self, cell: Cell) -> list[str]:
        """Return attributes that strategies were aimed at, in the order of the config."""
        found = {row["target_attribute"] for row in self._results.get(cell, [])} - {NOBODY}
        return [name for name in self.audit.attributes if name in found]

    def own(self, cell: Cell, attribute: str) -> list[Row]:
        """Return each strategy's primary run on the attribute it is aimed at, in the order of the config.

        A strategy that could not be fitted or evaluated has the row that says why.
        """
        rows = [row for row in self._results.get(cell, []) if row["target_attribute"] == attribute == row["attribute"]]
        out = []
        for strategy in STRATEGIES:
            of = [row for row in rows if row["strategy"] == strategy]
            primary = [row for row in of if row["own"]] or [row for row in of if row["status"] != "evaluated"]
            out += primary[:1]
        return out

    def path(self, cell: Cell, attribute: str) -> list[Row]:
        """Return the adversarial runs over their seeds by alpha, the encoder without an adversary first."""
        rows = [
            row
            for row in self._results.get(cell, [])
            if row["strategy"] == "adversarial" and row["attribute"] == attribute and row["seed"] is None
            and row["target_attribute"] in (attribute, NOBODY) and row["status"] == "evaluated"
        ]  # fmt: skip
        return sorted(rows, key=lambda row: row["alpha"])

    def seeds(self, cell: Cell, run: Mapping[str, Any], attribute: str) -> list[Row]:
        """Return the single runs of a strategy."""
        return [
            row
            for row in self._results.get(cell, [])
            if row["seed"] is not None and row["attribute"] == attribute and row["status"] == "evaluated"
            and all(row[name] == run[name] for name in AIMED)
        ]  # fmt: skip

    def side_effects(self, cell: Cell, run: Mapping[str, Any]) -> list[Row]:
        """Return a run's changes to the gaps of the other attributes, in the order of the config."""
        rows = [
            row
            for row in self._results.get(cell, [])
            if row["seed"] is None
            and row["attribute"] != run["attribute"]
            and all(row[name] == run[name] for name in AIMED)
        ]
        return sorted(rows, key=lambda row: self._rank(row["attribute"]))

    def subgroups(self, cell: Cell, run: Mapping[str, Any], metric: str) -> list[Row]:
        """Before and after of each subgroup under a run, attributes in the order of the config."""
        rows = [
            row
            for row in self._subgroups.get(cell, [])
            if row["metric"] == metric and all(row[name] == run[name] for name in AIMED)
        ]
        return sorted(
            rows, key=lambda row: (self._rank(row["attribute"]), row["subgroup"] == "unknown", row["subgroup"])
        )

    def advice(self, cell: Cell) -> Row | None:
        """Return the recommendation."""
        return self._advice.get(cell)

    def attributes_with_disparity(self, cell: Cell) -> list[str]:
        """Return attributes by which the audit has shown a disparity in missed disease, in the order of the config."""
        return sorted(self._unequal.get(cell, ()), key=self._rank)

    def leakage(self, cell: Cell) -> list[Row]:
        """Return scores of fresh probes before and after, of a task and of strategies without a task."""
        return [*self._leakage.get((cell[0], ""), []), *self._leakage.get(cell, [])]

    def _rank(self, attribute: str) -> tuple[int, str]:
        names: Sequence[str] = self.audit.attributes
        return names.index(attribute) if attribute in names else len(names), attribute


def mitigated_findings(findings: pl.DataFrame, audit: Audit) -> pl.DataFrame:
    """Return findings in missed disease of the score sets that strategies are compared with: each encoder's unmitigated probe."""
    probed = findings.filter(is_logistic_on_ct(), strategy="none", metric="udr")
    return of_primary_pooling(probed, audit.fairness.primary_pooling)


def _by_cell(frame: pl.DataFrame) -> dict[Cell, list[Row]]:
    out: dict[Cell, list[Row]] = {}
    for row in frame.iter_rows(named=True):
        out.setdefault((row["encoder"], row["task"]), []).append(row)
    return out
