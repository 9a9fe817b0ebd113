"""The recommendation of an encoder and task in words, of numbers as they may be shown. Which: `mitigation/recommend.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.mitigation.recommend import SEVERAL, refusal
from fmaudit_core.mitigation.runs import SHORT_TITLES, STRATEGY_TITLES
from fmaudit_core.report.index.mitigation_index import Cell, MitigationIndex, Row

TITLES: Final = {
    "recommended": "Recommended",
    "no_disparity_shown": "No disparity found",
    "none_evaluated": "Not evaluable",
    "none_narrows": "No effective strategy",
    "too_costly": "Costs too much",
    "no_gain_shown": "No gain shown",
    "levelling_down": "Levels down",
    "diverged": "Training failed",
    SEVERAL: "None recommended",
}
#: why none is recommended, where several encoders share a line
_IN_BRIEF: Final = {
    "no_disparity_shown": "The audit has shown no disparity in missed disease.",
    "none_evaluated": "No strategy could be evaluated on the subgroups that fare worse.",
    "none_narrows": "No strategy narrows the gap by more than chance explains.",
    "too_costly": "What narrows the gap lowers AUROC by more than the margin.",
    "no_gain_shown": "What narrows the gap does not help the subgroup missed most by more than chance explains.",
    "levelling_down": "What narrows the gap harms those missed least and does not help those missed most.",
    "diverged": "What narrows the gap did not stay finite in most of its runs.",
}
#: the same reasons, where not all that narrows a gap is refused for one
_OF_SOME: Final = {
    "too_costly": "costs too much AUROC",
    "no_gain_shown": "shows no gain for those missed most",
    "levelling_down": "only harms those missed least",
    "diverged": "failed to train",
}
_HARM: Final = {"udr": "in {who} it misses {more} more", "fpr": "in {who} false alarms rise by {more}"}


def short_title(run: Mapping[str, Any]) -> str:
    """Return a strategy in a word, with its coefficient if it has one."""
    name = SHORT_TITLES.get(run["strategy"], str(run["strategy"]))
    return name if run["alpha"] is None else f"{name} {run['alpha']:g}"


def strategy_title(strategy: str) -> str:
    """Return a strategy's name as a heading says it."""
    title = STRATEGY_TITLES.get(strategy, strategy)
    return title[:1].upper() + title[1:]


def run_title(run: Mapping[str, Any]) -> str:
    """Return a strategy with its coefficient, if it has one."""
    return strategy_title(run["strategy"]) + (f", alpha {run['alpha']:g}" if run["alpha"] is not None else "")


@dataclass(frozen=True)
class Advice:
    """A recommendation in words: its sentence, in brief too, and what it costs."""

    verdict: str
    title: str
    costs: Sequence[str]
    sentence: str
    brief: str


@dataclass(frozen=True)
class AdviceLine:
    """A recommendation of the summary, for the encoders that share it."""

    verdict: str
    title: str
    sentence: str
    encoders: Sequence[str]


def advice_view(mitigation_index: MitigationIndex, cell: Cell) -> Advice | None:
    """Return verdict, costs, and the sentence at length and in brief, of one encoder and task; None if nothing was mitigated."""
    row = mitigation_index.advice(cell)
    if row is None:
        return None
    verdict, title = row["verdict"], TITLES[row["verdict"]]
    if verdict != "recommended":
        brief = _several(mitigation_index, cell) if verdict == SEVERAL else _IN_BRIEF[verdict]
        return Advice(verdict, title, [], _none(mitigation_index, cell, verdict), brief)
    run = next(one for one in mitigation_index.own(cell, row["target_attribute"]) if one["strategy"] == row["strategy"])
    costs = costs_of(mitigation_index, cell, run)
    return Advice(verdict, title, costs, _recommended(run, costs), f"{_narrows(run)} {_price(costs)}")


def advice_lines(named: Sequence[tuple[str, Advice]]) -> list[AdviceLine]:
    """Return lines of a summary: one encoder at length, several in brief, encoders with one reason together."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for encoder, one in named:
        sentence = one.sentence if len(named) == 1 else one.brief
        lines.setdefault((one.verdict, one.title, sentence), []).append(encoder)
    return [AdviceLine(*line, encoders) for line, encoders in lines.items()]


def without_diverged(run: Row) -> str:
    """Return how many of its runs a strategy's numbers leave out."""
    return f"without {run['n_diverged']} of {run['n_seeds'] + run['n_diverged']} runs, which did not stay finite"


def _narrows(run: Row) -> str:
    before, after = (formatting.points(run[name], 0 if run["rounded"] else 1) for name in ("gap_before", "gap_after"))
    return (
        f"{run_title(run)}, aimed at {_attribute(run['attribute'])}, narrows the gap in missed disease from {before} to "
        f"{after} ({formatting.p_text(run['p_adjusted'], 'adjusted p')})."
    )


def _price(costs: Sequence[str]) -> str:
    return f"The price: {'; '.join(costs)}." if costs else "No tested subgroup is shown to fare worse."


def _recommended(run: Row, costs: Sequence[str]) -> str:
    wording = _narrows(run)
    if run["worst_subgroup_udr_delta"] is not None:
        fewer = formatting.points(-run["worst_subgroup_udr_delta"], 0 if run["rounded"] else 1)
        worst = vocabulary.subgroup_title(run["worst_subgroup"])
        wording += f" In {worst}, the subgroup missed most, the share missed falls by {fewer}."
    if run["n_diverged"]:
        wording += f" All this is {without_diverged(run)}."
    return f"{wording} {_auroc_moves(run['auroc_delta'])} {_price(costs)}"


def _auroc_moves(delta: float) -> str:
    if not round(delta, 3):
        return "AUROC stays as it was."
    return f"AUROC {'falls' if delta < 0 else 'rises'} by {abs(delta):.3f}."


def costs_of(mitigation_index: MitigationIndex, cell: Cell, run: Row) -> list[str]:
    """Return the subgroups a run harms beyond chance, and gaps of other attributes that it widens."""
    wording = []
    for metric, harm in _HARM.items():
        for row in mitigation_index.subgroups(cell, run, metric):
            if row["harmed"]:
                more = formatting.points(row["delta"], 0 if row["counts"] == "rounded" else 1)
                wording.append(harm.format(who=vocabulary.subgroup_title(row["subgroup"]), more=more))
    for row in mitigation_index.side_effects(cell, run):
        if row["widened"]:
            more = formatting.points(-row["reduction"], 0 if row["rounded"] else 1)
            wording.append(f"the gap by {_attribute(row['attribute'])} widens by {more}")
    return wording


def _several(mitigation_index: MitigationIndex, cell: Cell) -> str:
    """Return in brief why none is recommended if the strategies that narrow the gap are refused for several reasons."""
    reasons = {refusal(run) for run in _tried(mitigation_index, cell) if run["narrowed"]}
    wording = [words for reason, words in _OF_SOME.items() if reason in reasons]
    return f"What narrows the gap {' or '.join(wording)}."


def _tried(mitigation_index: MitigationIndex, cell: Cell) -> list[Row]:
    """Return evaluated runs aimed at the attributes by which there is a disparity."""
    return [
        run
        for name in mitigation_index.attributes_with_disparity(cell)
        for run in mitigation_index.own(cell, name)
        if run["own"]
    ]


def _none(mitigation_index: MitigationIndex, cell: Cell, verdict: str) -> str:
    unequal = mitigation_index.attributes_with_disparity(cell)
    if verdict == "no_disparity_shown" or not unequal:
        return "None is recommended: the audit has shown no disparity in missed disease."
    named = " and ".join(_attribute(one) for one in unequal)
    tried = _tried(mitigation_index, cell)
    if verdict == "none_evaluated" or not tried:
        return f"None is recommended: none could be evaluated on the subgroups by {named}."
    narrowed = [run for run in tried if run["narrowed"]]
    if verdict == "none_narrows" or not narrowed:
        known = [run["p_adjusted"] for run in tried if run["p_adjusted"] is not None]
        smallest = f" (smallest {formatting.p_text(min(known), 'adjusted p')})" if known else ""
        n = len({run["strategy"] for run in tried})
        none = f"none of the {n} strategies tried narrows" if n > 1 else "the one strategy tried does not narrow"
        wording = f"None is recommended: {none} the gap by {named} by more than chance explains{smallest}."
        wider = "; ".join(_named(run) for run in tried if run["widened"] and run["interpretable"])
        return f"{wording} Wider than before, beyond chance: {wider}." if wider else wording
    reasons = "; ".join(_against(mitigation_index, run) for run in narrowed)
    return f"None is recommended, though the gap can be narrowed: {reasons}."


def _against(mitigation_index: MitigationIndex, run: Row) -> str:
    """Return why a run that narrows a gap is not recommended."""
    head = f"{_named(run)},"
    worst, best = (vocabulary.subgroup_title(run[f"{end}_subgroup"]) for end in ("worst", "best"))
    reason = refusal(run)
    if reason == "diverged":
        return f"{head} did not stay finite in {run['n_diverged']} of {run['n_seeds'] + run['n_diverged']} runs"
    if reason == "too_costly":
        margin = formatting.margin_text("auroc", mitigation_index.audit.fairness.auroc_margin)
        return f"{head} lowers AUROC by {-run['auroc_delta']:.3f}, more than the margin of {margin}"
    if reason == "levelling_down":
        return f"{head} levels down ({best} is missed more, and {worst} no less beyond chance)"
    return f"{head} does not help {worst}, the subgroup missed most, beyond chance"


def _named(run: Row) -> str:
    coefficient = f" at alpha {run['alpha']:g}" if run["alpha"] is not None else ""
    return f"{STRATEGY_TITLES[run['strategy']]}{coefficient}, aimed at {_attribute(run['attribute'])}"


def _attribute(name: str) -> str:
    return formatting.attribute_title(name).lower()
