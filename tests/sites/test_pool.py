"""Pooling of site summaries: what is refused by name, what is accepted aloud, and what the pooled numbers are."""

from __future__ import annotations

import json
import math
import re

import jsonschema
import pytest
from click.testing import CliRunner

from fmaudit_core.fairness.random_effects import random_effects
from fmaudit_core.sites.errors import ERRORS, SiteError
from fmaudit_core.sites.pooling import pool
from fmaudit_core.sites.summary_file import SiteSummary
from fmaudit_core.sites.write_pooled import write_pooled
from fmaudit_dagster.cli.main import main
from tests.sites.summaries import GROUPS, summary, three

OTHER = {"female": (0.21, 410), "male": (0.33, 520)}


def refused(*sites, accept=()):
    with pytest.raises(SiteError) as found:
        pool(sites, accept=accept)
    assert str(found.value).startswith(f"{found.value.name}: ")
    return found.value.name


def test_the_pooled_difference_is_that_of_random_effects_on_the_scale_of_the_test():
    found = pool(three())
    (men,) = [one for one in found.contrasts if one.subgroup == "male"]
    rows = [one.comparisons[0].subgroups[1] for one in three()]
    y, v = [one.theta for one in rows], [one.variance for one in rows]
    peer = random_effects(y, v, resolution=0.01)
    level = sum(weight * row.others for weight, row in zip(peer.weights, rows, strict=True))
    assert men.others == pytest.approx(math.sin(level) ** 2)
    assert men.difference == pytest.approx(math.sin(level + peer.mean) ** 2 - math.sin(level) ** 2)
    assert men.low < men.difference < men.high
    assert men.predicted_low <= men.low < men.high <= men.predicted_high
    assert men.difference == pytest.approx(0.10, abs=0.02)
    assert sum(one.weight for one in men.sites) == pytest.approx(1)
    assert men.n == 500 + 200 + 160
    (women,) = [one for one in found.contrasts if one.subgroup == "female"]
    assert women.difference == pytest.approx(-men.difference, abs=0.01)
    assert men.p_holm == pytest.approx(min(1, 2 * men.p))


def test_each_site_is_left_out_once():
    found = pool(three())
    of_men = {name: value for name, value, _, _ in found.contrasts[1].without}
    rest = pool(three()[1:])
    assert of_men["a"] == pytest.approx(rest.contrasts[1].difference, abs=0.01)
    assert list(of_men) == ["a", "b", "c"]
    assert rest.contrasts[1].without == []


def test_a_count_of_two_sites_is_not_pooled_and_a_rounded_one_stays_round():
    assert [one.n for one in pool(three()[:2]).contrasts] == [None, None]
    rounded = [*three()[:2], summary("c", {"female": (0.22, 147), "male": (0.31, 163)}, counts="rounded")]
    assert [one.n for one in pool(rounded).contrasts] == [850, 860]
    assert pool(rounded).n_withholding == 1


def test_a_subgroup_of_one_site_is_listed_and_not_pooled():
    more = summary("c", {"female": (0.2, 100), "male": (0.3, 120), "diverse": (0.4, 30)})
    found = pool([*three()[:2], more])
    assert found.alone == [("net", "pe", "sex", "udr", "diverse")]
    assert {one.subgroup for one in found.contrasts} == {"female", "male"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder_differs", {"encoder_digest": "e" * 32}),
        ("probe_differs", {"probe": "q" * 32}),
        ("threshold_policy_differs", {"policy": "youden", "target": None}),
        ("threshold_policy_differs", {"target": 0.1}),
        ("label_source_differs", {"labels": "code"}),
    ],
    ids=["encoder", "probe", "policy", "target", "labels"],
)
def test_a_difference_between_sites_is_named(name, change):
    assert refused(summary("a"), summary("b", OTHER, **change)) == name


def test_what_cannot_be_proved_is_said():
    assert pool([summary("a"), summary("b", OTHER)]).notes == []
    unknown = pool([summary("a"), summary("b", OTHER, encoder_digest=None, probe=None)])
    assert unknown.notes == ["That net is the same model at every site rests on its name alone (b)."]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"18-40": (0.2, 90), "41-60": (0.3, 80)}, {"18-50": (0.2, 91), "51-60": (0.3, 82)}),
        ({"41-90": (0.2, 90), "over_90": (0.3, 80)}, {"41-90": (0.2, 91), "over_80": (0.3, 82)}),
        ({"Female": (0.2, 90), "male": (0.3, 80)}, {"female ": (0.2, 91), "male": (0.3, 82)}),
    ],
    ids=["ranges", "open ranges", "spelling"],
)
def test_other_bands_are_named(first, second):
    sites = [summary(name, of, attribute="age_band") for name, of in (("a", first), ("b", second))]
    assert refused(*sites) == "bands_differ"


def test_bands_that_touch_and_levels_that_one_site_lacks_are_no_difference():
    sites = [
        summary("a", {"0-18": (0.2, 90), "18-40": (0.3, 80)}, attribute="age_band"),
        summary("b", {"18-40": (0.2, 91), "40-60": (0.3, 82)}, attribute="age_band"),
    ]
    assert [one.subgroup for one in pool(sites).contrasts] == ["18-40"]


def test_declared_bands_are_compared_whatever_is_shown():
    sites = [
        summary("a", attribute="age_band", bands=("18-40", "41-90")),
        summary("b", OTHER, attribute="age_band", bands=("18-50", "51-90")),
    ]
    assert refused(*sites) == "bands_differ"


def test_the_same_patients_twice_are_suspected():
    assert refused(summary("a"), summary("a", OTHER)) == "same_patients_possible"
    assert refused(summary("a"), summary("b", {name: (0.5, n) for name, (_, n) in GROUPS.items()})) == (
        "same_patients_possible"
    )


def test_an_accepted_difference_is_on_the_page(tmp_path):
    sites = [summary("a"), summary("b", OTHER, labels="code", probe="q" * 32)]
    assert refused(*sites, accept=["label_source_differs"]) == "probe_differs"
    found = pool(sites, accept=["label_source_differs", "probe_differs"])
    page = write_pooled(tmp_path, found).read_text()
    assert "Accepted although labels come from report at a, from code at b." in page
    assert "Accepted although a and b assessed different probes" in page


def test_one_site_or_nothing_in_common_is_refused():
    assert refused(summary()) == "too_few_sites"
    assert refused(summary("a"), summary("b", {"x": (0.2, 90), "y": (0.3, 80)})) == "nothing_in_common"


def test_every_error_has_a_meaning_and_no_other_can_be_raised():
    assert all(ERRORS.values())
    with pytest.raises(KeyError):
        SiteError("unheard_of", "x")


# -- files


def test_a_summary_reads_as_it_was_written_and_fits_its_schema(tmp_path):
    path = summary().write(tmp_path / "a.json")
    content, schema = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "a.schema.json"))
    jsonschema.validate(content, schema)
    again = SiteSummary.read(path)
    assert again.checksum() == content["content_sha256"]
    assert again.comparisons == summary().comparisons


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("edited_file", lambda one: one["comparisons"][0]["subgroups"][0].update(theta=0.5)),
        ("edited_file", lambda one: one.update(further=1)),
        ("not_our_file", lambda one: one.update(kind="fmaudit.probe")),
        ("version_differs", lambda one: one.update(schema_version="2.0")),
    ],
    ids=["number", "key", "kind", "version"],
)
def test_a_foreign_or_edited_file_is_refused_by_name(tmp_path, name, change):
    path = edited(summary().write(tmp_path / "a.json"), change)
    with pytest.raises(SiteError, match=f"a.json: {name}: "):
        SiteSummary.read(path)


def test_a_file_with_a_wrong_key_says_which(tmp_path):
    from fmaudit_core.sites.document import _sha256

    path = summary().write(tmp_path / "a.json")
    content = json.loads(path.read_text())
    content["confidence"] = 7
    content["content_sha256"] = _sha256(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SiteError, match=r"invalid_file: confidence: .*less than 1 \(given: 7\)"):
        SiteSummary.read(path)


@pytest.mark.parametrize(
    "content", ["", "study_id,patient_id\n1,2\n", "[1]", "\udcff"], ids=["empty", "csv", "list", "bytes"]
)
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SiteError, match="not_our_file: is not"):
        SiteSummary.read(tmp_path / "a.json")


# -- the page


def test_the_command_pools_files_and_writes_a_page_without_requests(tmp_path):
    paths = [str(one.write(tmp_path / f"{one.site.name}.json")) for one in three()]
    said = CliRunner().invoke(main, ["pool", *paths, "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "3 sites pooled" in said.output
    page = (tmp_path / "out/index.html").read_text()
    assert not re.search(r"(src|href)=|<script|url\(", page)
    assert page.count("<svg") == 1
    assert "it is approximate, as there are fewer than 10 sites" in page
    assert "Differs from the other subgroups" in page
    assert "No site withholds a small subgroup." in page
    content = json.loads((tmp_path / "out/pooled.json").read_text())
    assert [one["subgroup"] for one in content["contrasts"]] == ["female", "male"]
    assert (
        (tmp_path / "out/pooled_contrasts.csv").read_text().splitlines()[0].startswith("encoder,task,attribute,metric")
    )


def test_the_command_names_the_error(tmp_path):
    paths = [
        str(one.write(tmp_path / f"{one.site.name}.json")) for one in (summary("a"), summary("b", OTHER, labels="code"))
    ]
    said = CliRunner().invoke(main, ["pool", *paths, "--out", str(tmp_path / "out")])
    assert said.exit_code == 1
    assert "label_source_differs: Labels come from report at a" in said.output
    assert "--accept label_source_differs" in " ".join(said.output.split())
    assert not (tmp_path / "out").exists()
