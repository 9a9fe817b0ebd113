"""Messages for the errors that pydantic finds in a user's YAML, understandable without the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fmaudit_core.common.errors import did_you_mean
from fmaudit_core.common.local_paths import address_problem


def validation_messages(error: ValidationError, model: type[BaseModel], *, whole: str) -> str:
    """Return messages with key, problem and given value. For an unknown key, the nearest existing key is suggested.

    Parameters
    ----------
    model : class
        The validated model.
    whole : str
        Name of the subject of an error that concerns no single key.
    """
    problems = error.errors(include_url=False)
    # a default that is computed from other settings cannot be, if one of them is wrong: no problem of its own
    own = [one for one in problems if one["type"] != "default_factory_not_called"]
    return "; ".join(_message(one, model, whole) for one in own) + "."


def _message(problem: Any, model: type[BaseModel], whole: str) -> str:
    keys, known = _followed(model, problem["loc"])
    key = ".".join(keys) or whole
    if problem["type"] == "extra_forbidden":
        return f"{did_you_mean(key, ['.'.join((*keys[:-1], name)) for name in known])}: unknown setting"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    given = problem["input"]
    # an address may hold a password
    is_shown = (
        isinstance(given, str | int | float | bool) and address_problem(text := str(given)) is None and "@" not in text
    )
    shown = f" (given: {given!r})" if is_shown else ""
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _followed(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Return the YAML keys of a location, without pydantic's names of union members, and the valid keys at the last level."""
    models, keys, known = [model], list[str](), list[str]()
    for part in loc:
        kinds = [one for one in models if len(models) > 1 and part in _kinds(one)]
        if kinds:
            models = kinds
            continue
        keys.append(str(part))
        if isinstance(part, str):
            known = [name for one in models for name in one.model_fields]
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return keys, known


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models_in(one)
