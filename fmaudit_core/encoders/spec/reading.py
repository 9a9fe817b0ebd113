"""Reading and validation of an encoder's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fmaudit_core.common.validation_messages import validation_messages
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec.encoder import IMPORTED, PREDICTIONS, EncoderSpec
from fmaudit_core.encoders.spec.imported import HOW_TO_IMPORT
from fmaudit_core.encoders.spec.predicted import HOW_TO_PREDICT


def load_spec(path: Path) -> EncoderSpec:
    """Read one encoder's YAML; relative paths are resolved from the YAML's folder.

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
        said = validation_messages(error, EncoderSpec, whole="the spec")
        raise SpecError(said, where=path.name, fix=_how_to_write(raw)) from error
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


def _how_to_write(raw: Mapping[str, Any]) -> str | None:
    """Return what a spec without a network holds, None for a spec of a network."""
    if raw.get("adapter") == IMPORTED or "embeddings" in raw:
        return HOW_TO_IMPORT
    return HOW_TO_PREDICT if raw.get("adapter") == PREDICTIONS or "predictions" in raw else None
