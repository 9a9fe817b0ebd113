"""TorchScript programs: checked for operators that reach beyond tensors, then loaded."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import needs_dim

_CODE: Final = re.compile(r"^[^/]+/code/.+\.py$")
#: operators that read or write files, and namespaces outside tensor computation
_FORBIDDEN: Final = re.compile(
    r"\b(?:torch|ops\.aten)\.(?:save|load|from_file)\b"
    r"|\bops\.(?!(?:aten|prim|quantized|torchvision)\.)\w+"
    r"|\b__torch__\.torch\.classes\b"
)


class Program(nn.Module):
    """A TorchScript program whose output must be one matrix of the spec's width."""

    def __init__(self, program: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.program, self._spec = program, spec

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, size, size), or (n, 1, z, y, x), to (n, dim)."""
        try:
            out = self.program(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            message = (str(error).strip().splitlines() or [""])[-1][:200]
            raise EncoderError(f"the TorchScript program failed: {message}", where=self._spec.name) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != len(images):
            raise SpecError(
                f"the TorchScript program does not return one vector per {self._spec.view.item}.", where=self._spec.name
            )
        needs_dim(self._spec, out.shape[1])
        return out


def read_program(path: Path, spec: EncoderSpec) -> Program:
    """Read a TorchScript file, in eval mode.

    Raises
    ------
    WeightsError
        The file is damaged, holds no program, or uses a forbidden operator; such a program is not run.
    """
    return Program(_loaded(path), spec).eval()


def _loaded(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            code = {name: archive.read(name).decode() for name in names if _CODE.match(name)}
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise WeightsError("the file is not a complete TorchScript archive.", where=str(path)) from error
    if not code or len(set(names)) != len(names):
        raise WeightsError("the file holds no TorchScript program.", where=str(path))
    for text in code.values():
        if found := _FORBIDDEN.search(text):
            raise WeightsError(
                f"the TorchScript program uses {found[0]}, which is not a tensor operation; the program was not run.",
                where=str(path),
                fix="Export the network without it.",
            )
    try:
        with warnings.catch_warnings():
            # torch still reads TorchScript, but warns that it is deprecated
            warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=FutureWarning)
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # not typed in torch
    except (RuntimeError, ValueError) as error:
        message = (str(error).strip().splitlines() or [""])[0][:160]
        raise WeightsError(f"the TorchScript program cannot be loaded ({message}).", where=str(path)) from error
