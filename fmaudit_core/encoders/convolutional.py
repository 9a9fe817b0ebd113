"""Convolutional networks on a CPU: converted to an ONNX graph, which onnxruntime runs about twice as fast as torch.

The spec's `runtime` decides; embeddings differ by rounding only, which is checked when the encoder is loaded. On CUDA torch is
always used.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import Final

import torch
from torch import nn

from fmaudit_core.common.errors import MissingExtraError, needs_extra
from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.encoders.exported import OnnxEncoder
from fmaudit_core.encoders.onnx_graph import Graph
from fmaudit_core.encoders.preprocessing import Preparation
from fmaudit_core.encoders.similarity import cosines
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.encoders.torch_network import TorchEncoder, n_parameters, placed

#: largest cosine distance between the embeddings of torch and of the graph
TOLERANCE: Final = 1e-5
_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_log = logging.getLogger(__name__)


def slice_encoder(network: nn.Module, spec: EncoderSpec, inputs: Input, device: str) -> Encoder:
    """Return the encoder of a network of slices in the runtime of its spec.

    Parameters
    ----------
    network : nn.Module
        (n, channels, size, size) float -> (n, dim)
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    EncoderError
        `runtime: onnxruntime`, and the network cannot be converted or its embeddings differ.
    MissingExtraError
        `runtime: onnxruntime` without onnxruntime or onnx.
    """
    network.eval()
    if placed(spec, device).device.type != "cpu" or spec.runtime == "torch":
        return TorchEncoder(network, spec, inputs, device)
    if spec.runtime == "onnxruntime":
        return converted(network, spec, inputs)
    if not mostly_convolutions(network):
        return TorchEncoder(network, spec, inputs, device)
    try:
        return converted(network, spec, inputs)
    except MissingExtraError:
        _log.info("%s runs on torch: onnxruntime would be faster, but it or onnx is not installed.", spec.name)
    except EncoderError as error:
        _log.warning("%s runs on torch: %s", spec.name, error.what)
    return TorchEncoder(network, spec, inputs, device)


def mostly_convolutions(network: nn.Module) -> bool:
    """Return whether most parameters are those of convolutions; for other networks onnxruntime is no faster."""
    modules = [one for one in network.modules() if isinstance(one, _CONVOLUTIONS)]
    return 2 * sum(one.weight.numel() for one in modules) > n_parameters(network)


@torch.inference_mode()
def converted(network: nn.Module, spec: EncoderSpec, inputs: Input) -> Encoder:
    """Return a network as an ONNX graph on the CPU.

    Raises
    ------
    EncoderError
        It cannot be converted, or its embeddings differ from torch's.
    MissingExtraError
        onnx or onnxruntime is not installed.
    """
    with needs_extra("encoders", "`runtime: onnxruntime`"):
        import onnx  # noqa: F401  # torch's exporter fails without it, later and in other words

    item = (len(inputs.mean), inputs.size_px, inputs.size_px)
    example = torch.randn(2, *item, generator=torch.Generator().manual_seed(0))
    program = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecation; the other one takes twenty times as long
            torch.onnx.export(
                network, (example,), program, dynamo=False, opset_version=18,  # type: ignore[arg-type]  # its stub lacks file objects
                input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            )  # fmt: skip
    except Exception as error:  # the exporter raises errors of many kinds
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise EncoderError(f"its network cannot be converted for onnxruntime ({message}).", where=spec.name) from error
    graph = Graph(program.getvalue(), spec, item, "cpu", where=spec.name)
    distance = 1 - float(cosines(network(example).numpy(), graph.run(example.numpy())).min())
    if not distance < TOLERANCE:
        raise EncoderError(
            f"its embeddings under onnxruntime differ from torch's (cosine distance {distance:.1e}).",
            where=spec.name,
            fix="Set `runtime: torch` in its spec.",
        )
    encoder = OnnxEncoder(graph, Preparation(inputs, spec, torch.device("cpu")))
    encoder.n_parameters = n_parameters(network)
    return encoder
