"""What all tests share: no network, and in CI no skips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

CHROMIUM = Path("/usr/bin/chromium")


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
