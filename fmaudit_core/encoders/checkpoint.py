"""Tensors of a checkpoint, read without executing code: safetensors, whole or sharded, and pickles of tensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from fmaudit_core.encoders.checksums import INDEX_SUFFIX, weight_map
from fmaudit_core.encoders.errors import WeightsError

State = dict[str, torch.Tensor]


def read_checkpoint(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> State:
    """Read the tensors of a checkpoint by name; a pickle is opened for tensors only, never for code.

    The file type is detected from the content: some safetensors files are called `.pt`.

    Parameters
    ----------
    wanted : callable
        Selects tensors by name. Of safetensors only these are read; of a pickle only these are kept.

    Raises
    ------
    WeightsError
        The file is truncated, does not hold tensors only, or is not a checkpoint.
    """
    try:
        if path.name.endswith(INDEX_SUFFIX):
            return _sharded(path, wanted)
        if _is_safetensors(path):
            return _safetensors(path, wanted)
        # only the zip format can be memory-mapped; then unwanted tensors are never read
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except WeightsError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds of errors for a damaged file
        message = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"the checkpoint cannot be read safely ({message}).", where=str(path)) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise WeightsError("the checkpoint does not hold tensors by name.", where=str(path))
    return {name: tensor for name, tensor in state.items() if wanted(name)}


def read_part(path: Path, prefix: str, left_out: tuple[str, ...] = ()) -> State:
    """Read the tensors whose names start with a prefix, named without it.

    Parameters
    ----------
    left_out : tuple of str
        Prefixes below `prefix` of tensors that do not belong to the embedding, such as a classifier's.

    Raises
    ------
    WeightsError
        As of `read_checkpoint`, or no name starts with the prefix.
    """
    unwanted = tuple(prefix + name for name in left_out)
    state = read_checkpoint(path, wanted=lambda name: name.startswith(prefix) and not name.startswith(unwanted))
    if not state:
        raise WeightsError(
            f"the checkpoint holds no tensor whose name starts with {prefix!r}.",
            where=path.name,
            fix="Get the right file, or correct the prefix in the spec.",
        )
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _is_safetensors(path: Path) -> bool:
    """Return whether a file starts like safetensors: the length of the header, 8 bytes, then a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" or path.suffix == ".safetensors"


def _safetensors(path: Path, wanted: Callable[[str], bool]) -> State:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118  # no mapping


def _sharded(index: Path, wanted: Callable[[str], bool]) -> State:
    expected = weight_map(index)
    state: State = {}
    for file in sorted(set(expected.values())):
        with safe_open(index.parent / file, framework="pt") as shard:
            held = set(shard.keys())
            promised = {name for name, place in expected.items() if place == file}
            if held != promised:
                odd = sorted(held ^ promised)[0]
                raise WeightsError(f"the index and the shard {file} disagree about the tensor {odd}.", where=str(index))
            state |= {name: shard.get_tensor(name) for name in sorted(held) if wanted(name)}
    return state


def read_config(path: Path) -> dict[str, Any]:
    """Read a model's config, a JSON object.

    Raises
    ------
    WeightsError
        It is missing or not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError("the model's config is missing or not JSON.", where=str(path)) from error
    if not isinstance(config, dict):
        raise WeightsError("the model's config is not a JSON object.", where=str(path))
    return config
