"""Whether the files that an audit reads changed: the cohort's tables, the images, the registry. The rest: `stale_steps.py`."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from fmaudit_core.cohort.inspect_release.release_files import locate_release
from fmaudit_core.cohort.schema import Cohort
from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.vocabulary import ACQUISITION
from fmaudit_core.config import InspectCohort
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.run_cohort import is_drawn, read_cohort
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import Step, step_of
from fmaudit_core.pipeline.versions import recorded_version
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest, frame_digest, stat_texts


def cohort_versions(cohort: Cohort) -> dict[str, str]:
    """Return the version of each table of a cohort: the digest of its content."""
    revision = step_of("cohort").revision
    return {name: digest(name, revision, frame_digest(frame)) for name, frame in cohort.tables().items()}


def slices_version(views: dict[str, str]) -> str:
    """Return the version of the slices of all views, from that of each."""
    return digest("ct_slices", step_of("ct_slices").revision, views)


def acquisition_version(acquisition: pl.DataFrame) -> str:
    """Return the version of the facts of headers: the digest of their content."""
    return digest(ACQUISITION, step_of(ACQUISITION).revision, frame_digest(acquisition))


def source_changed(look: Snapshot, step: Step) -> bool:
    """Return whether the cohort's tables or images differ from what was published; reads the tables, and looks at every image.

    Raises
    ------
    CohortError
        The cohort's tables are wrong.
    """
    if step.name == "cohort":
        if not is_drawn(look.workspace):
            return True
        expected = cohort_versions(read_cohort(look.workspace))
        return any(recorded_version(look, step, name) != version for name, version in expected.items())
    want = slices_version(look.view_versions())
    recorded = {name: recorded_version(look, step, name) for name in step.tables}
    # the facts of headers follow from the same images; their version is that of their content
    lost = recorded.pop(ACQUISITION) is None
    return lost or any(version != want for version in recorded.values()) or not _slices_are_there(look)


def _slices_are_there(look: Snapshot) -> bool:
    """Whether no entry of the store was lost since the quality table was written; true if none are kept."""
    if not look.workspace.slices.keep:
        return True
    quality = look.workspace.warehouse.read("slice_quality")
    used = quality.filter("used").get_column("study_id").to_list()
    return all(look.workspace.slices.has(study, view) for study in used for view in look.views_seen().values())


def source_fingerprint(workspace: Workspace) -> str:
    """Return a digest of names, sizes and times of the cohort's tables; no table is read."""
    cohort = workspace.audit.cohort
    if (table := workspace.table_in_bucket) is not None:
        return digest(cohort, table[0].tag(table[1]))
    if not isinstance(cohort, InspectCohort):
        return digest(cohort, list(stat_texts([workspace.table.table])))
    try:
        names = workspace.bucket_images.names() if workspace.images_in_bucket else None
        release = locate_release(cohort.root, images=cohort.images, listed=names)
    except FmauditError as error:
        return digest(cohort, str(error))
    tables = (release.labels, release.splits, release.mapping, release.series, release.descriptions)
    return digest(cohort, list(stat_texts(path for path in tables if path is not None)))


def fingerprint(workspace: Workspace, usable: Iterable[EncoderSpec]) -> str:
    """Return a digest of all that `next_steps` depends on, by names, sizes and times of files, and ETags of objects."""
    made_of = [path for spec in usable for path in spec.located_files()]
    registry = workspace.audit.encoders.glob("*.y*ml")
    seen = sorted([*stat_texts([workspace.audit_yaml, *registry, *made_of]), *workspace.root.seen()])
    return digest(seen, None if workspace.warehouse.version("studies") else source_fingerprint(workspace))


def usable_specs(registry: Registry) -> tuple[dict[str, EncoderSpec], dict[str, EncoderSpec], dict[str, str]]:
    """Return all registered specs; of them those whose checkpoint, or file of embeddings, is there; and what is wrong
    with every other file or encoder, by its name.

    A checkpoint is not read: the step that loads it proves its SHA-256.
    """
    specs, problems = registry.read()
    for name, spec in specs.items():
        try:
            spec.located_files()
        except EncoderError as error:
            problems[name] = str(error)
    return specs, {name: spec for name, spec in specs.items() if name not in problems}, problems
