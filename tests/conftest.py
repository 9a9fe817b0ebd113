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


@pytest.fixture(autouse=True)
def _no_platform_left_behind(request):
    """Definitions are of one audit.yaml for a whole process: a test elsewhere leaves those of its own to none after it."""
    if "platform" in request.path.parts:
        yield
        return
    modules, surroundings = set(sys.modules), dict(os.environ)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("fmaudit_dagster."):
            del sys.modules[name]
    for name in ("FMAUDIT_CONFIG", "DAGSTER_HOME"):
        if name in surroundings:
            os.environ[name] = surroundings[name]
        else:
            os.environ.pop(name, None)


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
