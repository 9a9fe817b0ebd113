"""Which process executes a run, whether it still does, and the end of runs whose process is gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

import dagster as dg

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.storage.claims import Claim, Claims
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.leases import Lease, Leases, LeaseTimes, Lookout, repeated
from fmaudit_core.storage.processes import lives, this_process
from fmaudit_core.storage.root import Root

#: which process executes a run
PROCESS_TAG: Final = "fmaudit/process"
#: which workspace has the lease of a run: several audits may share one Dagster
WORKSPACE_TAG: Final = "fmaudit/workspace"
#: a run whose process was killed: it says nothing about the step, which is tried again
KILLED_TAG: Final = "fmaudit/killed"
#: folder of the claims of runs, next to those of steps
_RUNS: Final = "runs/"
#: of every process; tests shorten them
TIMES = LeaseTimes()
_UNDER_WAY: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@cache
def leases_of(root: Root) -> Leases:
    """Return the leases of a workspace; one object for a process, which remembers what it has seen."""
    return Leases(root.claims, _process, lives, Lookout(TIMES))


def process_tags(root: Root) -> dict[str, str]:
    """Return the tags of a run that this process executes."""
    return {PROCESS_TAG: this_process(), WORKSPACE_TAG: _workspace(root)}


@contextmanager
def run_lease(instance: dg.DagsterInstance, root: Root, run_id: str) -> Iterator[None]:
    """Hold the lease of a run, and end runs of other processes that are gone: this run may wait for their slots or claims."""
    leases, name = leases_of(root), _name(run_id)

    def end_others() -> None:
        with suppress(Exception):  # a database that does not answer now; the next look may find it again
            end_killed_runs(instance, root)

    lease = _own(leases, name, run_id)
    instance.add_run_tags(run_id, process_tags(root))
    try:
        with repeated(end_others, leases.times.watch_s):
            if lease is None:
                yield
            else:
                with leases.renewed(lease):
                    yield
    finally:
        leases.claims.remove(name)


@dataclass(frozen=True)
class Killed:
    """A run that is recorded as running although its process is gone, its claim as it was seen, and why it ended."""

    run: dg.DagsterRun
    claim: Claim
    why: str


def killed_runs(instance: dg.DagsterInstance, root: Root) -> list[Killed]:
    """Look at the runs that are recorded as running; return those whose process is gone.

    One of this machine is found at once, one of another machine after several looks, if its lease is not renewed meanwhile.
    """
    leases, runs = leases_of(root), instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
    leases.lookout.forget_others(_RUNS, {_name(run.run_id) for run in runs})
    found = (_killed(leases, run, root) for run in runs if PROCESS_TAG in run.tags)
    return [one for one in found if one is not None]


def end_killed_runs(instance: dg.DagsterInstance, root: Root) -> None:
    """Report runs whose process is gone as ended, and free their claims and slots: else the next run waits for ever."""
    leases = leases_of(root)
    for killed in killed_runs(instance, root):
        run_id = killed.run.run_id
        name = _name(run_id)
        if leases.take_over(name, killed.claim, run=run_id) is None:
            continue  # another process ends it, or its own came back
        try:
            run = instance.get_run_by_id(run_id)
            if run is not None and run.status in _UNDER_WAY:
                _free_claims(leases.claims, run_id)
                _report_ended(instance, run, killed.why)
        finally:  # where the database failed, the next look tries again
            leases.claims.remove(name)


def _report_ended(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    instance.add_run_tags(run.run_id, {KILLED_TAG: "true"})
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)


def _killed(leases: Leases, run: dg.DagsterRun, root: Root) -> Killed | None:
    name, process = _name(run.run_id), run.tags[PROCESS_TAG]
    running, claim = lives(process), leases.claims.read(name)
    if running is False:
        is_its_own = claim.holder is None or claim.holder.get("process") == process
        if not is_its_own and leases.is_held(name, claim):
            return None  # another process is ending it
        return Killed(run, claim, "Its process was killed.")
    if running or run.tags.get(WORKSPACE_TAG) != _workspace(root) or not leases.lookout.has_expired(name, claim.number):
        return None
    host = (claim.holder or {}).get("host", "another machine")
    why = (
        f"Its process on {host} did not renew its lease for {leases.times.expire_s:g} s: the machine is gone, suspended, or cut "
        "off from the workspace."
    )
    return Killed(run, claim, why)


def _own(leases: Leases, name: str, run_id: str) -> Lease | None:
    """Return the lease of a run, whoever executed it before; None if the disk takes none, which the step reports."""
    with suppress(OSError, FmauditError):
        while True:
            if (lease := leases.take_over(name, leases.claims.read(name), run=run_id)) is not None:
                return lease
    return None


def _free_claims(claims: Claims, run_id: str) -> None:
    """Free the claims of a run, so that its process, should it come back, publishes nothing more."""
    for name in list(claims.names()):
        claim = claims.read(name)
        if name != _name(run_id) and claim.holder is not None and claim.holder.get("run") == run_id:
            claims.replace(name, claim.number, None)


def _name(run_id: str) -> str:
    return f"{_RUNS}{run_id}"


def _workspace(root: Root) -> str:
    return digest(root.identity)[:12]


def _process() -> Mapping[str, str]:
    return {"process": this_process(), "host": socket.gethostname(), "pid": str(os.getpid())}
