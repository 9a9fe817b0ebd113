"""The complete spec of an encoder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.pooling import POOLINGS, VOLUME
from fmaudit_core.encoders.published import Published
from fmaudit_core.encoders.spec.imported import ImportedFile
from fmaudit_core.encoders.spec.network_input import Input
from fmaudit_core.encoders.spec.part import Part
from fmaudit_core.encoders.spec.predicted import PredictionsFile
from fmaudit_core.encoders.spec.timm_options import TimmOptions
from fmaudit_core.encoders.spec.weights import Weights
from fmaudit_core.imaging.window import View

#: the adapter of embeddings computed elsewhere
IMPORTED: Final = "imported"
#: the adapter of a model audited by its predictions alone; without embeddings there is no probe and no mitigation
PREDICTIONS: Final = "predictions"
#: adapters whose network is built here and may be convolutional
_WITH_RUNTIMES: Final = ("efficientnet", "timm")
_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class EncoderSpec(Part):
    """A frozen encoder, as declared in its YAML.

    Parameters
    ----------
    name : str
        Partition key and folder name.
    title : str
        Display name; defaults to `name`.
    adapter : str
        A built-in adapter or one of the entry-point group `fmaudit.encoders`.
    variant : str
        One of the adapter's networks, or one of its outputs; the options depend on the adapter.
    weights : Weights, optional
        The checkpoint; not needed by an adapter without weights.
    published : Published, optional
        Source of the weights, for a spec that ships without them.
    view : View
        The part of a CT that the encoder reads, and its grey values.
    input : Input, optional
        Preprocessing of slices to the network's input, for adapters that accept slices of any size.
    dim : int
        Length of an embedding.
    batch_size : int
        Slices, volumes or patches per forward pass.
    control : bool
        Whether this is a control that every real encoder must beat.
    dtype : str
        Precision on CUDA; a CPU always computes in float32.
    device : "any" or "cuda"
        Intended device; `any` uses CUDA if available.
    cpu_fallback : bool
        Whether an encoder meant for CUDA may run on a CPU.
    runtime : "auto", "torch" or "onnxruntime"
        With the adapters `efficientnet` and `timm`, on a CPU: what computes the network. `auto` uses onnxruntime for
        convolutional networks, where it is about twice as fast, and torch for others. Embeddings differ by rounding only.
    options : TimmOptions, optional
        With the adapter `timm`: how the network is built.
    embeddings : ImportedFile, optional
        With the adapter `imported`: nothing is computed, and no CT is read.
    predictions : tuple of PredictionsFile
        With the adapter `predictions`, one for each of its tasks: a baseline that is audited alongside the encoders.
    licence, source, notes : str
        Descriptive text; the report shows the first two.
    """

    name: str
    title: str = ""
    adapter: str
    variant: str = ""
    weights: Weights | None = None
    published: Published | None = None
    view: View = View()
    input: Input | None = None
    options: TimmOptions | None = None
    embeddings: ImportedFile | None = None
    predictions: tuple[PredictionsFile, ...] = ()
    dim: int = Field(ge=0)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["any", "cuda"] = "any"
    cpu_fallback: bool = True
    runtime: Literal["auto", "torch", "onnxruntime"] = "auto"
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
                f"`predictions: [{{task, path, sha256}}]` is required for `adapter: {PREDICTIONS}` and not allowed "
                "for others"
            )
        tasks = [one.task for one in self.predictions]
        if len(set(tasks)) != len(tasks):
            raise ValueError("`predictions` names a task twice")
        if (self.dim == 0) != bool(self.predictions):
            raise ValueError("`dim` must be 1 or more for embeddings, and is not allowed for predictions")
        return self

    @model_validator(mode="after")
    def _imported_or_computed(self) -> Self:
        if (self.adapter == IMPORTED) != (self.embeddings is not None):
            raise ValueError(
                f"`embeddings: {{path, sha256}}` is required for `adapter: {IMPORTED}` and not allowed for others"
            )
        return self

    @model_validator(mode="after")
    def _options_of_timm(self) -> Self:
        if self.options is not None and self.adapter != "timm":
            raise ValueError("`options` applies to `adapter: timm` only")
        return self

    @model_validator(mode="after")
    def _runtime_of_its_adapter(self) -> Self:
        if self.runtime != "auto" and self.adapter not in _WITH_RUNTIMES:
            raise ValueError(f"`runtime` applies to `adapter: {'` and `adapter: '.join(_WITH_RUNTIMES)}` only")
        return self

    @model_validator(mode="after")
    def _input_of_its_view(self) -> Self:
        if self.input is None:
            return self
        if self.view.values == "uint8" and self.input.of_hu:
            raise ValueError("`clip_hu` and `zscore` apply to slices in HU: set `values: int16` in the view")
        if self.view.values == "int16" and self.input.scale == 255.0:
            raise ValueError("slices in HU are not 8-bit: remove `scale: 255` from `input`")
        return self

    @property
    def sees_images(self) -> bool:
        """Return whether the encoder is run on CT; False for embeddings and predictions computed elsewhere."""
        return self.embeddings is None and not self.predictions

    @property
    def embeds(self) -> bool:
        """Return whether it has embeddings, so that it can be probed and mitigated; a baseline has predictions only."""
        return not self.predictions

    def tasks_of(self, audited: Sequence[str]) -> list[str]:
        """Return the audited tasks that apply to this encoder: all, or for a baseline those it predicts."""
        own = {one.task for one in self.predictions}
        return [task for task in audited if self.embeds or task in own]

    def predictions_of(self, task: str) -> PredictionsFile:
        """Return a baseline's file for one task.

        Raises
        ------
        SpecError
            The baseline does not predict the task.
        """
        for one in self.predictions:
            if one.task == task:
                return one
        raise SpecError(f"it has no predictions for the task {task}.", where=self.name)

    @property
    def has_slices(self) -> bool:
        """Return whether embeddings of slices, or patches, exist; False for whole volumes and embeddings computed elsewhere."""
        return self.sees_images and (self.view.volume is None or self.view.of_patches)

    @property
    def poolings(self) -> tuple[str, ...]:
        """Return the names of its study embeddings."""
        if self.predictions:
            return ()
        if self.embeddings is not None:
            return (self.embeddings.pooling,)
        return POOLINGS if self.has_slices else (VOLUME,)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the checkpoint or of the imported file; empty if there is none, or several."""
        if len(self.predictions) == 1:
            return self.predictions[0].sha256
        proved = self.embeddings or self.weights
        return proved.sha256 if proved else ""

    def located_files(self) -> tuple[Path, ...]:
        """Return the paths of the checkpoint's or the imported files; none is read.

        Raises
        ------
        WeightsError, ImportedFileError, PredictionsFileError
            A file is not there.
        """
        if self.embeddings is not None:
            return (self.embeddings.located(),)
        if self.predictions:
            return tuple(one.located() for one in self.predictions)
        return self.weights.located_parts() if self.weights is not None else ()

    @property
    def label(self) -> str:
        """Return the title, or the name if no title is given."""
        return self.title or self.name

    @property
    def needs_weights(self) -> bool:
        """Return whether this is a spec of published weights that are not yet present."""
        return self.weights is None and self.published is not None

    def digest(self) -> str:
        """Return the digest of everything that determines the embeddings; titles, notes, batch size and paths do not."""
        seen: dict[str, Any] = {
            "adapter": self.adapter,
            "variant": self.variant,
            "weights": self.weights.sha256 if self.weights else None,
            "config": self.weights.config_sha256 if self.weights else None,
            "view": self.view.key(),
            "input": self.input.key() if self.input else None,
            "dim": self.dim,
            "dtype": self.dtype,
        }
        if self.options is not None:
            seen["options"] = self.options.model_dump(mode="json")
        if self.embeddings is not None:
            seen["embeddings"] = self.embeddings.model_dump(mode="json", exclude={"path"})
        if self.predictions:
            seen["predictions"] = sorted((one.task, one.sha256) for one in self.predictions)
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:32]
