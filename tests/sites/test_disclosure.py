"""No hidden count follows from a site summary and its page: cohorts with other hidden counts have the very same file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
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


@quick
@given(levels_of_one_attribute(), st.fixed_dictionaries({name: st.floats(1, 3) for name in "abc"}))
def test_cohorts_with_other_hidden_counts_have_the_same_page_and_the_same_file(levels, effects):
    worlds = {"true": levels} | {f"w{nth}": one for nth, one in enumerate(_neighbourhood(levels))}
    tables = disclose(_report(worlds))
    hidden = _hidden(tables)
    mine = [_shown(table, "true") for table in _tables(tables)]
    file = exported(tables, "true", levels, effects)
    assert all(f'"subgroup":"{name}"' not in one for name in hidden for one in file)
    assert all(f'"{name}"' not in one for name in hidden for one in file)
    alike = [
        world
        for world, cells in worlds.items()
        if [_shown(table, world) for table in _tables(tables)] == mine
        and exported(tables, world, cells, effects) == file
    ]
    for at in (0, 1):
        possible = {sum(worlds[world][name,][at] for name in hidden) for world in alike}
        assert not hidden or len(hidden) == len(levels) or len(possible) >= 5, possible


@given(st.integers(0, 2), st.sampled_from(["female", "male"]))
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
