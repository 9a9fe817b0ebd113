"""What every torch adapter shares: device and precision, normalisation, eval and inference mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmaudit_core.encoders.errors import EncoderError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.imaging.window import SliceArray

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchEncoder:
    """A frozen torch network that embeds slices.

    Parameters
    ----------
    network : nn.Module
        (n, 3, size, size) float -> (n, dim)
    spec : EncoderSpec
    inputs : Input
        How grey becomes the network's input; the spec's, or what the adapter read from the checkpoint's folder.
    device : "auto", "cpu" or "cuda"
    """

    def __init__(self, network: nn.Module, spec: EncoderSpec, inputs: Input, device: str) -> None:
        self._place = chosen_device(spec, device)
        self.device = str(self._place)
        # channels-last: about three times faster for convolutions on a CPU
        self._network = network.eval().requires_grad_(False).to(self._place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self._inputs = inputs
        self._dtype = cuda_dtype(spec, self._place)
        shape = (1, len(inputs.mean), 1, 1)
        self._mean = torch.tensor(inputs.mean, device=self._place).view(shape) * inputs.scale
        self._factor = 1.0 / (torch.tensor(inputs.std, device=self._place).view(shape) * inputs.scale)

    @torch.inference_mode()
    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """(n, channels, rows, columns) uint8 -> (n, dim) float32; one channel is repeated to three."""
        with torch.autocast(self._place.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            out = self._network(self.prepared(slices))
        found: npt.NDArray[np.float32] = out.float().cpu().numpy()
        return found

    def prepared(self, slices: SliceArray) -> torch.Tensor:
        """Network input of 8-bit slices, on the device."""
        grey = on_device(slices, self._place)
        if grey.shape[1] == 1 and len(self._inputs.mean) > 1:
            grey = grey.expand(-1, len(self._inputs.mean), -1, -1)
        values = grey.to(torch.float32, memory_format=torch.channels_last)
        size = self._inputs.size_px
        if values.shape[-2:] != (size, size):
            values = nn.functional.interpolate(
                values, size=(size, size), mode=self._inputs.resize, antialias=True
            ).clamp_(0.0, 255.0)
        return values.sub_(self._mean).mul_(self._factor)


def chosen_device(spec: EncoderSpec, device: str) -> torch.device:
    """Device an encoder runs on.

    Raises
    ------
    EncoderError
        CUDA is asked for, by the spec or the config, and there is none to be had.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise EncoderError("CUDA is asked for, but torch finds no GPU.", where=spec.name, fix="Set `device: auto`.")
    if spec.device == "cuda" and not (there and device != "cpu") and not spec.cpu_fallback:
        raise EncoderError(
            "this encoder runs on CUDA only, and there is no GPU to run on.",
            where=spec.name,
            fix="Run on a GPU machine, or set `cpu_fallback: true` in its spec.",
        )
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def cuda_dtype(spec: EncoderSpec, place: torch.device) -> torch.dtype:
    """Precision of the forward pass: the spec's on CUDA, float32 on a CPU."""
    return _DTYPES[spec.dtype] if place.type == "cuda" else torch.float32


def on_device(slices: SliceArray, place: torch.device) -> torch.Tensor:
    """Slices as a tensor on the device; from pinned memory to a GPU, so that the copy runs beside its computing."""
    there = torch.from_numpy(np.ascontiguousarray(slices))
    return there.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else there


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint; a pickle is opened for tensors only, never for code.

    Raises
    ------
    WeightsError
        The file is cut off, holds something else than tensors, or is no checkpoint.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise WeightsError(
            f"the checkpoint cannot be read safely ({str(error).splitlines()[0][:160]}).", where=str(path)
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise WeightsError("the checkpoint does not hold tensors by name.", where=str(path))
    return state


def load_strictly(network: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Put tensors into a network; every name and shape must fit, none may be left over.

    Raises
    ------
    WeightsError
        Naming what is missing, left over or misshaped.
    """
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise WeightsError(f"the checkpoint does not fit the network: {' '.join(lines)[:400]}", where=where) from error
