"""Rules of the house, told by name when one is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import house

ROOT = Path(__file__).parents[1]

#: rooms, from the ground up, and all that each may import; whoever adds a room or an arrow decides it here
CORE = {
    "common": "",
    "config": "common",
    "tables": "common",
    "storage": "common tables",
    "tabular": "common storage",
    "imaging": "common storage tables tabular",
    "encoders": "common config imaging storage",
    "cohort": "common config storage tables tabular",
    "ehr": "cohort common config storage tabular",
    "engines": "common config encoders imaging storage",
    "probes": "cohort common config ehr encoders storage tables tabular",
    "fairness": "common config encoders probes tables tabular",
    "mitigation": "common config fairness probes tables",
    "reproduction": "common config encoders fairness mitigation tables",
    "report": "cohort common config encoders fairness mitigation probes reproduction storage tables",
    "pipeline": (
        "cohort common config ehr encoders engines fairness imaging mitigation probes report reproduction storage tables"
    ),
    "setup": "cohort common config encoders engines imaging pipeline storage tabular",
    "standalone": "common config fairness pipeline probes report storage tabular",
    "sites": "common config encoders fairness pipeline probes report standalone storage tabular",
}
REPORT = {
    "errors": "",
    "input": "errors",
    "disclosure": "input",
    "index": "disclosure input",
    "text": "index input",
    "figures": "",
    "sections": "figures index text",
    "documents": "disclosure figures index input sections text",
    "page": "index input sections text",
    "export": "documents index input page",
}
PLATFORM = {
    "configured": "",
    "metadata": "",
    "progress": "",
    "partitions": "configured",
    "run_leases": "",
    "resources": "run_leases",
    "execution": "configured metadata partitions resources run_leases",
    "assets": "configured execution metadata partitions progress resources",
    "checks": "execution partitions resources",
    "definitions": "assets checks execution resources",
    "cli": "definitions execution progress run_leases",
}
#: packages whose rooms are listed, and the modules that lie beside rooms there
HOUSES = {
    "fmaudit_core": (CORE, ()),
    "fmaudit_core.report": (REPORT, ("errors", "export", "page")),
    "fmaudit_dagster": (
        PLATFORM,
        ("checks", "configured", "definitions", "metadata", "partitions", "progress", "resources", "run_leases"),
    ),
}


@pytest.fixture(scope="module")
def imports():
    return list(house.imports())


@pytest.mark.parametrize("package", HOUSES)
def test_every_room_is_listed(package):
    listed, loose = HOUSES[package]
    folder = ROOT / package.replace(".", "/")
    lying = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert lying <= set(loose), f"{package} has no modules of its own: move {sorted(lying - set(loose))} into a room"
    found = house.rooms(house.modules(), package)
    assert found == set(listed), f"rooms of {package} that are listed, or there, alone: {sorted(found ^ set(listed))}"


@pytest.mark.parametrize("package", HOUSES)
def test_a_room_imports_only_what_its_line_allows(package, imports):
    listed, _ = HOUSES[package]
    drawn = house.arrows(imports, package)
    wrong = [
        f"{package}: {start} must not import {end}: {one}"
        for (start, end), of in sorted(drawn.items())
        if end not in listed.get(start, "").split()
        for one in of
    ]
    assert not wrong, "\n".join(wrong)
    unused = [
        f"{start} -> {end}" for start, line in listed.items() for end in line.split() if (start, end) not in drawn
    ]
    assert not unused, f"{package}: nothing imports this any more, take it off the list: {', '.join(unused)}"


@pytest.mark.parametrize("package", HOUSES)
def test_the_list_has_no_arrow_back(package):
    """Rooms are listed from the ground up: each imports rooms above its line only, so there is no cycle either."""
    listed, _ = HOUSES[package]
    order = list(listed)
    for room, line in listed.items():
        back = [other for other in line.split() if order.index(other) >= order.index(room)]
        assert not back, f"{package}: {room} is listed before {', '.join(back)}, which it imports"


def test_no_two_modules_import_each_other(imports):
    drawn = {(one.source, one.target): one for one in imports if not one.source.startswith(f"{one.target}.")}
    for part in house.cycles(drawn):
        ways = [str(one) for (start, end), one in drawn.items() if start in part and end in part]
        pytest.fail("modules that import each other:\n" + "\n".join(ways))


def test_core_imports_nothing_of_the_platform(imports):
    wrong = [str(one) for one in imports if one.source.startswith("fmaudit_core") and "fmaudit_dagster" in one.target]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "back"),
    [
        ("from fmaudit_core.report.page import render_page", "config must not import report"),
        ("def late():\n    from fmaudit_core.pipeline import queries", "config must not import pipeline"),
        ("import fmaudit_core.fairness.gaps", "config must not import fairness"),
        ("from fmaudit_core import report", "config must not import report"),
    ],
)
def test_an_arrow_back_is_found(tmp_path, line, back):
    """The test itself: a copy of the tree with one import planted, at the top, in a function, by each way to write it."""
    for file in house.modules().values():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text((ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")
    planted = tmp_path / "fmaudit_core" / "config" / "ages.py"
    planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=back) as found:
        test_a_room_imports_only_what_its_line_allows("fmaudit_core", list(house.imports(tmp_path)))
    assert "fmaudit_core/config/ages.py:" in str(found.value)


def test_cycles_are_found_and_share_a_floor():
    drawn = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]
    assert house.cycles(drawn) == [["b", "c"]]
    assert house.floors("abcd", drawn) == {"a": 3, "b": 2, "c": 2, "d": 1}


def loaded_after(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return set(out.stdout.splitlines())


def test_core_knows_nothing_of_dagster():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "fmaudit_core").rglob("*.py"))
        if path.stem != "__init__"
    ]
    assert "dagster" not in loaded_after("\n".join(f"import {name}" for name in modules))


def test_every_yaml_in_the_tree_parses():
    found = [path for path in ROOT.rglob("*.y*ml") if not {".venv", "demo"} & set(path.parts)]
    assert len(found) >= 5
    for path in found:
        list(yaml.safe_load_all(path.read_text()))


def test_only_the_config_reads_the_environment():
    for path in sorted((ROOT / "fmaudit_core").rglob("*.py")):
        if path.parts[-2:] != ("config", "environment.py"):
            assert "os.environ" not in path.read_text(), (
                f"{path} reads the environment: give it to config/environment.py"
            )


def test_definitions_load_without_an_audit_and_without_what_takes_long_to_import(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); os.environ.pop('FMAUDIT_CONFIG', None)\n"
    loaded = loaded_after(f"{code}from fmaudit_dagster.definitions import defs")
    assert "dagster" in loaded
    assert not {"scipy.stats", "sklearn", "torch", "transformers", "onnxruntime", "pandas"} & loaded
