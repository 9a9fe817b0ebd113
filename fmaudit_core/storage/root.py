"""The root of an audit: the folder or the bucket that holds its tables, embeddings, claims and report."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fmaudit_core.storage.atomic_write import check_publishing, written_beside
from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.bucket_claims import ClaimBucket
from fmaudit_core.storage.bucket_warehouse import BucketWarehouse
from fmaudit_core.storage.claims import ClaimFolder, Claims
from fmaudit_core.storage.digests import stat_texts
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Warehouse

_REPORTS: Final = "reports"


class Root(Hashable, Protocol):
    """Where the results of an audit are."""

    @property
    def identity(self) -> str:
        """Return a text that is the same on every machine that uses this root."""
        ...

    @property
    def warehouse(self) -> Warehouse | BucketWarehouse:
        """Return the tables and embeddings."""
        ...

    @property
    def claims(self) -> Claims:
        """Return the claims of steps and runs."""
        ...

    @property
    def reports(self) -> Path:
        """Return the folder that the report is written to."""
        ...

    def publish_report(self, files: Sequence[Path]) -> None:
        """Publish the files of the report, the last one last; those of before that are not among them are removed."""
        ...

    def fetch_report(self) -> None:
        """Copy the published report to `reports`, if it is not published there."""
        ...

    def report_files(self) -> Collection[str]:
        """Return the published files of the report, relative to its folder."""
        ...

    def seen(self) -> Iterator[str]:
        """Yield a text for each published table, and the page, another one whenever it is published anew."""
        ...


@dataclass(frozen=True)
class FolderRoot:
    """A folder: files as they are, each published by rename."""

    folder: Path

    @property
    def identity(self) -> str:
        """Return the absolute path."""
        return str(self.folder.resolve())

    @property
    def warehouse(self) -> Warehouse:
        """Return the tables and embeddings."""
        return Warehouse(self.folder / "warehouse")

    @property
    def claims(self) -> ClaimFolder:
        """Return the claims of steps and runs."""
        return ClaimFolder(self.folder / "claims")

    @property
    def reports(self) -> Path:
        """Return the folder of the report."""
        return self.folder / _REPORTS

    def publish_report(self, files: Sequence[Path]) -> None:
        """Do nothing: the files were published when they were written."""

    def fetch_report(self) -> None:
        """Do nothing: the files are there."""

    def report_files(self) -> Collection[str]:
        """Return the files of the report."""
        return {path.relative_to(self.reports).as_posix() for path in self.reports.rglob("*")}

    def seen(self) -> Iterator[str]:
        """Yield path, size and time of change of every table and of the page."""
        yield from self.warehouse.seen()
        yield from stat_texts([self.reports / PAGE])


@dataclass(frozen=True)
class BucketRoot:
    """A prefix of a bucket.

    Parameters
    ----------
    bucket : Bucket
    reports : Path
        The local folder that the report is written to before it is uploaded.
    """

    bucket: Bucket
    reports: Path

    @property
    def identity(self) -> str:
        """Return the address: two stores with a bucket of the same name are told apart."""
        return f"{self.bucket.address} {self.bucket.endpoint or ''}"

    @property
    def warehouse(self) -> BucketWarehouse:
        """Return the tables and embeddings."""
        return BucketWarehouse(self.bucket)

    @property
    def claims(self) -> ClaimBucket:
        """Return the claims of steps and runs."""
        return ClaimBucket(self.bucket)

    def publish_report(self, files: Sequence[Path]) -> None:
        """Upload the files, the last one last; remove those of before that are not among them."""
        names = {path: f"{_REPORTS}/{path.relative_to(self.reports).as_posix()}" for path in files}
        before = {one.name for one in self.bucket.list(_REPORTS)}
        check_publishing()
        for path, name in names.items():
            self.bucket.write(name, path.read_bytes())
        self.bucket.remove(sorted(before - set(names.values())))

    def fetch_report(self) -> None:
        """Copy the published files to the local folder."""
        for file in self.report_files():
            content = self.bucket.read(f"{_REPORTS}/{file}")
            if content is not None:
                with written_beside(self.reports / file, durable=False) as temporary:
                    temporary.write_bytes(content)

    def report_files(self) -> Collection[str]:
        """Return the published files."""
        return {one.name.removeprefix(f"{_REPORTS}/") for one in self.bucket.list(_REPORTS)}

    def seen(self) -> Iterator[str]:
        """Yield the name and ETag of every published cell and of the page."""
        yield from self.warehouse.seen()
        yield from (f"{one.name}: {one.tag}" for one in self.bucket.list(_REPORTS) if one.name == f"{_REPORTS}/{PAGE}")
