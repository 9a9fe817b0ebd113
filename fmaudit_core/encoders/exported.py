"""Networks exported to one file that needs no Python class: TorchScript or ONNX, of slices or of whole volumes.

A program of slices gets preprocessed slices (the spec's `input`). A program of volumes, or of patches, gets HU on the view's grid
and does the rest itself: clipping, windows, normalisation, the order of the axes.

An ONNX file is a graph of operators and holds no code. Tensors in other files, which its SHA-256 would not cover, are refused. A
TorchScript file is not a pickle, but it is a program: it cannot reach Python or start a process, yet torch's own operators can
write files. A file whose code names such an operator, or a library outside torch, is refused before it is loaded. This check is
not a sandbox: run TorchScript from trusted sources only, and pin the file by its SHA-256.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.onnx_graph import Graph
from fmaudit_core.encoders.preprocessing import Preparation, on_device
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import (
    Placement,
    TorchEncoder,
    n_parameters,
    needs_input,
    of_volumes_on,
    placed,
)
from fmaudit_core.encoders.torchscript import read_program
from fmaudit_core.imaging.volume import Grid
from fmaudit_core.imaging.window import SliceArray


def load(spec: EncoderSpec, device: str) -> Encoder:
    """Load the adapter: (n, channels, size, size) -> (n, dim), or (n, 1, z, y, x) -> (n, dim), as computed by the file.

    Raises
    ------
    SpecError
        The variant is not `torchscript` or `onnx`, weights or input are missing, a view of volumes has an input, or the file's
        input or output sizes differ.
    WeightsError
        The file is missing, has another checksum, is damaged, or uses a forbidden operation.
    MissingExtraError
        ONNX without onnxruntime.
    """
    if spec.weights is None or spec.variant not in {"torchscript", "onnx"}:
        raise SpecError("exported needs weights, and `variant: torchscript` or `variant: onnx`.", where=spec.name)
    if spec.view.volume is not None:
        return _of_volumes(spec, spec.weights.verified(), spec.view.volume, device)
    inputs = needs_input(spec, "not stored in the file; ask its author.")
    path = spec.weights.verified()
    if spec.variant == "onnx":
        item = (len(inputs.mean), inputs.size_px, inputs.size_px)
        graph = Graph(path.read_bytes(), spec, item, device, where=str(path))
        return OnnxEncoder(graph, Preparation(inputs, spec, torch.device("cpu")))
    program = read_program(path, spec)
    with torch.inference_mode():  # the output's shape is known only after a run
        program(torch.zeros(1, len(inputs.mean), inputs.size_px, inputs.size_px))
    return TorchEncoder(program, spec, inputs, device)


def _of_volumes(spec: EncoderSpec, path: Path, grid: Grid, device: str) -> Encoder:
    if spec.input is not None:
        raise SpecError(
            "a program of whole volumes gets HU, so `input` does not apply to it.",
            where=spec.name,
            fix="Remove `input`, and let the exported program clip and normalise.",
        )
    if spec.variant == "onnx":
        return VolumeGraph(Graph(path.read_bytes(), spec, (1, *grid.item_zyx), device, where=str(path)))
    return VolumeProgram(read_program(path, spec), placed(spec, device))


class VolumeProgram:
    """A frozen TorchScript program that embeds whole volumes in HU."""

    def __init__(self, program: nn.Module, placement: Placement) -> None:
        self._program = of_volumes_on(program, placement)
        self._placement, self.device = placement, str(placement)
        #: number of parameters of the network as loaded
        self.n_parameters = n_parameters(program)

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed volumes, (n, slices, 1, rows, columns) int16 HU, as (n, dim) float32."""
        there = on_device(slices.swapaxes(1, 2), self._placement.device)
        return self._placement.embedded(self._program, there.to(torch.float32))


class VolumeGraph:
    """A frozen ONNX graph that embeds whole volumes in HU."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self.device = graph, graph.device

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed volumes, (n, slices, 1, rows, columns) int16 HU, as (n, dim) float32."""
        return self._graph.run(_hu(slices))


def _hu(volumes: SliceArray) -> npt.NDArray[np.float32]:
    """Return volumes, (n, slices, 1, rows, columns) int16, as (n, 1, slices, rows, columns) float32."""
    return np.ascontiguousarray(volumes.swapaxes(1, 2), dtype=np.float32)


class OnnxEncoder:
    """A frozen ONNX graph that embeds slices."""

    #: number of parameters of the network it was converted from; None if it came as a file
    n_parameters: int | None = None

    def __init__(self, graph: Graph, prepared: Preparation) -> None:
        self._graph, self._prepared, self.device = graph, prepared, graph.device

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed slices, (n, channels, rows, columns) uint8 or HU, as (n, dim) float32."""
        return self._graph.run(self._prepared(slices).contiguous().numpy())
