"""Titles of models and of the cohort's steps. Those of metrics, tasks and attributes: `common/formatting.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fmaudit_core.common.formatting import spaced, task_title
from fmaudit_core.common.vocabulary import TASK_TITLES
from fmaudit_core.encoders.pooling import GIVEN, VOLUME

_POOLING_TITLES: Final = {VOLUME: "whole volume", GIVEN: "pooling as given"}
_MODALITY_TITLES: Final = {"ct": "CT", "ehr": "record", "ct+ehr": "CT and record"}


def variant_title(variant: Mapping[str, str]) -> str:
    """Return probe, modality, pooling and strategy in a few words; those that predictions came without are left out."""
    wording = {
        "probe": f"{spaced(variant['probe'])} probe",
        "modality": _MODALITY_TITLES.get(variant["modality"], variant["modality"]),
        "pooling": _POOLING_TITLES.get(variant["pooling"], f"{variant['pooling']} pooling"),
    }
    known = variant["probe"] != "given"
    parts = [text for name, text in wording.items() if known or variant[name] != "given"]
    if variant["strategy"] not in ("", "none"):
        parts.append(f"mitigation: {spaced(variant['strategy']).lower()}")
    return ", ".join(parts)


def step_title(step: str, titles: Mapping[str, str]) -> str:
    """Return a step of the cohort flow, the task in it by its title."""
    head, colon, task = step.partition(": ")
    known = task in titles or task in TASK_TITLES
    wording = f"{head}: {task_title(task, titles)}" if colon and known else step
    return wording[:1].upper() + wording[1:]
