"""What all tests share: no network, and in CI no skips."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# tests are never timed: a busy machine is not a defect
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

CHROMIUM = Path("/usr/bin/chromium")


#: folders of the longest files, which begin first, so that no process of pytest works alone at the end
LONGEST = ("cluster", "platform", "everyday", "report")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: 0 if item.path.relative_to(Path(__file__).parent).parts[0] in LONGEST else 1)


#: modules that the tests themselves import; none of them reads an audit.yaml
IMPORTED = pytest.StashKey[set]()


def pytest_collection_finish(session):
    session.config.stash[IMPORTED] = set(sys.modules)


@pytest.fixture(autouse=True)
def _no_platform_elsewhere(request):
    """Definitions are of one audit.yaml for a whole process.

    Outside `tests/platform`, a test begins without them and leaves none; those of the platform's own tests, which may have run
    before it in this process, are put away for its time.
    """
    if "platform" in request.path.parts:
        yield
        return
    imported = request.config.stash[IMPORTED]
    modules, surroundings = _take_platform(imported)
    yield
    _take_platform(imported)
    sys.modules.update(modules)
    for name, module in modules.items():  # `import package.module as name` reads the package's attribute
        package, _, attribute = name.rpartition(".")
        setattr(sys.modules[package], attribute, module)
    os.environ.update(surroundings)


def _take_platform(imported):
    """Modules and variables of the definitions that are loaded; none is afterwards."""
    loaded = [name for name in sys.modules if name.startswith("fmaudit_dagster.") and name not in imported]
    modules = {name: sys.modules.pop(name) for name in loaded}
    surroundings = {name: os.environ.pop(name) for name in ("FMAUDIT_CONFIG", "DAGSTER_HOME") if name in os.environ}
    return modules, surroundings


@pytest.fixture(autouse=True, scope="session")
def _one_step_at_a_time():
    """The tests take all cores already; a test of several steps at a time asks for them."""
    os.environ.setdefault("FMAUDIT_JOBS", "1")


@pytest.fixture
def chromium():
    """Path of the browser; without one the test says so and is skipped."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium at /usr/bin/chromium: install Debian's package `chromium` to run the browser tests")
    return CHROMIUM


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where FMAUDIT_NO_SKIPS is set, a skipped test has failed: what CI cannot run protects nothing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("FMAUDIT_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
