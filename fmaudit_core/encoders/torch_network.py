"""Shared parts of the torch adapters: device and precision, eval and inference mode, and strict loading."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.preprocessing import Preparation
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.imaging.window import SliceArray

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Device and precision of an encoder; its text is recorded in the provenance."""

    device: torch.device
    dtype: torch.dtype
    fell_back: bool

    def __str__(self) -> str:
        if self.fell_back:
            return f"{self.device} (fell back: this encoder is meant for CUDA)"
        return f"{self.device}" if self.device.type == "cpu" else f"{self.device}, {self.dtype}".replace("torch.", "")

    @torch.inference_mode()
    def embedded(self, network: nn.Module, values: torch.Tensor) -> npt.NDArray[np.float32]:
        """Return the output of a network on this device, (n, dim) float32, computed in this precision."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            out = network(values)
        found: npt.NDArray[np.float32] = out.float().cpu().numpy()
        return found


class TorchEncoder:
    """A frozen torch network that embeds slices.

    Parameters
    ----------
    network : nn.Module
        (n, 3, size, size) float -> (n, dim)
    spec : EncoderSpec
    inputs : Input
        Preprocessing of grey values; the spec's, or the one that the adapter read from the checkpoint's folder.
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    SpecError
        The view does not match the network's input.
    EncoderError
        The device is not available.
    """

    def __init__(self, network: nn.Module, spec: EncoderSpec, inputs: Input, device: str) -> None:
        self._placement = placed(spec, device)
        self.device = str(self._placement)
        #: number of parameters of the network as loaded
        self.n_parameters = n_parameters(network)
        # channels-last: about three times faster for convolutions on a CPU
        self._network = (
            network.eval().requires_grad_(False).to(self._placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        )
        self.prepared = Preparation(inputs, spec, self._placement.device)

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed slices, (n, channels, rows, columns) uint8 or HU, as (n, dim) float32; a single channel is repeated."""
        return self._placement.embedded(self._network, self.prepared(slices))


class UnitNorm(nn.Module):
    """A network whose embedding is scaled to length 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, size, size) to (n, dim)."""
        # in float32 for every precision of the network: rounding in half precision would change the norm
        return nn.functional.normalize(self.network(images).float(), dim=-1)


def placed(spec: EncoderSpec, device: str) -> Placement:
    """Return the device and precision of an encoder; a CPU always computes in float32.

    Raises
    ------
    EncoderError
        CUDA is requested, by the spec or the config, but not available.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise EncoderError("CUDA was requested, but torch finds no GPU.", where=spec.name, fix="Set `device: auto`.")
    if there and device != "cpu":
        return Placement(torch.device("cuda"), _precision(spec), fell_back=False)
    meant_for_cuda = spec.device == "cuda"
    if meant_for_cuda and not spec.cpu_fallback:
        raise EncoderError(
            "this encoder needs CUDA, but there is no GPU.",
            where=spec.name,
            fix="Run on a GPU machine, or set `cpu_fallback: true` in its spec.",
        )
    if meant_for_cuda:
        _log.warning("%s is meant for CUDA and falls back to the CPU, in float32, as its spec allows.", spec.name)
    return Placement(torch.device("cpu"), torch.float32, fell_back=meant_for_cuda)


def _precision(spec: EncoderSpec) -> torch.dtype:
    """Return the precision on CUDA: the spec's, or float32 for bfloat16 on a GPU that only emulates it."""
    if spec.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        _log.warning("%s runs in float32: this GPU has no bfloat16.", spec.name)
        return torch.float32
    return _DTYPES[spec.dtype]


def of_volumes_on(network: nn.Module, placement: Placement) -> nn.Module:
    """Return a network of volumes on its device, frozen; in half precision on CUDA, with channels last."""
    network = network.requires_grad_(requires_grad=False).to(placement.device)
    return channels_last(network) if placement.device.type == "cuda" and placement.dtype != torch.float32 else network


def channels_last(network: nn.Module) -> nn.Module:
    """Return a network whose convolutions keep channels last in memory: tensor cores compute them without a transposition."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for one in network.parameters():
        if one.ndim in formats:
            one.data = one.data.contiguous(memory_format=formats[one.ndim])
    return network


def n_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(one.numel() for one in network.parameters())


def needs_input(spec: EncoderSpec, published: str) -> Input:
    """Return the spec's `input`.

    Raises
    ------
    SpecError
        It has none; `published` states the input that the model was published with.
    """
    if spec.input is None:
        raise SpecError(
            f"{spec.adapter} needs `input`: size, resize, mean and std are part of an encoder.",
            where=spec.name,
            fix=f"The model was published with: {published}",
        )
    return spec.input


def needs_dim(spec: EncoderSpec, dim: int) -> None:
    """Check the spec's dimension.

    Raises
    ------
    SpecError
        The network's dimension differs.
    """
    if spec.dim != dim:
        raise SpecError(f"dim is {spec.dim}, but the network's output has {dim} dimensions.", where=spec.name)


def load_strictly(network: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Load tensors into a network; every name and shape must fit, and none may be left over.

    Raises
    ------
    WeightsError
        Tensors are missing, left over or misshaped; the message names them.
    """
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise WeightsError(f"the checkpoint does not fit the network: {' '.join(lines)[:400]}", where=where) from error
