"""The cohort an audit.yaml names. Readers: `cohort/table.py`, `cohort/inspect_release/reader.py`; a phantom is drawn first,
then read as a table. An archive of images is indexed before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from fmaudit_core.cohort.archive import Archive
from fmaudit_core.cohort.inspect_release.reader import read_inspect_cohort
from fmaudit_core.cohort.schema import Cohort
from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.common.errors import needs_extra
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import ConfigError, InspectCohort, PhantomCohort
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.atomic_write import written_beside

if TYPE_CHECKING:
    from fmaudit_core.imaging.bucket_images import BucketImages


def is_drawn(workspace: Workspace) -> bool:
    """Whether the cohort's files are there: always for a user's, once drawn for the phantom."""
    return not isinstance(workspace.audit.cohort, PhantomCohort) or workspace.table.table.exists()


def read_cohort(workspace: Workspace, *, progress: Progress = silent) -> Cohort:
    """Read and validate the cohort; a phantom that is not there yet is drawn first.

    Raises
    ------
    CohortError
        The tables, their columns, rows or image paths are wrong; says which and where.
    ImagingError
        The folder of images holds no DICOM, or cannot be read.
    StoreError
        The bucket of the table or images does not answer or refuses.
    """
    audit = workspace.audit
    if isinstance(audit.cohort, InspectCohort):
        return read_inspect_cohort(
            audit.cohort,
            tasks=audit.tasks,
            attributes=audit.cohort_attributes,
            covariates=audit.cohort_covariates,
            age_bands=audit.age_bands,
            cache=workspace.ehr_cache,
            objects=_listed_images(workspace).names() if workspace.images_in_bucket else None,
            progress=progress,
        )
    if isinstance(audit.cohort, PhantomCohort) and not is_drawn(workspace):
        with needs_extra("imaging", "drawing the phantom"):
            from fmaudit_core.cohort.phantom.writer import write_phantom
        write_phantom(
            workspace.phantom, audit.cohort, tasks=audit.tasks, progress=progress, workers=audit.imaging.workers
        )

    def archive() -> Archive:
        with needs_extra("imaging", "reading an archive of images"):
            from fmaudit_core.imaging.archive.build import update_index
        index = workspace.image_index
        update_index(index, workers=audit.imaging.workers, progress=progress)
        counts = index.counts()
        return Archive(index.studies(), counts.passed_over, counts.n_duplicates)

    def listed(names: Sequence[str]) -> Collection[str]:
        return _listed_images(workspace).find(names)

    fetch_table(workspace)
    return read_table_cohort(
        workspace.table,
        tasks=audit.tasks,
        attributes=audit.cohort_attributes,
        covariates=audit.cohort_covariates,
        age_bands=audit.age_bands,
        archive=archive,
        listed=listed if workspace.images_in_bucket else None,
    )


def _listed_images(workspace: Workspace) -> BucketImages:
    """List the images of a cohort in a bucket, and return them."""
    images = workspace.bucket_images
    images.update()
    return images


def fetch_table(workspace: Workspace) -> None:
    """Copy the table of a cohort from its bucket to this machine, if it is in one.

    Raises
    ------
    ConfigError
        The bucket does not hold it.
    """
    found = workspace.table_in_bucket
    if found is None:
        return
    bucket, name = found
    content = bucket.read(name)
    if content is None:
        raise ConfigError("does not exist.", where=f"{bucket}/{name}", fix="Correct `cohort: table:` in audit.yaml.")
    with written_beside(workspace.table.table, durable=False) as temporary:
        temporary.write_bytes(content)
