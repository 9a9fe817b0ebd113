"""Where a step has nothing to make: every condition has its reason, and what will have something is never called empty."""

from __future__ import annotations

import pytest

from fmaudit_core.config import Audit, PhantomCohort
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.pipeline.empty_cells import REASONS, empty_cells, why_empty
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import STEPS, _always, step_of
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell

BASELINE = f"name: rival\nadapter: predictions\npredictions: [{{task: pe, path: rival.csv, sha256: '{'1' * 64}'}}]\n"


@pytest.fixture
def look(tmp_path):
    """An empty workspace with a control and a model that is audited by its predictions."""

    (tmp_path / "rival.yaml").write_text(BASELINE)

    def of(**settings):
        audit = Audit(
            cohort=PhantomCohort(kind="phantom"), home=tmp_path / "home", tasks=("pe", "mortality_12m"), **settings
        )
        encoders = {
            "hu_histogram": load_spec(shipped_specs()["hu_histogram"]),
            "rival": load_spec(tmp_path / "rival.yaml"),
        }
        return Snapshot(Workspace(audit, tmp_path / "audit.yaml"), encoders)

    return of


def test_every_condition_has_its_reason():
    assert {step.when for step in STEPS} - {_always} == set(REASONS)


def test_what_this_audit_never_makes_is_empty_with_its_reason(look):
    found = {(step.name, cell): why for step, cell, why in empty_cells(look(mitigation={"enabled": False}))}
    assert "a control has the linear probe only" in found["neural_fits", Cell("hu_histogram")]
    assert found["study_embeddings", Cell("rival")] == "this is a baseline: it has predictions and no embeddings."
    assert found["probe_predictions", Cell("rival", "mortality_12m")] == "this model is not audited on this task."
    assert found["adjusted_gaps", Cell("hu_histogram", "pe")] == "audit.yaml declares no covariates."
    assert ("mitigation_capacity", WHOLE) in found
    assert all(why.endswith(".") for why in found.values())


def test_what_is_still_to_be_made_is_not_empty(look):
    now = look()
    for name, cell in (
        ("cohort", WHOLE), ("study_embeddings", Cell("hu_histogram")), ("probe_predictions", Cell("rival", "pe")),
        ("mitigation_capacity", WHOLE), ("audit_findings", WHOLE), ("audit_report", WHOLE),
    ):  # fmt: skip
        assert why_empty(now, step_of(name), cell) is None, name
