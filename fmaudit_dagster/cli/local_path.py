"""The types of options and arguments that are paths, or a folder of a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fmaudit_core.common.addresses import path_or_bucket
from fmaudit_core.common.local_paths import address_problem


class LocalPath(click.Path):
    """A path on this machine, as `Path`; an address such as s3://bucket is refused."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of an argument."""
        if (problem := address_problem(os.fspath(value))) is not None:
            self.fail(f"{problem}.", param, ctx)
        return super().convert(value, param, ctx)


class FolderOrBucket(click.Path):
    """A path on this machine, as `Path`, or the address of a bucket, as text."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or address of an argument."""
        try:
            found = path_or_bucket(os.fspath(value))
        except ValueError as problem:
            self.fail(f"{problem}.", param, ctx)
        return found if isinstance(found, str) else super().convert(found, param, ctx)
