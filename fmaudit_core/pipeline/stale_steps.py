"""What is missing or stale, level by level. A level's expected versions read what the level above it recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.run_cohort import is_drawn, read_cohort
from fmaudit_core.pipeline.versions import COHORT_TABLES, FAIRNESS_TABLES, Versions, embeddings_version
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import WHOLE, Cell

#: assets of one level can be made once every level before it is fresh
LEVELS: tuple[tuple[str, ...], ...] = (
    COHORT_TABLES,
    ("ct_slices",),
    ("study_embeddings",),
    ("probe_fits",),
    ("ehr_features",),
    ("ehr_fits",),
    ("fusion_fits",),
    ("neural_fits",),
    ("probe_predictions", *FAIRNESS_TABLES),
    ("demographic_probes",),
    ("mitigation_scores",),
    ("mitigation_results",),
    ("mitigation_capacity",),
    ("audit_findings",),
    ("audit_report",),
)

#: the table an asset publishes, where it has another name
_TABLE_OF = {"ct_slices": "slice_quality", "audit_report": "report_files"}

#: (asset, cell) -> version it was last made with, None if never
Recorded = Callable[[str, Cell], str | None]


@dataclass(frozen=True)
class Step:
    """Assets of one level to make for one cell."""

    assets: tuple[str, ...]
    cell: Cell
    #: digest of what its assets should be made of
    version: str = ""

    @property
    def name(self) -> str:
        """What it is, whichever of its assets are stale: first asset of its level, encoder, task."""
        level = next(level[0] for level in LEVELS if self.assets[0] in level)
        return "/".join(part for part in (level, self.cell.encoder, self.cell.task) if part)


def recorded_in_warehouse(workspace: Workspace) -> Recorded:
    """Versions as the published files themselves tell them."""

    def recorded(asset: str, cell: Cell) -> str | None:
        if asset == "study_embeddings":
            return embeddings_version(workspace.warehouse.embeddings_path(cell.encoder))
        return workspace.warehouse.version(_TABLE_OF.get(asset, asset), cell)

    return recorded


def stale_steps(
    workspace: Workspace,
    level: Sequence[str],
    *,
    recorded: Recorded,
    encoders: Mapping[str, EncoderSpec],
    only_encoders: Sequence[str],
    only_tasks: Sequence[str],
) -> list[Step]:
    """Steps of one level whose recorded version is not the expected one.

    Parameters
    ----------
    level : sequence of str
        One of `LEVELS`; the levels before it are fresh for the encoders given.
    recorded : Recorded
        What was last made; see `recorded_in_warehouse`.
    encoders : mapping of name to EncoderSpec
        All registered encoders: they decide what the slices and the findings hold.
    only_encoders, only_tasks : sequence of str
        The partitions to look at.
    """
    versions = Versions(workspace, encoders)
    first = level[0]
    if first == "studies":
        return _stale_cohort(workspace, versions, recorded)
    if first == "ct_slices":
        return _stale_slices(workspace, versions, recorded)
    # a baseline comes with its predictions: nothing is embedded, fitted or mitigated
    embedding = [name for name in only_encoders if encoders[name].embeds]
    if first in ("study_embeddings", "probe_fits"):
        expected = versions.study_embeddings if first == "study_embeddings" else versions.probe_fits
        wanted = {Cell(name): expected(name) for name in embedding}
        return [Step((first,), cell, want) for cell, want in wanted.items() if recorded(first, cell) != want]
    if first in ("ehr_features", "ehr_fits", "fusion_fits"):
        return _stale_record(first, versions, recorded, embedding)
    if first == "neural_fits":
        wanted = {Cell(name): versions.neural_fits(name) for name in embedding if versions.network_kinds(name)}
        return [Step((first,), cell, want) for cell, want in wanted.items() if recorded(first, cell) != want]
    if first == "probe_predictions":
        cells = [Cell(name, task) for name in only_encoders for task in encoders[name].tasks_of(only_tasks)]
        steps = [_stale_cell(cell, versions, recorded) for cell in cells]
        return [step for step in steps if step.assets]
    if first.startswith(("demographic", "mitigation")):
        return _stale_mitigation(first, versions, recorded, embedding, only_tasks)
    if first == "audit_findings":
        want = versions.audit_findings()
        fresh = not versions.audited_cells() or (
            recorded(first, WHOLE) == want
            and all(workspace.warehouse.version(name) == want for name in ("model_comparisons", "modality_comparisons"))
        )
        return [] if fresh else [Step((first,), WHOLE, want)]
    want = versions.audit_report()
    fresh = recorded("audit_findings", WHOLE) is None or (
        recorded(first, WHOLE) == want and (workspace.reports / PAGE).exists()
    )
    return [] if fresh else [Step((first,), WHOLE, want)]


def _stale_cohort(workspace: Workspace, versions: Versions, recorded: Recorded) -> list[Step]:
    if not is_drawn(workspace):
        return [Step(COHORT_TABLES, WHOLE, "drawn")]
    expected = versions.cohort(read_cohort(workspace))
    step = Step(COHORT_TABLES, WHOLE, digest(expected))
    return [step] if any(recorded(name, WHOLE) != expected[name] for name in COHORT_TABLES) else []


def _stale_slices(workspace: Workspace, versions: Versions, recorded: Recorded) -> list[Step]:
    if not versions.views_seen():
        return []
    studies = workspace.warehouse.read("studies")
    expected = versions.ct_slices(versions.views(studies))
    fresh = recorded("ct_slices", WHOLE) == expected and _slices_are_there(workspace, versions)
    return [] if fresh else [Step(("ct_slices",), WHOLE, expected)]


def _slices_are_there(workspace: Workspace, versions: Versions) -> bool:
    """Whether no entry of the store was lost since the quality table was written."""
    quality = workspace.warehouse.read("slice_quality")
    used = quality.filter("used").get_column("study_id").to_list()
    return all(workspace.slices.has(study, view) for study in used for view in versions.views_seen().values())


def _stale_record(asset: str, versions: Versions, recorded: Recorded, only_encoders: Sequence[str]) -> list[Step]:
    """Steps on the medical record, none where there is none or the audit leaves it out."""
    if versions.workspace.record is None:
        return []
    if asset == "fusion_fits":
        fused = [name for name in only_encoders if asset in dict(queries.score_tables(versions.workspace, name))]
        wanted = {Cell(name): versions.fusion_fits(name) for name in fused}
    else:
        wanted = {WHOLE: versions.ehr_features() if asset == "ehr_features" else versions.ehr_fits()}
    return [Step((asset,), cell, want) for cell, want in wanted.items() if recorded(asset, cell) != want]


def _stale_mitigation(
    asset: str, versions: Versions, recorded: Recorded, only_encoders: Sequence[str], only_tasks: Sequence[str]
) -> list[Step]:
    if not versions.workspace.audit.mitigation.enabled:
        return []
    if asset == "mitigation_capacity":
        wanted = {WHOLE: versions.mitigation_capacity()} if versions.mitigated_cells() else {}
    elif asset == "mitigation_results":
        cells = [Cell(name, task) for name in only_encoders for task in only_tasks]
        wanted = {cell: versions.mitigation_results(cell) for cell in cells}
    else:
        expected = versions.demographic_probes if asset == "demographic_probes" else versions.mitigation_scores
        wanted = {Cell(name): expected(name) for name in only_encoders}
    return [Step((asset,), cell, want) for cell, want in wanted.items() if recorded(asset, cell) != want]


def _stale_cell(cell: Cell, versions: Versions, recorded: Recorded) -> Step:
    scores, statistics = versions.probe_predictions(cell), versions.fairness(cell)
    expected = {"probe_predictions": scores} | dict.fromkeys(FAIRNESS_TABLES, statistics)
    assets = tuple(name for name, version in expected.items() if recorded(name, cell) != version)
    return Step(assets, cell, digest(scores, statistics))
