"""The version each cell of a step should have: the digest of its declaration, inputs and settings (`steps.py`)."""

from __future__ import annotations

from typing import Any

from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import By, Columns, Settings, Step
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.warehouse import WHOLE, Cell


def expected_version(look: Snapshot, step: Step, cell: Cell = WHOLE) -> str:
    """Return the version that one cell of a step should have, given what its inputs were published with.

    An input in whose run it is made counts with the version it will have.

    Raises
    ------
    FmauditError
        An input that decides it is not published.
    """
    return look.once(("expected", step.name, cell), lambda: digest(step.name, step.revision, *_parts(look, step, cell)))


def stale_tables(look: Snapshot, step: Step, cell: Cell = WHOLE) -> list[str]:
    """Return the tables of one cell that have another version than expected, are lost or cannot be read."""
    want = expected_version(look, step, cell)
    return [table for table in step.tables_of(look, cell) if recorded_version(look, step, table, cell) != want]


def is_fresh(look: Snapshot, step: Step, cell: Cell = WHOLE) -> bool:
    """Return whether a cell of a step holds what it should: every table, and every file of the report."""
    return not stale_tables(look, step, cell) and all(file in look.report_files() for file in step.files)


def is_left_out(look: Snapshot, step: Step, name: str, cell: Cell = WHOLE) -> bool:
    """Return whether a cell of a step is made without an optional input, because what there is of it is not of today's inputs."""
    if name not in step.optional:
        return False
    source, of = step.input_steps[name], step.input_steps[name].by.cell(cell)
    want = expected_version(look, source, of)
    return any(look.version(table, of) != want for table in source.tables_of(look, of))


def recorded_version(look: Snapshot, step: Step, table: str, cell: Cell = WHOLE) -> str | None:
    """Return the version of a published table; None if it is lost, or the run history does not confirm it."""
    version, asset = look.version(table, cell), step.asset_of(table)
    if version is None or look.history is None or asset is None:
        return version
    return version if look.history(asset, cell) == version else None


def _parts(look: Snapshot, step: Step, cell: Cell) -> list[object]:
    absent = step.absent(look, cell)
    facts = [value for fact in step.facts for value in fact(look, cell)]
    inputs = [_input(look, step, one, cell) for one in step.inputs if one not in absent]
    return [*facts, *inputs, *(_setting(look, one) for one in step.settings)]


def _input(look: Snapshot, step: Step, one: str | Columns, cell: Cell) -> object:
    if isinstance(one, Columns):
        audit = look.workspace.audit
        further = (*(audit.attributes if one.attributes else ()), *(audit.covariates if one.covariates else ()))
        return look.studies(*dict.fromkeys((*one.names, *further)))
    source = step.input_steps[one]
    if step.by == By.WHOLE and source.by != By.WHOLE:
        every = source.cells(look, look.encoders, look.workspace.audit.tasks)
        return {str(of): _published(look, step, one, of) for of in every if look.version(source.tables[0], of)}
    of = source.by.cell(cell)
    made = source.when(look, of) and not is_left_out(look, step, one, of)
    return _published(look, step, one, of) if made else None


def _published(look: Snapshot, step: Step, name: str, cell: Cell) -> list[str | None]:
    source = step.input_steps[name]
    tables = source.tables_of(look, cell) if name == source.name else (name,)
    if step.with_input == name and not is_fresh(look, source, cell):
        return [expected_version(look, source, cell)] * len(tables)
    return [look.version(table, cell) for table in tables]


def _setting(look: Snapshot, asked: str | Settings) -> Any:
    """Return the value of a key of audit.yaml, or a section without some of its keys."""
    if isinstance(asked, Settings):
        return getattr(look.workspace.audit, asked.section).model_dump(mode="json", exclude=set(asked.without))
    value: Any = look.workspace.audit
    for part in asked.split("."):
        value = getattr(value, part)
    return value
