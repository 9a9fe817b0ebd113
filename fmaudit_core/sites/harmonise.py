"""Whether the summaries of several sites are of the same thing: each difference is an error with a name."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from fmaudit_core.common.formatting import attribute_title
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.summary_file import AssessedModel, Comparison, SiteSummary

#: differences that a pooled page may be made with; it then says so
ACCEPTABLE: Final = ("probe_differs", "label_source_differs", "same_patients_possible")
#: subgroups with equal counts that make two files suspicious
_ALIKE: Final = 2
_RANGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*[-\u2013]\s*(\d+(?:\.\d+)?)|over_(\d+)")


def harmonised(sites: Sequence[SiteSummary], accept: Collection[str] = ()) -> list[str]:
    """Check that sites can be pooled; return sentences on what was accepted, and on what the files cannot prove.

    Parameters
    ----------
    accept : collection of str
        Names of `ACCEPTABLE`.

    Raises
    ------
    SiteError
        There are fewer than two sites, or they differ.
    """
    if len(sites) < 2:
        raise SiteError("too_few_sites", "pooling needs the summaries of two sites or more.")
    notes = []
    for name, problem in _problems(sites):
        if name not in accept:
            fix = f"Accept it with --accept {name}; the page will say so." if name in ACCEPTABLE else None
            raise SiteError(name, problem, fix=fix)
        notes.append(f"Accepted although {problem[0].lower()}{problem[1:]}")
    return [*dict.fromkeys(notes), *dict.fromkeys(_unproved(sites))]


def _problems(sites: Sequence[SiteSummary]) -> Iterator[tuple[str, str]]:
    for first, second in itertools.combinations(sites, 2):
        both = f"{first.site.name} and {second.site.name}"
        if first.site.name == second.site.name:
            yield "same_patients_possible", f"Two files are of a site called {first.site.name}."
        elif alike := _alike(first, second):
            yield "same_patients_possible", f"{both} have equal counts in all subgroups of {attribute_title(alike)}."
        if first.site.labels != second.site.labels:
            yield (
                "label_source_differs",
                f"Labels come from {first.site.labels} at {first.site.name}, from {second.site.labels} at {second.site.name}.",
            )
        yield from _band_problems(first, second)
        for one in first.models:
            other = second.model(one.encoder, one.task)
            if other is not None:
                yield from _model_problems(one, other, both)


def _model_problems(one: AssessedModel, other: AssessedModel, both: str) -> Iterator[tuple[str, str]]:
    if None not in (one.encoder_digest, other.encoder_digest) and one.encoder_digest != other.encoder_digest:
        yield "encoder_differs", f"{one.encoder} of {both} has other weights, preprocessing or another view."
    if one.probe != other.probe and None not in (one.probe, other.probe):
        yield "probe_differs", f"{both} assessed different probes of {one.encoder} for {one.title}."
    if (one.policy, one.target) != (other.policy, other.target):
        ways = [f"{each.policy}{'' if each.target is None else f' {each.target:g}'}" for each in (one, other)]
        yield (
            "threshold_policy_differs",
            f"The threshold of {one.encoder} for {one.title} at {both} was chosen by {ways[0]} and by {ways[1]}.",
        )


def _band_problems(first: SiteSummary, second: SiteSummary) -> Iterator[tuple[str, str]]:
    theirs = {one.attribute: one.bands for one in second.attributes}
    both = f"{first.site.name} and {second.site.name}"
    for one in first.attributes:
        if one.attribute not in theirs:
            continue
        title, other = attribute_title(one.attribute), theirs[one.attribute]
        if one.bands is not None and other is not None and one.bands != other:
            yield "bands_differ", f"{title} is in bands {', '.join(one.bands)} and {', '.join(other)} at {both}."
        own, of_other = _levels(first, one.attribute), _levels(second, one.attribute)
        for name, like in itertools.product(own, of_other):
            apart = name not in of_other or like not in own
            if apart and (_key(name) == _key(like) or _overlap(name, like)):
                yield "bands_differ", f"{title} has the level {name} and the level {like} at {both}."


def _levels(site: SiteSummary, attribute: str) -> list[str]:
    found = {row.subgroup for one in site.comparisons if one.attribute == attribute for row in one.subgroups}
    return sorted(found)


def _key(level: str) -> str:
    return re.sub(r"[\s_]+", " ", level).strip().casefold()


def _overlap(first: str, second: str) -> bool:
    """Return whether two levels are ranges of numbers that overlap by more than an end."""
    ranges = [_range(one) for one in (first, second)]
    if ranges[0] is None or ranges[1] is None:
        return False
    (low, high), (other_low, other_high) = ranges[0], ranges[1]
    return low < other_high and other_low < high


def _range(level: str) -> tuple[float, float] | None:
    found = _RANGE.fullmatch(level.strip())
    if found is None:
        return None
    low, high, over = found.groups()
    return (float(over), math.inf) if over else (float(low), float(high))


def _alike(first: SiteSummary, second: SiteSummary) -> str | None:
    """Return an attribute whose shown subgroups have equal, exact counts at both sites; None if there is none."""
    theirs = {_compared(one): _counts(one) for one in second.comparisons if one.counts == "exact"}
    for one in first.comparisons:
        if one.counts == "exact" and len(one.subgroups) >= _ALIKE and theirs.get(_compared(one)) == _counts(one):
            return one.attribute
    return None


def _compared(one: Comparison) -> tuple[str, ...]:
    return one.task, one.attribute, one.metric


def _counts(one: Comparison) -> list[tuple[str, int]]:
    return sorted((row.subgroup, row.n) for row in one.subgroups)


def _unproved(sites: Sequence[SiteSummary]) -> Iterator[str]:
    for site in sites:
        for one in site.models:
            if one.encoder_digest is None:
                yield f"That {one.encoder} is the same model at every site rests on its name alone ({site.site.name})."
