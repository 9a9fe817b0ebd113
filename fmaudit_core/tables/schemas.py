"""Every published table, declared once: its columns, their types and meanings, its key.

Used where a table is published (`storage/warehouse.py`), in the UI's column descriptions, and in the documentation.
"""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables import cohort, ehr, encoders, fairness, findings, mitigation, probes
from fmaudit_core.tables.table import Table, TableError

#: name -> table, in the order of the asset graph
TABLES: Final[dict[str, Table]] = {
    table.name: table
    for module in (cohort, ehr, encoders, probes, fairness, mitigation, findings)
    for table in vars(module).values()
    if isinstance(table, Table)
}


def declared(name: str) -> Table:
    """Return the declaration of a table.

    Raises
    ------
    TableError
        The table is not declared.
    """
    if name not in TABLES:
        raise TableError(f"table {name} is not declared.", fix="Declare it in a module of fmaudit_core/tables.")
    return TABLES[name]
