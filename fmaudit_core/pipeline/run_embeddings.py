"""The embeddings of one encoder of a workspace: computed from its slices, or taken from the file its spec names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.encoders.extract import ExtractionResult, extract
from fmaudit_core.encoders.imported import import_embeddings
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.versions import expected_version, is_fresh
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import Cell

#: encoders that are in the memory of a process, or of a GPU, at the same time
MOST_TOGETHER: Final = 4


def read_together(look: Snapshot, encoder: str) -> dict[str, str]:
    """Return other encoders whose embeddings are not up to date either, with their versions to be, if slices are not kept.

    Their shards are made along with those of `encoder`, so that the CT of each study is read once. None for embeddings that were
    computed elsewhere: nothing is read for them, and the part `imaging` may not be installed.
    """
    if not look.encoders[encoder].sees_images or look.workspace.slices.keep:
        return {}
    step, found = step_of("study_embeddings"), dict[str, str]()
    for name, spec in look.encoders.items():
        if name != encoder and spec.sees_images and spec.embeds and len(found) < MOST_TOGETHER - 1:
            with suppress(FmauditError):  # which the step of that encoder reports
                if not is_fresh(look, step, Cell(name)):
                    found[name] = expected_version(look, step, Cell(name))
    return found


def embed(
    workspace: Workspace,
    encoder: str,
    *,
    version: str,
    together: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> ExtractionResult:
    """Publish one registered encoder's embeddings of all studies it can embed.

    Parameters
    ----------
    version : str
        Digest of their inputs; see `versions.expected_version`.
    together : mapping of encoder to version, optional
        Other registered encoders, see `read_together`; nothing of them is published.

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
            also=[(workspace.registry.spec(name), of) for name, of in (together or {}).items()],
            progress=progress,
        )
