"""Images of a cohort in a bucket: an index of all objects, made by listing them once, and studies that are read one by one.

A study is a folder of objects or one object, named by the cohort's table. It is copied to a scratch folder, read there like any
other, and removed again, so that each reading process holds one study at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.imaging.errors import ImagingError
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.bucket import REQUESTS, Bucket
from fmaudit_core.storage.processes import has_ended, process_space

_OBJECTS: Final = "objects.parquet"
_SCHEMA: Final = {"name": pl.String, "n_bytes": pl.Int64, "tag": pl.String}
_PREFIX: Final = "study."


@dataclass(frozen=True)
class BucketStudy:
    """The CT of a study: a folder of objects, or one object.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Below the bucket's prefix.
    digest : str
        Of the names, sizes and ETags of its objects when they were listed; empty if there were none.
    n_bytes : int
    scratch : Path
        Folder for the copy.
    """

    bucket: Bucket
    name: str
    digest: str
    n_bytes: int
    scratch: Path

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """Yield the path of a copy, which is removed afterwards; a path that does not exist if the study has no objects.

        Raises
        ------
        StoreError
            The bucket does not answer: no fault of the study.
        """
        _remove_left(self.scratch)  # also if the store does not answer
        found = [one.name for one in self.bucket.list(self.name) if is_shown(one.name)]
        if found:
            with copied_objects(self.bucket, found, below=self.name, scratch=self.scratch) as folder:
                yield folder
        else:  # its suffix tells the format
            parent, _, name = self.name.rpartition("/")
            with copied_objects(self.bucket, [self.name], below=parent, scratch=self.scratch) as folder:
                yield folder / name


def _remove_left(scratch: Path) -> None:
    """Remove copies of processes of this machine that were killed; those of others are removed by `fmaudit gc`."""
    for left in scratch.glob(f"{_PREFIX}{process_space()}.*"):
        if has_ended(left.name.split(".")[2]):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def copied_objects(bucket: Bucket, names: Sequence[str], *, below: str, scratch: Path) -> Iterator[Path]:
    """Yield a folder with copies of objects, named relative to `below`, which is removed afterwards; lost ones are not in it.

    Raises
    ------
    StoreError
        The bucket does not answer: no fault of the study.
    """
    _remove_left(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{process_space()}.{os.getpid()}.", dir=scratch) as temporary:
        folder = Path(temporary) / "study"

        def copy(name: str) -> None:
            content = bucket.read(name)
            if content is not None:
                path = folder / (name.removeprefix(f"{below}/") if below else name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        with ThreadPoolExecutor(REQUESTS, "images") as pool:
            list(pool.map(copy, names))
        yield folder


@dataclass(frozen=True)
class BucketImages:
    """The images of a cohort in a bucket.

    Parameters
    ----------
    bucket : Bucket
    folder : Path
        Folder of the index on this machine.
    scratch : Path
        Folder for copies of studies.
    """

    bucket: Bucket
    folder: Path
    scratch: Path

    def update(self) -> None:
        """List all objects, and keep the list."""
        listed = ((one.name, one.n_bytes, one.tag) for one in self.bucket.list("") if is_shown(one.name))
        frame = pl.DataFrame(listed, schema=_SCHEMA, orient="row").sort("name")
        with written_beside(self.folder / _OBJECTS, durable=False) as temporary:
            frame.write_parquet(temporary)

    def names(self) -> list[str]:
        """Return the names of all objects, sorted.

        Raises
        ------
        ImagingError
            The objects were not listed yet.
        """
        try:
            return pl.read_parquet(self.folder / _OBJECTS, columns=["name"], glob=False).get_column("name").to_list()
        except FileNotFoundError:
            raise self._not_listed() from None

    def find(self, names: Iterable[str]) -> dict[str, BucketStudy]:
        """Return the studies of some names that have objects: of a folder all below it, else the object itself.

        Raises
        ------
        ImagingError
            The objects were not listed yet.
        """
        wanted = pl.DataFrame({"study": list(dict.fromkeys(names))}, schema={"study": pl.String})
        try:
            objects = pl.scan_parquet(self.folder / _OBJECTS, glob=False)
            depth = objects.select(pl.col("name").str.count_matches("/", literal=True).max()).collect().item() or 0
            found = [
                objects.with_columns(study=pl.col("name").str.split("/").list.head(at).list.join("/"))
                .join(wanted.lazy(), on="study", how="semi")
                .collect()
                for at in range(1, depth + 2)
            ]
        except FileNotFoundError:
            raise self._not_listed() from None
        rows = pl.concat(found).sort("study", "name")
        return {str(study): self._study(str(study), of) for (study,), of in rows.group_by("study", maintain_order=True)}

    def without_images(self, name: str) -> BucketStudy:
        """Return a study that has no objects."""
        return BucketStudy(self.bucket, name, "", 0, self.scratch)

    def _not_listed(self) -> ImagingError:
        return ImagingError(
            "the images have not been listed yet.",
            where=str(self.bucket),
            fix="Run `fmaudit run`, or materialise the cohort in the UI.",
        )

    def _study(self, name: str, objects: pl.DataFrame) -> BucketStudy:
        digest = hashlib.sha256(objects.select("name", "n_bytes", "tag").write_ndjson().encode()).hexdigest()[:32]
        return BucketStudy(self.bucket, name, digest, int(objects.get_column("n_bytes").sum()), self.scratch)


def is_shown(name: str) -> bool:
    """Return whether no part of a name is hidden, as for files; nor one that leads out of the folder of a copy."""
    return not any(part.startswith(".") or not part for part in name.split("/"))
