"""Facts of the images as levels of an attribute, and what audit.yaml may ask for."""

from __future__ import annotations

import polars as pl
import pytest

from fmaudit_core.cohort.acquisition_levels import RARE, check_levels, with_acquisition
from fmaudit_core.common.formatting import attribute_title
from fmaudit_core.common.vocabulary import subgroup_title
from fmaudit_core.config import AcquisitionSection, ConfigError, validated
from fmaudit_core.tables.cohort import ACQUISITION
from fmaudit_core.tabular.errors import CohortError


def levels(column, values, *, at_least=1, **edges):
    """The levels of one column, of a study and patient per value."""
    ids = [f"s{at}" for at in range(len(values))]
    studies = pl.DataFrame({"study_id": ids, "patient_id": ids})
    rows = [{"study_id": one, column: value} for one, value in zip(ids, values, strict=True)]
    name = f"acquisition.{column}"
    section = AcquisitionSection(**edges)
    found = with_acquisition(studies, ACQUISITION.frame(rows), [name], section, at_least=at_least)
    check_levels(found, [name])
    assert found["study_id"].to_list() == ids
    return found[name].to_list()


def test_numbers_fall_between_edges_and_an_edge_belongs_to_the_level_below():
    values = [0.5, 1.5, 1.5001, 3.0, 5.0, None]
    found = levels("slice_thickness", values, slice_thickness=(1.5, 3))
    assert found == ["<= 1.5", "<= 1.5", "1.5-3", "1.5-3", "> 3", "unknown"]


def test_one_edge_makes_two_levels():
    assert levels("year", [2015, 2016], year=(2015,)) == ["<= 2015", "> 2015"]


def test_without_edges_each_number_is_a_level_without_needless_digits():
    assert levels("kvp", [120.0, 80.0, None]) == ["120", "80", "unknown"]
    assert levels("slice_thickness", [1.25, 5.0]) == ["1.25", "5"]
    assert levels("rows", [512, 100000]) == ["512", "100000"]


def test_contrast_is_yes_no_or_unknown():
    assert levels("contrast", [True, False, None]) == ["yes", "no", "unknown"]


def test_spellings_of_one_name_are_one_level_the_most_frequent():
    found = levels("manufacturer", ["Siemens", "SIEMENS", "SIEMENS", "GE", None, "Unknown", ""])
    assert found == ["SIEMENS", "SIEMENS", "SIEMENS", "GE", "unknown", "unknown", "unknown"]


def test_texts_of_few_patients_are_one_level_and_show_nobody():
    found = levels("model", ["One"] * 3 + ["Jane Doe", "one", "Two", None], at_least=3)
    assert found == ["One"] * 3 + [RARE, "One", RARE, "unknown"]


def test_many_studies_of_one_patient_do_not_make_a_level():
    studies = pl.DataFrame({"study_id": list("abcd"), "patient_id": ["p", "p", "p", "q"]})
    known = ACQUISITION.frame([{"study_id": one, "model": "Jane Doe"} for one in "abc"])
    found = with_acquisition(studies, known, ["acquisition.model"], AcquisitionSection(), at_least=3)
    assert found["acquisition.model"].to_list() == [RARE] * 3 + ["unknown"]


def test_numbers_of_few_patients_stay_their_own_levels():
    assert levels("kvp", [120.0, 120.0, 80.0], at_least=2) == ["120", "120", "80"]


def test_a_level_that_reads_as_an_intersection_is_spelled_without_blanks():
    assert levels("model", ["Light x 16", "Light x 16"]) == ["Lightx16"] * 2


def test_a_study_without_a_row_is_unknown():
    studies = pl.DataFrame({"study_id": ["a"], "patient_id": ["p"]})
    found = with_acquisition(studies, ACQUISITION.frame(), ["acquisition.kvp"], AcquisitionSection(), at_least=1)
    assert found["acquisition.kvp"].to_list() == ["unknown"]


def test_numbers_with_too_many_levels_have_to_be_grouped():
    with pytest.raises(
        CohortError, match=r"acquisition\.exposure has 40 levels .* `acquisition: \{exposure: \[\.\.\.\]\}`"
    ):
        levels("exposure", [float(mas) for mas in range(40)])
    assert set(levels("exposure", [float(mas) for mas in range(40)], exposure=(20,))) == {"<= 20", "> 20"}


def audit(**changes):
    cohort = {"kind": "table", "table": "studies.csv", "images": "ct"}
    return validated({"cohort": cohort, "tasks": ["pe"]} | changes, where="audit.yaml")


def test_attributes_are_told_apart_by_where_they_come_from():
    found = audit(attributes=["sex", "acquisition.kvp"])
    assert (found.cohort_attributes, found.acquisition_levels) == (("sex",), ("acquisition.kvp",))
    found = audit(attributes=["sex"], covariates=["acquisition.kvp", "sex", "site"], mediators=["site"])
    assert (found.cohort_covariates, found.acquisition_levels) == (("site",), ("acquisition.kvp",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attributes": ["acquisition.manufacter"]}, r"acquisition\.manufacter \(did you mean manufacturer\?\)"),
        ({"attributes": ["acquisition."]}, r"is not a fact of the images"),
        ({"attributes": ["acquisitions.kvp"]}, r"is not a valid name"),
        ({"tasks": ["acquisition.kvp"]}, r"is not a valid name"),
        ({"covariates": ["acquisition.kernal"]}, r"acquisition\.kernal \(did you mean kernel\?\)"),
        ({"covariates": ["site", "site"]}, r"a name appears twice"),
        ({"covariates": ["Site of scan"]}, r"is not a valid name"),
        (
            {"covariates": ["setting"], "mediators": ["settings"]},
            r"did you mean setting.* is not listed under `covariates:`",
        ),
        (
            {"covariates": ["acquisition.kvp"], "cohort": {"kind": "table", "table": "studies.csv"}},
            r"the covariate acquisition\.kvp is read from the headers",
        ),
        ({"acquisition": {"slice_thicknes": [1]}}, r"did you mean acquisition\.slice_thickness\?\): unknown setting"),
        ({"acquisition": {"manufacturer": [1]}}, r"acquisition: manufacturer is not a number and has no edges"),
        ({"acquisition": {"contrast": [1]}}, r"acquisition: contrast is not a number and has no edges"),
        ({"acquisition": {"slice_thickness": 3}}, r"acquisition\.slice_thickness: .*tuple"),
        ({"acquisition": {"slice_thickness": ["thin", 3]}}, r"acquisition\.slice_thickness\.0: .*number.*thin"),
        ({"acquisition": {"slice_thickness": [0, 3]}}, r"acquisition\.slice_thickness: edges must be positive"),
        ({"acquisition": [1.5, 3]}, r"acquisition: .*dictionary"),
        ({"acquisition": {"slice_thickness": [3, 1.5]}}, r"ascending order"),
        ({"acquisition": {"slice_thickness": [3, 3]}}, r"ascending order"),
        ({"acquisition": {"slice_thickness": [float("nan")]}}, r"ascending order"),
        (
            {"attributes": ["acquisition.kvp"], "cohort": {"kind": "table", "table": "studies.csv"}},
            r"acquisition\.kvp is read from the headers of the images, but `cohort: images:` is not set: name their folder",
        ),
    ],
)
def test_what_audit_yaml_asks_wrong_is_told(changes, said):
    with pytest.raises(ConfigError, match=said):
        audit(**changes)


def test_titles_are_readable():
    assert attribute_title("acquisition.slice_thickness") == "Slice thickness (mm)"
    assert attribute_title("acquisition.manufacturer x sex") == "Scanner manufacturer \N{MULTIPLICATION SIGN} Sex"
    assert [subgroup_title(one) for one in ("<= 1.5", "1.5-3", "> 3", "yes")] == [
        "\N{LESS-THAN OR EQUAL TO} 1.5",
        "1.5\N{EN DASH}3",
        "> 3",
        "Yes",
    ]
