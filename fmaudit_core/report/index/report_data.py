"""The disclosed tables and what looks them up, made once for all that is written of one audit."""

from __future__ import annotations

from dataclasses import dataclass

from fmaudit_core.report.disclosure.disclosure import Disclosed, disclose
from fmaudit_core.report.index.mitigation_index import MitigationIndex
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.input.report_input import ReportInput


@dataclass(frozen=True)
class ReportData:
    """What may be shown.

    Parameters
    ----------
    tables : Disclosed
    index : ScoreSetIndex
    mitigation_index : MitigationIndex
        Of mitigation.
    """

    tables: Disclosed
    index: ScoreSetIndex
    mitigation_index: MitigationIndex


def index_report_data(inputs: ReportInput) -> ReportData:
    """Disclose the tables of an audit and look them up."""
    tables = disclose(inputs)
    return ReportData(tables, ScoreSetIndex(inputs, tables), MitigationIndex(inputs.audit, tables))
