"""No hidden count follows from a site summary and its page: cohorts with other hidden counts have the very same file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.sites.export_summary import comparisons
from fmaudit_core.sites.pooling import pool
from tests.report.disclosure.test_subtraction import (
    RULE,
    _hidden,
    _neighbourhood,
    _report,
    _shown,
    _tables,
    levels_of_one_attribute,
    quick,
)
from tests.sites.summaries import summary, three


def estimates(world, cells, effects):
    """Effective sizes of a world's subgroups, whose patients have as many studies each in every world."""
    key = {"encoder": world, "task": "pe", **dict.fromkeys(("probe", "modality", "pooling", "strategy"), "x")}
    found = {}
    for (name,), pair in cells.items():
        for metric, n in (("udr", pair[0]), ("fpr", pair[1]), ("auroc", min(pair))):
            if n:
                at = (*(key[one] for one in SCORE_SET), "first", metric, name)
                others = [other for (other,) in cells if other != name]
                found[at] = {
                    "n": n, "value": 0.5, "n_effective": n / effects[name], "others": others,
                    "correlations": [0.234] * len(others),
                }  # fmt: skip
    return found


def exported(tables, world, cells, effects):
    """All that the file of a world holds, without the name of the world."""
    rows = [row for row in tables.metrics.filter(encoder=world).iter_rows(named=True) if row["attribute"] != "overall"]
    found = comparisons(rows, estimates(world, cells, effects), RULE.suppress_under, Path("audit"))
    return [one.model_copy(update={"encoder": ""}).model_dump_json() for one in found]


def alike(levels, effects, every=1):
    """Cohorts with the same page, the counts that are hidden in them, and which of them have the same file."""
    others = itertools.islice(_neighbourhood(levels), 0, None, every)
    worlds = {"true": levels} | {f"w{nth}": one for nth, one in enumerate(others)}
    tables = disclose(_report(worlds))
    mine = [_shown(table, "true") for table in _tables(tables)]
    file, hidden = exported(tables, "true", levels, effects), _hidden(tables)
    assert all(f'"{name}"' not in one for name in hidden for one in file)
    same = [world for world in worlds if [_shown(table, world) for table in _tables(tables)] == mine]
    for world in same:
        yield worlds[world], hidden, exported(tables, world, worlds[world], effects) == file


@settings(quick, max_examples=12)
@given(levels_of_one_attribute(), st.fixed_dictionaries({name: st.floats(1, 3) for name in "abc"}))
def test_cohorts_with_the_same_page_have_the_same_file(levels, effects):
    """So a file tells nothing that the page does not: that the page leaves hidden counts open is searched for in its own test."""
    assert all(is_same for _, _, is_same in alike(levels, effects, every=9))


def test_the_same_file_leaves_hidden_counts_open():
    levels = {("a",): (5, 140), ("b",): (60, 210), ("c",): (95, 330)}
    found = list(alike(levels, {"a": 1.0, "b": 1.4, "c": 2.2}))
    assert all(is_same for _, _, is_same in found)
    possible = {sum(world[name,][0] for name in hidden) for world, hidden, _ in found}
    assert len(possible) >= 5


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("name", ["female", "male"])
def test_a_subgroup_that_a_site_hides_is_in_no_pooled_number(at, name):
    """Its own numbers are those of the other two sites, without a count, as each of two could subtract its own."""
    own = {"female": (0.2, 90), "male": (0.3, 110), "x": (0.4, 60), "y": (0.5, 70)}
    shown = {one: pair for one, pair in own.items() if one != name}
    sites = [*three(), summary("d", {one: pair for one, pair in own.items() if one in ("female", "male")})]
    sites[at] = summary("hides", shown, counts="rounded")
    found = {one.subgroup: one for one in pool(sites[:3]).contrasts}
    assert found.keys() <= {"female", "male"}
    if name in found:
        assert found[name].n is None
        assert "hides" not in [one.site for one in found[name].sites]


def test_a_pooled_count_less_the_counts_of_other_sites_is_the_shown_count():
    sites = [*three()[:2], summary("c", {"female": (0.22, 150), "male": (0.31, 160)}, counts="rounded")]
    for one in pool(sites).contrasts:
        of_others = sum(
            row.n for site in sites[:2] for row in site.comparisons[0].subgroups if row.subgroup == one.subgroup
        )
        shown = next(row.n for row in sites[2].comparisons[0].subgroups if row.subgroup == one.subgroup)
        assert one.n - of_others == shown
