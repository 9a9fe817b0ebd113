"""Small checkpoints of every adapter."""

from __future__ import annotations

import pytest

from fmaudit_core.encoders import medimageinsight
from tests.encoders import checkpoints


@pytest.fixture(autouse=True)
def tiny_davit(monkeypatch):
    """MedImageInsight's network at a size a test can run."""
    monkeypatch.setitem(medimageinsight.ARCHITECTURES, "tiny", checkpoints.TINY_DAVIT)
