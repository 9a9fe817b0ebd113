"""Reading and validation of an encoder's YAML."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from fmaudit_core.common.validation_messages import validation_messages
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec.encoder import EncoderSpec


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
        raise SpecError(validation_messages(error, EncoderSpec, whole="the spec"), where=path.name) from error
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
