"""What a command line is about to make, told before its run is in Dagster's records.

A tick of the sensor reads claims when it starts; the command line claims a step, lets a tick that started before end, and only
then looks whether the step is at work. So neither starts what the other has just decided to start.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from fmaudit_core.lineage import digest
from fmaudit_core.plan import Step
from fmaudit_core.publish import written_beside
from fmaudit_core.workspace import Workspace
from fmaudit_dagster.instance import this_process
from fmaudit_dagster.partitions import partition_key

#: name of the sensor whose ticks ask for steps
LANDING_SENSOR = "registry_sensor"
#: seconds a claim holds: by then its run stands in the records, or its process was killed
_HOLDS_S = 60.0


@contextmanager
def claimed(workspace: Workspace, instance: dg.DagsterInstance, step: Step) -> Iterator[None]:
    """Claim a step; on return no tick is at work that has not seen the claim."""
    path = workspace.home / "claims" / f"{digest(this_process(), step.name)}.json"
    key = str(partition_key(step.cell) or "")
    with written_beside(path, durable=False) as beside:
        beside.write_text(json.dumps([[asset, key] for asset in step.assets]), encoding="utf-8")
    try:
        _outlast_ticks(instance)
        yield
    finally:
        path.unlink(missing_ok=True)


def claims(workspace: Workspace) -> frozenset[tuple[str, str]]:
    """Assets and partitions that are claimed now."""
    found = []
    for path in (workspace.home / "claims").glob("[!.]*.json"):
        try:
            if time.time() - path.stat().st_mtime < _HOLDS_S:
                found += [(asset, key) for asset, key in json.loads(path.read_text(encoding="utf-8"))]
        except FileNotFoundError:  # given up meanwhile
            continue
    return frozenset(found)


def stale_claims(workspace: Workspace) -> list[Path]:
    """Files of claims that hold no longer: their processes were killed."""
    found = (workspace.home / "claims").glob("[!.]*.json")
    return sorted(path for path in found if time.time() - path.stat().st_mtime >= _HOLDS_S)


def _outlast_ticks(instance: dg.DagsterInstance) -> None:
    """Wait until the sensor's tick of this moment has ended; one that outlasts a claim was killed."""
    started = time.time()
    states = [state for state in instance.all_instigator_state() if state.instigator_name == LANDING_SENSOR]
    for state in states:
        while _is_ticking(instance, state.instigator_origin_id, state.selector_id, started):
            time.sleep(0.1)


def _is_ticking(instance: dg.DagsterInstance, origin_id: str, selector_id: str, started: float) -> bool:
    ticks = instance.get_ticks(origin_id, selector_id, before=started, after=time.time() - _HOLDS_S, limit=1)
    return any(tick.status.value == "STARTED" for tick in ticks)
