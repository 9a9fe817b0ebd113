"""The disclosed tables and what looks them up, made once for all that is written of one audit."""

from __future__ import annotations

from dataclasses import dataclass

from fmaudit_core.report.disclosure.disclosure import Disclosed, disclose
from fmaudit_core.report.index.mitigation_index import Ledger
from fmaudit_core.report.index.score_set_index import Book
from fmaudit_core.report.input.report_input import ReportInput


@dataclass(frozen=True)
class Lookups:
    """What may be shown.

    Parameters
    ----------
    tables : Disclosed
    book : Book
    ledger : Ledger
        Of mitigation.
    """

    tables: Disclosed
    book: Book
    ledger: Ledger


def looked_up(inputs: ReportInput) -> Lookups:
    """Disclose the tables of an audit and look them up."""
    tables = disclose(inputs)
    return Lookups(tables, Book(inputs, tables), Ledger(inputs.audit, tables))
