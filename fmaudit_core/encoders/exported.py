"""A network in one file that needs no class of its own: TorchScript or ONNX.

An ONNX file is a graph of operators and holds no code; tensors in other files, which its SHA-256 would not cover, are
refused. A TorchScript file is no pickle, but it is a program: it cannot reach Python or start a process, yet torch's own
operators can write files. A file whose code names such an operator, or a library outside torch, is refused before it is
loaded. That is a guard, not a sandbox: run TorchScript of people you trust, and let the SHA-256 hold it to what they gave.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.preprocessing import Preparation
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.encoders.torch_network import TorchEncoder, needs_dim, needs_input, placed
from fmaudit_core.imaging.window import SliceArray

_CODE: Final = re.compile(r"^[^/]+/code/.+\.py$")
#: operators that read or write files, and namespaces beyond tensors
_FORBIDDEN: Final = re.compile(
    r"\b(?:torch|ops\.aten)\.(?:save|load|from_file)\b"
    r"|\bops\.(?!(?:aten|prim|quantized|torchvision)\.)\w+"
    r"|\b__torch__\.torch\.classes\b"
)
_ELEMENTS: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def load(spec: EncoderSpec, device: str) -> TorchEncoder | OnnxEncoder:
    """Adapter entry: (n, channels, size, size) -> (n, dim), as the file computes it.

    Raises
    ------
    SpecError
        The variant is not `torchscript` or `onnx`, weights or input are missing, or the file takes or gives other sizes.
    WeightsError
        The file is missing, another one, damaged, or does what is not allowed.
    MissingExtraError
        ONNX without onnxruntime.
    """
    if spec.weights is None or spec.variant not in {"torchscript", "onnx"}:
        raise SpecError("exported needs weights, and `variant: torchscript` or `variant: onnx`.", where=spec.name)
    inputs = needs_input(spec, "the file does not say; its author has to.")
    path = spec.weights.verified()
    if spec.variant == "onnx":
        return OnnxEncoder(path, spec, inputs, device)
    program = _Program(_program(path), spec).eval()
    with torch.inference_mode():  # what it gives shows only when it runs
        program(torch.zeros(1, len(inputs.mean), inputs.size_px, inputs.size_px))
    return TorchEncoder(program, spec, inputs, device)


class _Program(nn.Module):
    """A TorchScript program, held to giving one matrix of the spec's width."""

    def __init__(self, program: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.program, self._spec = program, spec

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, size, size) -> (n, dim)."""
        try:
            out = self.program(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = (str(error).strip().splitlines() or [""])[-1][:200]
            raise EncoderError(f"the TorchScript program failed: {said}", where=self._spec.name) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != len(images):
            raise SpecError("the TorchScript program does not give one vector per slice.", where=self._spec.name)
        needs_dim(self._spec, out.shape[1])
        return out


def _program(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            code = {name: archive.read(name).decode() for name in names if _CODE.match(name)}
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise WeightsError("the file is no whole TorchScript archive.", where=str(path)) from error
    if not code or len(set(names)) != len(names):
        raise WeightsError("the file holds no TorchScript program.", where=str(path))
    for text in code.values():
        if found := _FORBIDDEN.search(text):
            raise WeightsError(
                f"the TorchScript program uses {found[0]}, which is no computation on tensors; it was not run.",
                where=str(path),
                fix="Export the network without it.",
            )
    try:
        with warnings.catch_warnings():
            # torch still reads TorchScript, and tells everybody to write something else
            warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=FutureWarning)
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # not typed in torch
    except (RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [""])[0][:160]
        raise WeightsError(f"the TorchScript program cannot be loaded ({said}).", where=str(path)) from error


class OnnxEncoder:
    """A frozen ONNX graph that embeds slices, run by onnxruntime.

    Parameters
    ----------
    path : Path
        The verified file, all tensors inside.
    spec : EncoderSpec
    inputs : Input
    device : "auto", "cpu" or "cuda"
        CUDA needs an onnxruntime that was built for it.
    """

    def __init__(self, path: Path, spec: EncoderSpec, inputs: Input, device: str) -> None:
        with needs_extra("encoders", "an ONNX encoder"):
            import onnxruntime
        cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not cuda:
            raise EncoderError("CUDA is asked for, but this onnxruntime has none.", where=spec.name)
        placement = placed(spec, device if cuda else "cpu")
        self.device = f"{placement}, onnxruntime"
        self._spec = spec
        self._prepared = Preparation(inputs, spec, torch.device("cpu"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is fatal is raised
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # tensors outside the file are looked for where nothing is, so that a graph that has some is refused
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path / "no tensors outside the file")
        )
        providers = ["CUDAExecutionProvider"] if placement.device.type == "cuda" else []
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises kinds of its own, without a common root
            said = (str(error).strip().splitlines() or [""])[0][:200]
            raise WeightsError(f"the ONNX graph cannot be loaded ({said}).", where=str(path)) from error
        self._fits(inputs)

    def _fits(self, inputs: Input) -> None:
        """Compare the graph's own shapes with the spec's; a name stands where any size goes."""
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if len(taken) != 1 or len(given) != 1 or taken[0].type not in _ELEMENTS:
            raise SpecError("the ONNX graph must take one image tensor and give one tensor.", where=self._spec.name)
        shape, wanted = taken[0].shape, (len(inputs.mean), inputs.size_px, inputs.size_px)
        if len(shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(shape[1:], wanted, strict=True)):
            raise SpecError(f"the ONNX graph takes {shape}, the spec's input is {wanted}.", where=self._spec.name)
        if len(given[0].shape) != 2:
            raise SpecError("the ONNX graph does not give one vector per slice.", where=self._spec.name)
        if isinstance(given[0].shape[1], int):
            needs_dim(self._spec, given[0].shape[1])
        self._name, self._element = taken[0].name, _ELEMENTS[taken[0].type]
        #: an export for one batch size takes no other
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """(n, channels, rows, columns) uint8 -> (n, dim) float32."""
        values = self._prepared(slices).contiguous().numpy().astype(self._element, copy=False)
        batch = self._batch or len(values)
        out = []
        for start in range(0, len(values), batch):
            part = values[start : start + batch]
            # the last part is filled up with its first slice, whose second embedding is dropped
            filled = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
            out.append(self._session.run(None, {self._name: filled})[0][: len(part)])
        return np.concatenate(out).astype(np.float32, copy=False)
