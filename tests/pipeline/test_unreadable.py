"""Embeddings that are there and cannot be read are an error: taken for missing, hours of encoding would be repeated."""

from __future__ import annotations

import pytest

from fmaudit_core.pipeline.snapshot import embeddings_version
from fmaudit_core.storage.warehouse import WarehouseError


def test_embeddings_that_cannot_be_read_are_not_taken_for_missing(tmp_path):
    path = tmp_path / "lite.duckdb"
    assert embeddings_version(path) is None
    path.write_bytes(b"torn")
    assert embeddings_version(path) is None
    path.unlink()
    path.symlink_to(path)  # cannot be opened, by root either
    with pytest.raises(WarehouseError, match=r"lite\.duckdb: cannot be read: .*symbolic links"):
        embeddings_version(path)
