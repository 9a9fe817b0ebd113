"""ONNX graphs, run by onnxruntime; a graph with tensors in other files is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import needs_dim, placed

#: below a file, so that it cannot exist
_NOWHERE: Final = str(Path(__file__) / "no tensors outside the file")
_ELEMENTS: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Graph:
    """A frozen ONNX graph, run by onnxruntime.

    Parameters
    ----------
    program : bytes
        The graph, with all tensors inside.
    where : str
        Its file, or the encoder, as named in an error.
    spec : EncoderSpec
    item : tuple of int
        Shape of one item: (channels, size, size) or (1, z, y, x).
    device : "auto", "cpu" or "cuda"
        CUDA needs an onnxruntime built for it.
    """

    def __init__(self, program: bytes, spec: EncoderSpec, item: tuple[int, ...], device: str, *, where: str) -> None:
        with needs_extra("encoders", "an ONNX encoder"):
            import onnxruntime
        cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not cuda:
            raise EncoderError("CUDA was requested, but this onnxruntime does not support it.", where=spec.name)
        placement = placed(spec, device if cuda else "cpu")
        self.device = f"{placement}, onnxruntime"
        self._spec = spec
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal errors are raised anyway
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # external tensors are looked up in a folder that does not exist, so that a graph with any is refused
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        providers = ["CUDAExecutionProvider"] if placement.device.type == "cuda" else []
        try:
            self._session = onnxruntime.InferenceSession(
                program, options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors have no common base class
            message = (str(error).strip().splitlines() or [""])[0][:200]
            raise WeightsError(f"the ONNX graph cannot be loaded ({message}).", where=where) from error
        self._fits(item)

    def _fits(self, item: tuple[int, ...]) -> None:
        """Compare the graph's own shapes with the spec's; a symbolic dimension fits any size."""
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if len(taken) != 1 or len(given) != 1 or taken[0].type not in _ELEMENTS:
            raise SpecError(
                "the ONNX graph must have one image tensor as input and one tensor as output.", where=self._spec.name
            )
        shape = taken[0].shape
        if len(shape) != len(item) + 1 or any(
            isinstance(a, int) and a != b for a, b in zip(shape[1:], item, strict=True)
        ):
            raise SpecError(
                f"the ONNX graph's input is {shape}, but the spec's {self._spec.view.item} is {item}.",
                where=self._spec.name,
            )
        if len(given[0].shape) != 2:
            raise SpecError(
                f"the ONNX graph does not return one vector per {self._spec.view.item}.", where=self._spec.name
            )
        if isinstance(given[0].shape[1], int):
            needs_dim(self._spec, given[0].shape[1])
        self._name, self._element = taken[0].name, _ELEMENTS[taken[0].type]
        #: fixed batch size of the export, if any
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

    def run(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map items, (n, ...) float32, to (n, dim) float32."""
        values = values.astype(self._element, copy=False)
        batch = self._batch or len(values)
        out = []
        for start in range(0, len(values), batch):
            part = values[start : start + batch]
            # the last part is padded with copies of its first item, whose embeddings are dropped
            filled = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
            out.append(self._session.run(None, {self._name: filled})[0][: len(part)])
        return np.concatenate(out).astype(np.float32, copy=False)
