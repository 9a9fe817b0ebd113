"""The scans of an audit that an encoder's sensitivity is measured on, and the table that keeps the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from fmaudit_core.cohort.phantom.anatomy import FIELD_OF_VIEW_MM, HEIGHT_MM, draw
from fmaudit_core.cohort.phantom.plan import plan_cohort
from fmaudit_core.config import PhantomCohort
from fmaudit_core.encoders.alterations import Scan
from fmaudit_core.encoders.sensitivity import SENSITIVITY_REVISION, Sensitivity
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.encoders import ENCODER_SENSITIVITY

#: patients whose scans are altered
_PATIENTS: Final = 4
#: size of drawn scans
_SLICES: Final = 32


@dataclass(frozen=True)
class Scans:
    """Scans of different patients: of the cohort, or drawn if it was not read yet."""

    #: read, or drawn, one after another, once
    scans: Iterator[Scan]
    n: int
    source: Literal["cohort", "phantom"]
    #: digest of the choice of studies
    chosen: str


def sensitivity_scans(workspace: Workspace) -> Scans:
    """Return a few scans, the same in every call: one of each of some patients whose CT was read.

    Raises
    ------
    SliceStoreError, ImagesGoneError
        A CT cannot be read any more; raised when its turn comes.
    """
    studies = _chosen_studies(workspace)
    if len(studies) < 2:
        return Scans(_drawn(), _PATIENTS, "phantom", "")
    store = workspace.repairing_slice_store()
    return Scans((Scan(*store.volume(study)) for study in studies), len(studies), "cohort", digest(studies))


def publish_sensitivity(workspace: Workspace, spec: EncoderSpec, found: Sequence[Sensitivity], scans: Scans) -> None:
    """Publish the rows of one registered encoder, in place of those of its last check."""
    common = {"encoder": spec.name, "scans": scans.source, "spec_digest": spec.digest()}
    rows = ENCODER_SENSITIVITY.frame([common | asdict(one) for one in found])
    version = digest(ENCODER_SENSITIVITY.name, SENSITIVITY_REVISION, spec.digest(), scans.source, scans.chosen)
    workspace.warehouse.publish(ENCODER_SENSITIVITY.name, rows, version=version, cell=Cell(spec.name))


def _chosen_studies(workspace: Workspace) -> list[str]:
    """Return one study each of some patients, chosen by digests of the ids; none if no CT was read yet."""
    warehouse = workspace.warehouse
    if warehouse.version("slice_quality") is None or warehouse.version("studies") is None:
        return []
    used = warehouse.read("slice_quality").filter("used").select("study_id")
    studies = warehouse.read("studies").select("study_id", "patient_id").join(used, on="study_id", how="semi")
    of_patient: dict[str, str] = {}
    for study, patient in sorted(studies.iter_rows(), key=lambda row: hashlib.sha256(row[0].encode()).hexdigest()):
        of_patient.setdefault(patient, study)
    return list(of_patient.values())[:_PATIENTS]


def _drawn() -> Iterator[Scan]:
    """Yield scans of patients of the phantom."""
    section = PhantomCohort(kind="phantom")
    plans = {plan.patient_id: plan for plan in plan_cohort(section)}
    in_plane = FIELD_OF_VIEW_MM / section.matrix_px
    spacing = (HEIGHT_MM / (_SLICES - 1), in_plane, in_plane)
    for plan in list(plans.values())[:_PATIENTS]:
        yield Scan(draw(plan, n_slices=_SLICES, matrix_px=section.matrix_px), spacing)
