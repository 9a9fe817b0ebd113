"""Checks of what runs have made: whether the tables can be read, and whether a bucket can hold them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import duckdb

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.pipeline.unused_files import half_written
from fmaudit_core.setup.finding import Finding
from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.bucket_warehouse import BucketWarehouse
from fmaudit_core.storage.warehouse import Warehouse

_MB: Final = 1e6


def examine_results(warehouse: Warehouse | BucketWarehouse) -> Iterator[Finding]:
    """Yield findings on the tables, and on the folder or the bucket that they are in."""
    if isinstance(warehouse, Warehouse):
        yield _tables(warehouse)
        yield _leftovers(warehouse)
        return
    bucket = _bucket(warehouse.bucket)
    yield bucket
    if bucket.status != "problem":
        yield _tables(warehouse)


def _bucket(bucket: Bucket) -> Finding:
    """Check that the bucket answers and keeps the conditions of puts, by an object that is removed again."""
    name, token = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(8)
    try:
        created, again = bucket.create(name, b"1" + token), bucket.create(name, b"2" + token)
        found = bucket.read_tagged(name)
        tag = found[1] if found is not None else ""
        replaced, late = bucket.replace(name, b"3" + token, tag), bucket.replace(name, b"4" + token, tag)
        bucket.remove([name])
    except FmauditError as error:
        return Finding("bucket", "problem", f"{error.where}: {error.what}", error.fix)
    if (created, again, replaced, late) != (True, False, True, False):
        return Finding(
            "bucket", "problem", f"{bucket}: the store does not keep the conditions of puts (If-None-Match, If-Match).",
            "Use a store that does: without them, two runs may publish the same table at once.",
        )  # fmt: skip
    address = urlsplit(bucket.endpoint or "https:")
    if address.scheme == "http" and address.hostname not in ("127.0.0.1", "localhost", "::1"):
        return Finding(
            "bucket", "warning", f"{bucket}: conditional puts work, but the store is reached without TLS.",
            "Set `storage: endpoint:` to an https:// address, or make sure that nobody else can read this network.",
        )  # fmt: skip
    return Finding("bucket", "ok", f"{bucket}: conditional puts work")


def _tables(warehouse: Warehouse | BucketWarehouse) -> Finding:
    """Check that every table can be read."""
    try:
        tables, version = warehouse.tables(), warehouse.versions()
        if not tables:
            return Finding("warehouse", "ok", "empty: nothing was run yet")
        broken = [table for table in tables if any(version(table, cell) is None for cell in warehouse.cells(table))]
    except FmauditError as error:
        return Finding("warehouse", "problem", f"{error.where}: {error.what}", error.fix)
    if broken:
        fix = f"Delete these folders in {warehouse} and run `fmaudit run` again: missing tables are computed again."
        return Finding("warehouse", "problem", f"holds corrupt tables: {', '.join(broken)}.", fix)
    try:
        with warehouse.connect() as connection:
            for table in tables:
                try:
                    connection.execute(f'SELECT count(*) FROM "{table}"')
                except duckdb.Error:
                    broken.append(table)
    except (duckdb.Error, FmauditError):
        broken = ["the views, or an encoder's embeddings"]
    if broken:
        return Finding(
            "warehouse",
            "problem",
            f"cannot be read: {', '.join(broken)}.",
            "Delete these files and run `fmaudit run` again.",
        )
    return Finding("warehouse", "ok", f"{len(tables)} tables can be read")


def _leftovers(warehouse: Warehouse) -> Finding:
    """Report files of killed writers: harmless, but they take space."""
    left = half_written(warehouse.root)
    size = sum(path.stat().st_size for path in left) / _MB
    if left:
        return Finding(
            "leftovers", "warning", f"{len(left)} half-written files of killed runs, {size:,.1f} MB.",
            "fmaudit gc --yes",
        )  # fmt: skip
    return Finding("leftovers", "ok", "none")
