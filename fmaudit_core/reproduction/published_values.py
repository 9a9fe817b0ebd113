"""Values published in a paper, as data with their source: facts, not text. For this audit's values see `our_values.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fmaudit_core.common.vocabulary import TASKS

#: the encoders audited in the paper: a figure that names none applies to each of them
ENCODERS: Final = ("medimageinsight", "medsiglip", "biomedclip")
#: the paper's name for all tasks except the diagnosis
_PROGNOSTIC: Final = "all seven prognostic tasks"
#: the paper's names of strategies that differ from fmaudit's
_STRATEGIES: Final[Mapping[str, str]] = {"group_resampling": "resampling", "importance_weighting": "reweighting"}
#: quantities that apply to each of its encoders, whether or not a figure names them
_OF_ENCODERS: Final = ("auroc", "udr", "udr_gap", "auroc_difference_test")


@dataclass(frozen=True)
class Figure:
    """One published figure, of one encoder and task if it applies to any.

    Parameters
    ----------
    low, high : float, optional
        The published value or range; one end alone is a bound.
    stated : Any
        A value that is not a number: a list of settings, or whether a statement holds.
    p, p_relation : the published p-value
    model : a model that is not an encoder
    probe : the probe of a setting
    """

    id: str
    where: str
    quantity: str
    encoder: str = ""
    task: str = ""
    attribute: str = ""
    subgroup: str = ""
    strategy: str = ""
    target_attribute: str = ""
    alpha: float | None = None
    model: str = ""
    probe: str = ""
    low: float | None = None
    high: float | None = None
    stated: Any = None
    p: float | None = None
    p_relation: str = ""

    @property
    def text(self) -> str:
        """Return the figure as it was published."""
        if self.low is not None or self.high is not None:
            ends = [one for one in (self.low, self.high) if one is not None]
            ends_shown = " to ".join(f"{one:g}" for one in dict.fromkeys(ends))
            return f"up to {ends_shown}" if self.low is None else ends_shown
        if self.p is not None:
            return f"p {self.p_relation} {self.p:g}"
        if isinstance(self.stated, bool):
            return "stated" if self.stated else "denied"
        return json.dumps(self.stated)


@cache
def _resource() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        files("fmaudit_core.reproduction").joinpath("figures.json").read_text(encoding="utf-8")
    )
    return loaded


def citation() -> str:
    """Return the citation of the paper."""
    return str(_resource()["citation"])


def published() -> list[Figure]:
    """Return every figure as published, in its order."""
    return [_figure(raw) for raw in _resource()["figures"]]


def claims() -> list[Figure]:
    """Return every figure once for each encoder and task that it applies to."""
    return [one for raw in _resource()["figures"] for one in _expanded(raw)]


def _figure(raw: Mapping[str, Any]) -> Figure:
    value = raw.get("value")
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    strategy = str(raw.get("strategy", ""))
    names = (
        "id", "where", "quantity", "encoder", "task", "attribute", "subgroup", "target_attribute", "alpha", "model", "probe",
        "p", "p_relation",
    )  # fmt: skip
    return Figure(
        **{name: raw[name] for name in names if name in raw},
        strategy=_STRATEGIES.get(strategy, strategy),
        low=raw.get("low") if number is None else number,
        high=raw.get("high") if number is None else number,
        stated=value if number is None else None,
    )


def _expanded(raw: Mapping[str, Any]) -> Iterator[Figure]:
    figure = _figure(raw)
    tasks = raw.get("tasks", [figure.task])
    if tasks == _PROGNOSTIC:
        tasks = TASKS[1:]
    named = raw.get("encoders") or ([figure.encoder] if figure.encoder or figure.model else [])
    if not named and figure.quantity in _OF_ENCODERS:
        named = ENCODERS
    if figure.quantity == "auroc_difference_test":
        named = ENCODERS
    for encoder in named or [""]:
        for task in tasks:
            yield replace(figure, encoder=encoder, task=task)
