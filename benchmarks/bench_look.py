"""One look at a workspace of 20 encoders and 8 tasks, all of it fresh: what a tick of the sensor costs.

    python benchmarks/bench_look.py

Every table of every step is published, without rows, with the version it should have: about 3,000 files. Dagster's records are
not part of it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fmaudit_core.config import Audit, PhantomCohort
from fmaudit_core.encoders.registry import Registry, shipped_specs
from fmaudit_core.pipeline.changed_sources import fingerprint, usable_specs
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import next_steps
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.tables.schemas import TABLES
from tests.pipeline.published import publish_all

N_ENCODERS, LIMIT_S = 20, 2.0
STUDY = {
    "patient_id": "p",
    "split": "test",
    "age": 50,
    "age_band": "40-55",
    "sex": "female",
    "race_ethnicity": "nh_white",
}
STUDIES = TABLES["studies"].frame([STUDY | {"study_id": str(at), "image_path": str(at)} for at in range(23_248)])


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        workspace = audited(Path(scratch))
        start, busy = time.perf_counter(), time.process_time()
        specs, usable, _ = usable_specs(workspace.registry)
        fingerprint(workspace, usable.values())
        seen = time.perf_counter() - start
        found = next_steps(
            Snapshot(workspace, specs), encoders=list(usable), tasks=workspace.audit.tasks, is_running=lambda _: False,
            failure_reason=lambda _: None,
        )  # fmt: skip
        took, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"nothing changed: {seen:.2f} s; stale steps: {len(found.steps)}")
    print(f"whole look: {took:.2f} s, of processor time {busy:.2f} s (limit {LIMIT_S} s)")
    return int(busy > LIMIT_S or not found.idle)


def audited(folder: Path) -> Workspace:
    """Build a workspace in which every step is fresh."""
    registry = folder / "encoders"
    registry.mkdir()
    text = shipped_specs()["hu_histogram"].read_text()
    for at in range(N_ENCODERS):
        (registry / f"e{at}.yaml").write_text(text.replace("name: hu_histogram", f"name: e{at}"))
    audit = Audit(cohort=PhantomCohort(kind="phantom"), home=folder / "home", encoders=registry)
    workspace, specs = Workspace(audit=audit, audit_yaml=folder / "audit.yaml"), Registry(registry).specs()
    if workspace.record is not None:
        workspace.record.path.parent.mkdir(parents=True)
        workspace.record.path.touch()
    publish_all(workspace, specs, frames={"studies": STUDIES})
    return workspace


if __name__ == "__main__":
    sys.exit(main())
