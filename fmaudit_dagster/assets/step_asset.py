"""How a step of the audit becomes assets: their specs from its declaration, its lock, retries and what it publishes."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.common.errors import missing_extra
from fmaudit_core.common.progress import Progress
from fmaudit_core.pipeline.empty_cells import why_empty
from fmaudit_core.pipeline.snapshot import Snapshot, snapshot_of
from fmaudit_core.pipeline.steps import By, Step, step_of
from fmaudit_core.pipeline.versions import expected_version, is_fresh
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.assets.cell_range import make_range
from fmaudit_dagster.assets.failures import judge
from fmaudit_dagster.configured import gpu_tags
from fmaudit_dagster.execution.run_history import FORCED_TAG, STEP_TAG, asset_history
from fmaudit_dagster.execution.step_lock import step_lock
from fmaudit_dagster.metadata import OWNERS, empty_result, made
from fmaudit_dagster.partitions import PARTITIONS, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace

#: of a disk, a mount, memory or a device that fails for a while
RETRIES = dg.RetryPolicy(max_retries=2, delay=20, backoff=dg.Backoff.EXPONENTIAL)

#: encoders that one run of a backfill encodes with, one after the other; several runs can use several GPUs
ENCODED_TOGETHER = 4

Result = dg.MaterializeResult[Any]


@dataclass(frozen=True)
class Work:
    """One cell of a step, while it is made and its lock is held."""

    context: dg.AssetExecutionContext
    step: Step
    look: Snapshot
    cell: Cell
    #: of what its inputs hold now: what changes while it is made leaves it stale; empty for a step that reads source files
    version: str

    @property
    def workspace(self) -> Workspace:
        """The audit."""
        return self.look.workspace

    def progress(self, text: str) -> Progress:
        """Return a listener for a long part of the step."""
        return progress_of(self.context, text)

    def selected(self, asset: str) -> bool:
        """Return whether an asset of the step is asked for."""
        return dg.AssetKey(asset) in self.context.selected_asset_keys

    def publish(self, frames: Mapping[str, pl.DataFrame], *, version: str = "", **metadata: Any) -> Result:
        """Publish the tables of a step with one asset, the first of the declaration last; return what it tells the UI."""
        for name in [name for name in reversed(self.step.tables) if name in frames]:
            published = self.workspace.warehouse.publish(
                name, frames[name], version=version or self.version, cell=self.cell
            )
        return made(published, frames[published.table], **metadata)

    def publish_each(
        self,
        frames: Mapping[str, pl.DataFrame],
        plots: Mapping[str, Mapping[str, Any]],
        versions: Mapping[str, str] | None = None,
    ) -> Iterator[Result]:
        """Publish those tables of a step with several assets that are asked for."""
        for name, frame in frames.items():
            if self.selected(name):
                version = versions[name] if versions else self.version
                published = self.workspace.warehouse.publish(name, frame, version=version, cell=self.cell)
                yield made(published, frame, asset=name, **plots.get(name, {}))


def step_asset(
    name: str, *, kinds: set[str], texts: Mapping[str, str] | None = None
) -> Callable[[Callable[[Work], Iterator[Result]]], dg.AssetsDefinition]:
    """Make the assets of a declared step of a generator of their results.

    Parameters
    ----------
    texts : mapping of asset to str, optional
        What each asset is; by default the docstring of the generator.
    """
    step = step_of(name)

    def declare(make: Callable[[Work], Iterator[Result]]) -> dg.AssetsDefinition:
        described = texts or {name: inspect.cleandoc(make.__doc__ or "")}
        specs = [_spec(step, asset, kinds, described[asset], make) for asset in step.assets]

        @dg.multi_asset(
            name=name,
            description=inspect.cleandoc(make.__doc__ or ""),
            specs=specs,
            partitions_def=PARTITIONS[step.by],
            can_subset=len(specs) > 1,
            pool=step.pool or None,
            op_tags=gpu_tags() if step.gpu else None,  # by which a cluster schedules it
            retry_policy=RETRIES,
            backfill_policy=_backfill_policy(step),
        )
        def run(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> Iterator[Result | dg.AssetMaterialization]:
            workspace = audit.open()
            of_cell = partial(_results, context, workspace, step, make)
            try:
                if context.has_partition_key_range:
                    yield from make_range(context, step, of_cell)
                else:
                    yield from of_cell(cell_of(context))
            except Exception as error:
                judge(context, missing_extra(error, f"the step {step.name}") or error)
                raise

        return run

    return declare


def _backfill_policy(step: Step) -> dg.BackfillPolicy | None:
    """Return how many partitions a backfill makes in one run: all of them, but a few encoders of a step that encodes.

    Steps of different policies are in different runs: an encoder that fails stops nothing that reads the others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # its interface may change; the version is pinned
        if step.by == By.WHOLE:
            return None
        encodes = step.name == "study_embeddings"
        return dg.BackfillPolicy.multi_run(ENCODED_TOGETHER) if encodes else dg.BackfillPolicy.single_run()


def _results(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    step: Step,
    make: Callable[[Work], Iterator[Result]],
    cell: Cell,
) -> Iterator[Result]:
    """Make one cell of a step while its lock is held; nothing if another run did it meanwhile."""
    with step_lock(workspace, step, cell, context.run.run_id):
        look = snapshot_of(workspace)
        if cell.encoder and cell.encoder not in look.encoders:
            workspace.registry.spec(cell.encoder)  # its error lists those that are registered
        if (why := why_empty(look, step, cell)) is not None:
            yield from (empty_result(key, why) for key in context.selected_asset_keys)
        elif (work := _work(context, look, step, cell)) is not None:
            yield from make(work)


def _work(context: dg.AssetExecutionContext, look: Snapshot, step: Step, cell: Cell) -> Work | None:
    """Return the work to do once the lock is held; None if another run did it meanwhile and the run does not force it."""
    if step.sources:
        return Work(context, step, look, cell, "")
    if STEP_TAG in context.run.tags and FORCED_TAG not in context.run.tags:
        confirmed = Snapshot(look.workspace, look.encoders, asset_history(context.instance))
        if is_fresh(confirmed, step, cell):
            return None
    return Work(context, step, look, cell, expected_version(look, step, cell))


def _spec(step: Step, asset: str, kinds: set[str], text: str, make: Callable[..., Any]) -> dg.AssetSpec:
    """Return an asset with the file and line of its code, which the UI shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # its interface may change; the version is pinned
        line = dg.LocalFileCodeReference(file_path=inspect.getfile(make), line_number=inspect.getsourcelines(make)[1])
        metadata = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[line])}
    return dg.AssetSpec(
        asset, deps=step.input_assets, group_name=step.group, kinds=kinds, owners=OWNERS, description=text, skippable=True,
        tags={"fmaudit/compute": "gpu"} if step.gpu else None, metadata=metadata,
    )  # fmt: skip
