"""Reference of settings: every key of a pydantic model with its type, default, bounds and meaning.

The meaning is the ``#:`` comment above the field, or what the class says of it under Parameters.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def reference(model: type[BaseModel], *, level: int, key: str = "") -> str:
    """Markdown of a model and of the sections below it, each under a heading of its own.

    Parameters
    ----------
    model : type of BaseModel
    level : int, of the headings of its sections
    key : str, where the model stands, for example ``cohort``
    """
    said = meanings(model)
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        path = f"{key}.{name}" if key else name
        below = list(_models(field.annotation))
        sections += [(path, one) for one in below if not _is_short(one)]
        lines.append(f"| `{path}` | {_kind(field)} | {_default(field)} | {_escaped(said.get(name, ''))} |")
    parts = ["\n".join(lines)]
    for path, one in sections:
        chosen = _discriminator(one)
        title = f"`{path}` with `{chosen}`" if chosen else f"`{path}`"
        label = re.sub(r"[^a-z0-9]+", "-", f"{model.__name__}-{path}-{chosen}".lower()).strip("-")
        about = _paragraphs(one)
        parts.append(f"({label})=\n{'#' * level} {title}\n\n{about}\n\n{reference(one, level=level + 1, key=path)}")
    return "\n\n".join(parts)


def keys(model: type[BaseModel], key: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a model and of what lies below it, and its meaning."""
    said = meanings(model)
    for name, field in model.model_fields.items():
        path = f"{key}.{name}" if key else name
        yield path, said.get(name, "")
        for one in _models(field.annotation):
            if not _is_short(one):
                yield from keys(one, path)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> what the source says of it, or of the field of a model that it extends."""
    said: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            said |= _from_docstring(inspect.getdoc(one) or "") | _from_comments(one)
    return said


def _from_comments(model: type[BaseModel]) -> dict[str, str]:
    source = inspect.getsource(model)
    lines = source.splitlines()
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    said = {}
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            above, at = [], statement.lineno - 2
            while lines[at].strip().startswith("#:"):
                above.insert(0, lines[at].strip()[2:].strip())
                at -= 1
            if above:
                said[statement.target.id] = _sentence(" ".join(above))
    return said


def _from_docstring(text: str) -> dict[str, str]:
    """Return the section Parameters, numpy style: a line ``name : type``, then indented text."""
    _, _, after = text.partition("Parameters\n----------\n")
    said: dict[str, str] = {}
    names: list[str] = []
    for line in after.splitlines():
        if line and not line.startswith(" "):
            head, colon, kind = line.partition(" : ")
            if not colon and not re.fullmatch(r"\w+(, \w+)*", line):
                break
            names = head.split(", ")
            said |= dict.fromkeys(names, "")
            if "," in kind and "optional" not in kind:
                said |= dict.fromkeys(names, kind.partition(",")[2].strip())
        elif line.strip():
            said |= {name: f"{said[name]} {line.strip()}".strip() for name in names}
        elif not line.strip():
            continue
    return {name: _sentence(one) for name, one in said.items() if one}


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:] if text[:1].islower() else text
    return text if text.endswith((".", ":")) else f"{text}."


def _paragraphs(model: type[BaseModel]) -> str:
    """Return the class's docstring up to its parameters."""
    return (inspect.getdoc(model) or "").partition("\nParameters\n")[0].strip()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a type consists of, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models(one)


def _is_short(model: type[BaseModel]) -> bool:
    """Whether a model is written as one word in the YAML and needs no section."""
    return model.__name__ == "AgeBand"


def _discriminator(model: type[BaseModel]) -> str:
    kind = model.model_fields.get("kind")
    return f"kind: {get_args(kind.annotation)[0]}" if kind is not None else ""


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{word} {getattr(one, name)}"
        for one in field.metadata
        for name, word in _BOUNDS
        if getattr(one, name, None) is not None
    ]
    return _escaped(", ".join([_type(field.annotation), *bounds]))


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in (Union, types.UnionType):
        models = list(_models(annotation))
        if models and all(_discriminator(one) for one in models):
            return "section, by its `kind`"
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is tuple:
        if Ellipsis in arguments:
            return f"list of {_type(arguments[0])}"
        return f"{len(arguments)} of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "text like `18-40`" if _is_short(annotation) else "section"
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return names.get(annotation, annotation.__name__.lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = (
        field.default
        if field.default is not PydanticUndefined
        else field.get_default(call_default_factory=True, validated_data={})
    )
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or value == "" or value in ((), {}):
        return "none"
    return f"`{_escaped(_yaml(value))}`"


def _yaml(value: Any) -> str:
    """Return a default as written in YAML."""
    if (isinstance(value, float) and abs(value) >= 1e-3) or isinstance(value, int | str):
        return yaml.safe_dump(value).splitlines()[0]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(one)}' for key, one in value.items())}}}"
    return str(getattr(value, "label", value))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
