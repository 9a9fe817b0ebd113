"""Reader of audit.yaml: returns an `Audit` or raises an error that explains what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fmaudit_core.common.validation_messages import validation_messages
from fmaudit_core.config.audit import Audit
from fmaudit_core.config.environment import home_from_environment
from fmaudit_core.config.errors import ConfigError


def load_audit(path: Path) -> Audit:
    """Read and validate an audit.yaml.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error}).",
            where=str(path),
            fix="Write one with `fmaudit init --phantom`, `--inspect DIR`, or `--table FILE --images DIR`.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text.", where=str(path)) from error
    try:
        raw = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"is not valid YAML: {error.problem}.", where=f"{path}{at}") from error
    except yaml.YAMLError as error:
        raise ConfigError("is not valid YAML.", where=str(path)) from error
    if not isinstance(raw, dict):
        raise ConfigError("has no settings.", where=str(path), fix="It needs at least a `cohort:` section.")
    audit = validated(raw, where=str(path))
    home = home_from_environment()
    if home is not None:
        audit = audit.model_copy(update={"home": home})
    return audit.anchored_at(path.absolute().parent)


def validated(raw: dict[str, Any], *, where: str) -> Audit:
    """Validate plain values and return them as an `Audit`, with paths unchanged.

    Raises
    ------
    ConfigError
        A key is unknown, missing or out of range.
    """
    try:
        return Audit.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(validation_messages(error, Audit, whole="the file"), where=where) from error
