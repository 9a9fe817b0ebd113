"""Where the numbers of one encoder and task come from: the partitions of their tables in Dagster, and the runs that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

#: tables of the numbers of a score set
ORIGIN_TABLES: Final = ("subgroup_metrics", "fairness_gaps")


@dataclass(frozen=True)
class Origin:
    """A partition of a table, the run that made it, and their pages in the Dagster UI; no pages if its address is unknown."""

    table: str
    partition: str
    run: str
    partition_page: str | None
    run_page: str | None


def origins(runs: Mapping[tuple[str, str, str], str], url: str | None, encoder: str, task: str) -> Sequence[Origin]:
    """Return the partitions behind the numbers of one encoder and task; none if no run is known.

    Parameters
    ----------
    runs : mapping of (table, encoder, task) to the id of a run
    url : str or None
        Address of the Dagster UI, without a slash at its end.
    """
    partition = f"{encoder}|{task}"
    return [
        Origin(
            table,
            partition,
            run,
            partition_page=url and f"{url}/assets/{table}?view=partitions&partition={quote(partition, safe='')}",
            run_page=url and f"{url}/runs/{quote(run, safe='')}",
        )
        for table in ORIGIN_TABLES
        if (run := runs.get((table, encoder, task))) is not None
    ]
