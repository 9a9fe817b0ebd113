"""Networks exported to one file that needs no Python class: TorchScript or ONNX.

An ONNX file is a graph of operators and holds no code. Tensors in other files, which its SHA-256 would not cover, are refused. A
TorchScript file is not a pickle, but it is a program: it cannot reach Python or start a process, yet torch's own operators can
write files. A file whose code names such an operator, or a library outside torch, is refused before it is loaded. This check is
not a sandbox: run TorchScript from trusted sources only, and pin the file by its SHA-256.
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
#: operators that read or write files, and namespaces outside tensor computation
_FORBIDDEN: Final = re.compile(
    r"\b(?:torch|ops\.aten)\.(?:save|load|from_file)\b"
    r"|\bops\.(?!(?:aten|prim|quantized|torchvision)\.)\w+"
    r"|\b__torch__\.torch\.classes\b"
)
_ELEMENTS: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def load(spec: EncoderSpec, device: str) -> TorchEncoder | OnnxEncoder:
    """Load the adapter: (n, channels, size, size) -> (n, dim), as computed by the file.

    Raises
    ------
    SpecError
        The variant is not `torchscript` or `onnx`, weights or input are missing, or the file's input or output sizes differ.
    WeightsError
        The file is missing, has another checksum, is damaged, or uses a forbidden operation.
    MissingExtraError
        ONNX without onnxruntime.
    """
    if spec.weights is None or spec.variant not in {"torchscript", "onnx"}:
        raise SpecError("exported needs weights, and `variant: torchscript` or `variant: onnx`.", where=spec.name)
    inputs = needs_input(spec, "not stored in the file; ask its author.")
    path = spec.weights.verified()
    if spec.variant == "onnx":
        return OnnxEncoder(path, spec, inputs, device)
    program = _Program(_program(path), spec).eval()
    with torch.inference_mode():  # the output's shape is known only after a run
        program(torch.zeros(1, len(inputs.mean), inputs.size_px, inputs.size_px))
    return TorchEncoder(program, spec, inputs, device)


class _Program(nn.Module):
    """A TorchScript program whose output must be one matrix of the spec's width."""

    def __init__(self, program: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.program, self._spec = program, spec

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, size, size) to (n, dim)."""
        try:
            out = self.program(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            message = (str(error).strip().splitlines() or [""])[-1][:200]
            raise EncoderError(f"the TorchScript program failed: {message}", where=self._spec.name) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != len(images):
            raise SpecError("the TorchScript program does not return one vector per slice.", where=self._spec.name)
        needs_dim(self._spec, out.shape[1])
        return out


def _program(path: Path) -> Any:
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


class OnnxEncoder:
    """A frozen ONNX graph that embeds slices, run by onnxruntime.

    Parameters
    ----------
    path : Path
        The verified file, with all tensors inside.
    spec : EncoderSpec
    inputs : Input
    device : "auto", "cpu" or "cuda"
        CUDA needs an onnxruntime built for it.
    """

    def __init__(self, path: Path, spec: EncoderSpec, inputs: Input, device: str) -> None:
        with needs_extra("encoders", "an ONNX encoder"):
            import onnxruntime
        cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not cuda:
            raise EncoderError("CUDA was requested, but this onnxruntime does not support it.", where=spec.name)
        placement = placed(spec, device if cuda else "cpu")
        self.device = f"{placement}, onnxruntime"
        self._spec = spec
        self._prepared = Preparation(inputs, spec, torch.device("cpu"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal errors are raised anyway
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # external tensors are looked up in a folder that does not exist, so that a graph with any is refused
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path / "no tensors outside the file")
        )
        providers = ["CUDAExecutionProvider"] if placement.device.type == "cuda" else []
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors have no common base class
            message = (str(error).strip().splitlines() or [""])[0][:200]
            raise WeightsError(f"the ONNX graph cannot be loaded ({message}).", where=str(path)) from error
        self._fits(inputs)

    def _fits(self, inputs: Input) -> None:
        """Compare the graph's own shapes with the spec's; a symbolic dimension fits any size."""
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if len(taken) != 1 or len(given) != 1 or taken[0].type not in _ELEMENTS:
            raise SpecError(
                "the ONNX graph must have one image tensor as input and one tensor as output.", where=self._spec.name
            )
        shape, wanted = taken[0].shape, (len(inputs.mean), inputs.size_px, inputs.size_px)
        if len(shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(shape[1:], wanted, strict=True)):
            raise SpecError(
                f"the ONNX graph's input is {shape}, but the spec's input is {wanted}.", where=self._spec.name
            )
        if len(given[0].shape) != 2:
            raise SpecError("the ONNX graph does not return one vector per slice.", where=self._spec.name)
        if isinstance(given[0].shape[1], int):
            needs_dim(self._spec, given[0].shape[1])
        self._name, self._element = taken[0].name, _ELEMENTS[taken[0].type]
        #: fixed batch size of the export, if any
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed slices, (n, channels, rows, columns) uint8, as (n, dim) float32."""
        values = self._prepared(slices).contiguous().numpy().astype(self._element, copy=False)
        batch = self._batch or len(values)
        out = []
        for start in range(0, len(values), batch):
            part = values[start : start + batch]
            # the last part is padded with copies of its first slice, whose embeddings are dropped
            filled = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
            out.append(self._session.run(None, {self._name: filled})[0][: len(part)])
        return np.concatenate(out).astype(np.float32, copy=False)
