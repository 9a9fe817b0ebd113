"""The embeddings of one encoder of a workspace: computed from its slices, or taken from the file its spec names."""

from __future__ import annotations

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.encoders.extract import ExtractionResult, extract
from fmaudit_core.encoders.imported import import_embeddings
from fmaudit_core.pipeline.workspace import Workspace


def embed(workspace: Workspace, encoder: str, *, version: str, progress: Progress = silent) -> ExtractionResult:
    """Publish one registered encoder's embeddings of all studies it can embed.

    Parameters
    ----------
    version : str
        Digest of their inputs; see `versions.expected_version`.

    Raises
    ------
    EncoderError
        See `encoders.extract.extract` and `encoders.imported.import_embeddings`; then nothing is published.
    """
    spec = workspace.registry.spec(encoder)
    studies = workspace.usable_studies(spec)
    out = workspace.warehouse.embeddings_path(encoder)
    if not spec.sees_images:
        result = import_embeddings(spec, studies=studies, out=out, version=version)
        progress(len(studies), len(studies))
        return result
    with workspace.opened_engine() as engine:
        return extract(
            spec,
            store=workspace.repairing_slice_store(),
            studies=studies,
            work=workspace.extraction_folder,
            out=out,
            section=workspace.audit.extraction,
            version=version,
            shard_studies=workspace.audit.compute.shard_studies,
            encode=engine.encode,
            progress=progress,
        )
