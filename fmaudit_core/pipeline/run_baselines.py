"""Baselines of one audit on disk: models that are audited by their predictions alone. Their files: `probes/baseline.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import polars as pl
import yaml

from fmaudit_core.common.errors import FmauditError, did_you_mean
from fmaudit_core.common.vocabulary import TASKS
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.errors import PredictionsFileError
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import PREDICTIONS, EncoderSpec, PredictionsFile, load_spec
from fmaudit_core.fairness.thresholds import with_thresholds
from fmaudit_core.pipeline.run_cohort import is_drawn, read_cohort
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.baseline import BaselineScores, baseline_scores, tasks_in
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.warehouse import Cell

#: the ending of INSPECT's own files: where a task stands before it, the model has no name of its own
_RELEASE_NAME: Final = re.compile(r"(?i)(.+?)_?pred(iction)?s?(_proba)?$")
#: tasks as INSPECT's evaluator calls them
_EVALUATED: Final = {
    "mort_1m": "mortality_1m", "mort_6m": "mortality_6m", "mort_12m": "mortality_12m",
    "read_1m": "readmission_1m", "read_6m": "readmission_6m", "read_12m": "readmission_12m",
    "ph_12m": "pulmonary_hypertension_12m", "12_month_ph": "pulmonary_hypertension_12m",
}  # fmt: skip


def score_baseline(workspace: Workspace, cell: Cell) -> BaselineScores:
    """Scores of one baseline and task, with the threshold that validation gives, or none where the file has no validation.

    Raises
    ------
    PredictionsFileError
        See `probes.baseline.baseline_scores`.
    """
    warehouse = workspace.warehouse
    file = workspace.registry.spec(cell.encoder).predictions_of(cell.task)
    studies, labels = warehouse.read("studies"), warehouse.read("labels")
    found = baseline_scores(file, studies, labels, baseline=cell.encoder)
    if found.has_threshold:
        return replace(found, scores=with_thresholds(found.scores, workspace.audit.fairness))
    return replace(found, scores=found.scores.with_columns(threshold=pl.lit(None, dtype=pl.Float64)))


def add_baseline(
    workspace: Workspace, path: Path, *, name: str | None = None, task: str | None = None
) -> dict[str, BaselineScores]:
    """Validate a file of predictions and register its model; a model that is there gets the file for its task.

    Parameters
    ----------
    name : str, optional
        Name of the model, else that of the file.
    task : str, optional
        Needed where neither a column `task` nor the file's name tells it, and the audit has several.

    Returns
    -------
    How it was joined, by task

    Raises
    ------
    FmauditError
        The cohort has not been drawn; the name is an encoder's; the task is none of the audit's.
    PredictionsFileError
        See `probes.baseline.baseline_scores`.
    """
    if not path.is_file():
        raise PredictionsFileError("there is no such file.", where=str(path))
    named = _named(name or _release_part(path.stem, workspace.audit.tasks)[1] or path.stem)
    before = _registered(workspace, named)
    studies, labels = _cohort(workspace)
    sha256 = sha256_of(path)
    files = [
        PredictionsFile(path=path.absolute(), sha256=sha256, task=one)
        for one in ([task] if task else _tasks(path, workspace.audit.tasks))
    ]
    for one in files:
        if one.task not in workspace.audit.tasks:
            raise FmauditError(
                f"the audit has no task {did_you_mean(one.task, workspace.audit.tasks)}; it has "
                f"{', '.join(workspace.audit.tasks)}.",
                where=path.name, fix="Name one of them with --task.",
            )  # fmt: skip
    found = {one.task: baseline_scores(one, studies, labels, baseline=named) for one in files}
    kept = [one for one in (before.predictions if before else ()) if one.task not in found]
    _write_spec(
        workspace, named, before.title if before else name or named, sorted([*kept, *files], key=lambda one: one.task)
    )
    return found


def _cohort(workspace: Workspace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Studies and labels as they were published, else as they are read now."""
    warehouse = workspace.warehouse
    if warehouse.version("studies") is not None and warehouse.version("labels") is not None:
        return warehouse.read("studies"), warehouse.read("labels")
    if not is_drawn(workspace):
        raise FmauditError(
            "the phantom cohort has not been drawn, so predictions cannot be joined to it.",
            where=str(workspace.audit_yaml), fix="Run `fmaudit run` first.",
        )  # fmt: skip
    read = read_cohort(workspace)
    return read.studies, read.labels


def _registered(workspace: Workspace, name: str) -> EncoderSpec | None:
    """Return the baseline that already has the name, None if there is none.

    Raises
    ------
    FmauditError
        An encoder has it.
    """
    there = workspace.registry.specs().get(name)
    if name in shipped_specs() or (there is not None and there.embeds):
        raise FmauditError(f"{name} is the name of an encoder.", fix="Give the baseline another with --name.")
    return there


def _tasks(path: Path, audited: Sequence[str]) -> list[str]:
    """Tasks that a file is about: of its own column, of its name, or the audit's only one."""
    own = tasks_in(path)
    if own:
        return own
    named = _release_part(path.stem, audited)[0]
    if named in audited:
        return [named]
    if len(audited) == 1:
        return list(audited)
    raise PredictionsFileError(
        "neither a column `task` nor the file's name tells which task it is about.", where=path.name,
        fix=f"Name it with --task; the audit has {', '.join(audited)}.",
    )  # fmt: skip


def _release_part(stem: str, tasks: Sequence[str]) -> tuple[str, str]:
    """Task in the name of one of INSPECT's files, and the name of the model that such a file leaves; empty where it is none."""
    found = _RELEASE_NAME.fullmatch(stem)
    named = found[1].lower() if found else ""
    task = _EVALUATED.get(named, named)
    return (task, "baseline") if task in (*tasks, *TASKS) else ("", "")


def _named(text: str) -> str:
    """Return a name that is a valid partition key."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")[:64] or "baseline"


def _write_spec(workspace: Workspace, name: str, title: str, files: Sequence[PredictionsFile]) -> None:
    content: dict[str, Any] = {
        "name": name,
        "title": title,
        "adapter": PREDICTIONS,
        "predictions": [{"task": one.task, "path": str(one.path), "sha256": one.sha256} for one in files],
    }
    target = workspace.audit.encoders / f"{name}.yaml"
    with written_beside(target) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    load_spec(target)
